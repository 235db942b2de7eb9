"""What may stand in the card of a representation or a projector: a schema for each kind, with bounds on every
number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from kizu.card_fields import (
    Architecture,
    Card,
    Count,
    Digests,
    Name,
    Number,
    Positive,
    Seed,
    Text,
    Texts,
    WeightDigest,
    Width,
)
from kizu.checks import MAX_SIDE

MAX_NETWORKS = 16
"""Representations within one card."""


class _Representation(Card):
    """What is read of a representation of any kind; a kind without a schema of its own is held to this."""

    kind: Name
    name: Text
    licence: Text | None = None
    trained_on: Texts = Field(default_factory=list)
    images_seen: Digests = Field(default_factory=list)


class _Backbone(_Representation):
    architecture: Architecture
    levels: Annotated[list[Annotated[int, Field(ge=1, le=200)]], Field(min_length=1, max_length=32)]
    source: Literal["timm", "imagenet", "random", "file", "imagebind"]
    seed: Seed | None = None
    digest: WeightDigest | None = None
    half: bool = False
    stages: Literal["all"] | None = None
    offsets: Annotated[list[Number], Field(max_length=32)] | None = None


class _Residual(_Representation):
    matching: Literal["cosine", "l2"]
    shots: Count = 0
    base: AnyRepresentation


class _AlignedResidual(_Residual):
    shots: Positive
    grid: Annotated[int, Field(ge=1, le=1024)]
    positions: Annotated[list[Annotated[int, Field(ge=1, le=MAX_SIDE)]], Field(min_length=2, max_length=2)]
    matcher: AnyRepresentation | None


class _ProjectorSettings(Card):
    model_config = ConfigDict(strict=True, extra="forbid")

    channels: Annotated[list[Width], Field(min_length=1, max_length=32)]
    kind: Name
    references: Annotated[int, Field(ge=1, le=2**20)]
    heads: Annotated[int, Field(ge=1, le=4096)] | None
    gate: bool
    depth: Annotated[int, Field(ge=1, le=64)]


class ProjectorBase(Card):
    """The network on whose residuals a projector was trained."""

    name: Text
    channels: Annotated[list[Width], Field(min_length=1, max_length=32)]
    levels: Annotated[list[Annotated[int, Field(ge=1, le=200)]], Field(max_length=32)] | None
    digest: WeightDigest


class Projector(Card):
    """A projector, `base` where it was trained."""

    settings: _ProjectorSettings
    base: ProjectorBase | None = None
    images_seen: Digests = Field(default_factory=list)


class _Projected(_Representation):
    projector: Projector
    base: AnyRepresentation


class _Stacked(_Representation):
    parts: Annotated[list[AnyRepresentation], Field(min_length=1, max_length=MAX_NETWORKS)]


class _Small(_Representation):
    architecture: Name
    levels: Annotated[list[Annotated[int, Field(ge=1, le=8)]], Field(min_length=1, max_length=8)]
    seed: Seed | None = None


_KINDS = ("backbone", "residual", "aligned_residual", "projected", "stacked", "small")


def _schema(card: Any) -> str:
    """The tag of a card's schema; brackets tell it from a field in the places that pydantic names."""
    kind = card.get("kind") if isinstance(card, dict) else None
    return f"<{kind}>" if kind in _KINDS else "<other>"


AnyRepresentation = Annotated[
    Annotated[_Backbone, Tag("<backbone>")]
    | Annotated[_Residual, Tag("<residual>")]
    | Annotated[_AlignedResidual, Tag("<aligned_residual>")]
    | Annotated[_Projected, Tag("<projected>")]
    | Annotated[_Stacked, Tag("<stacked>")]
    | Annotated[_Small, Tag("<small>")]
    | Annotated[_Representation, Tag("<other>")],
    Discriminator(_schema),
]
_Residual.model_rebuild()
_AlignedResidual.model_rebuild()
_Projected.model_rebuild()
_Stacked.model_rebuild()


def cards_within(card: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A representation's card and those in it."""
    yield card
    parts = card.get("parts")
    for inner in [card.get("base"), card.get("matcher"), *(parts if isinstance(parts, list) else ())]:
        if isinstance(inner, dict):
            yield from cards_within(inner)
