"""What may stand in the card of a model file: a schema for each kind of card, with bounds on every number.

A card says what is built when the file is opened, so all of it is checked before anything is built: names,
types, and sizes. Fields that only document (provenance, curve) are free; `kizu.untrusted` bounds them with
the card as a whole. Whether a card fits the tensors beside it is checked where these are used."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    FailFast,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from kizu.checks import MAX_SIDE
from kizu.errors import ModelFileError, UsageError

MAX_PIXELS = 2**28
"""In one batch: 3 GiB of images."""
MAX_NETWORKS = 16
"""Representations within one card."""
LARGEST = 1e12
"""Of a number whose bounds are not known by its name."""

Count = Annotated[int, Field(ge=0, le=2**53)]
Positive = Annotated[int, Field(ge=1, le=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Width = Annotated[int, Field(ge=1, le=65_536)]
Number = Annotated[float, Field(ge=-1e30, le=1e30, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=4000)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
Architecture = Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$", max_length=100)]
"""timm's own names, never those with which timm fetches from elsewhere (hf-hub:, local-dir:)."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Digests = Annotated[list[Digest], FailFast()]
Texts = Annotated[list[Text], FailFast(), Field(max_length=10_000)]


def _setting(value: Any) -> Any:
    """A parameter whose name says nothing of its bounds: nothing, a switch, a number, a word, or a few of
    these."""
    parts = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
    for part in parts:
        number = isinstance(part, int | float) and abs(part) <= LARGEST
        word = part is None or (isinstance(part, str) and len(part) <= 200)
        if not (number or word) or len(parts) > 32:
            raise ValueError(f"a parameter is a number up to {LARGEST:g}, a word, or a few of these")
    return value


Setting = Annotated[Any, AfterValidator(_setting)]
Settings = Annotated[dict[str, Setting], Field(max_length=100)]


class _Card(BaseModel):
    """Types are not converted: 1.0 is no whole number, "1" none at all. Other fields are documentation."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _Parameters(_Card):
    """Of a detector. What decides over memory or time has bounds; others are held to `_setting`."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, Setting]

    image_size: Annotated[list[Annotated[int, Field(ge=8, le=MAX_SIDE)]], Field(min_length=2, max_length=2)]
    batch_size: Annotated[int, Field(ge=1, le=65_536)]
    white_level: Annotated[int, Field(ge=255, lt=2**31)] | None = None
    precision: Annotated[str, Field(max_length=20)] = "auto"
    device: Annotated[str, Field(max_length=40)] = "auto"
    seed: Seed = 0
    iterations: Positive = 1
    sigma: Annotated[float, Field(ge=0, le=1000)] = 0.0
    neighbourhood: Annotated[int, Field(ge=1, le=63)] = 1
    neighbours: Annotated[int, Field(ge=1, le=1000)] = 1
    reweight: Annotated[int, Field(ge=1, le=1000)] | None = None
    dimensions: Width | None = None
    projection: Width | None = None
    hidden: Width = 1
    embedding_width: Width | None = None
    embedding: Width | None = None
    latent: Width = 1
    crop: Annotated[int, Field(ge=8, le=MAX_SIDE)] | None = None
    stride: Annotated[int, Field(ge=4, le=MAX_SIDE)] = 30
    samples: Annotated[int, Field(ge=1, le=1000)] = 1
    pretraining: Count = 0

    @model_validator(mode="after")
    def _bounded_batch(self) -> Self:
        height, width = self.image_size
        pixels = self.batch_size * height * width
        if pixels > MAX_PIXELS:
            raise ValueError(f"a batch of {self.batch_size} has {pixels:,} pixels, most {MAX_PIXELS:,}")
        return self


class _Adaptation(_Card):
    name: Name
    parameters: Settings
    seed: Seed


class _Calibration(_Card):
    method: Literal["split", "cross"]
    false_alarm_rate: Annotated[float, Field(ge=1e-9, lt=1)]
    map_range: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None
    file_sizes: Annotated[list[Positive], Field(min_length=4, max_length=4)] | None = None


class _Seen(_Card):
    fitted: Digests
    calibrated: Digests


class _Representation(_Card):
    """What is read of a representation of any kind; a kind without a schema of its own is held to this."""

    kind: Name
    name: Text
    licence: Text | None = None
    trained_on: Texts = []
    images_seen: Digests = []


class _Backbone(_Representation):
    architecture: Architecture
    levels: Annotated[list[Annotated[int, Field(ge=1, le=200)]], Field(min_length=1, max_length=32)]
    source: Literal["timm", "imagenet", "random", "file"]
    seed: Seed | None = None
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    half: bool = False
    stages: Literal["all"] | None = None
    offsets: Annotated[list[Number], Field(max_length=32)] | None = None


class _Residual(_Representation):
    matching: Literal["cosine", "l2"]
    shots: Count = 0
    base: AnyRepresentation


class _Stacked(_Representation):
    parts: Annotated[list[AnyRepresentation], Field(min_length=1, max_length=MAX_NETWORKS)]


class _Small(_Representation):
    architecture: Name
    levels: Annotated[list[Annotated[int, Field(ge=1, le=8)]], Field(min_length=1, max_length=8)]
    seed: Seed | None = None


_KINDS = ("backbone", "residual", "stacked", "small")


def _schema(card: Any) -> str:
    """The tag of a card's schema; brackets tell it from a field in the places that pydantic names."""
    kind = card.get("kind") if isinstance(card, dict) else None
    return f"<{kind}>" if kind in _KINDS else "<other>"


AnyRepresentation = Annotated[
    Annotated[_Backbone, Tag("<backbone>")]
    | Annotated[_Residual, Tag("<residual>")]
    | Annotated[_Stacked, Tag("<stacked>")]
    | Annotated[_Small, Tag("<small>")]
    | Annotated[_Representation, Tag("<other>")],
    Discriminator(_schema),
]
_Residual.model_rebuild()
_Stacked.model_rebuild()


class _RepresentationFile(_Card):
    representation: AnyRepresentation


class _Detector(_Card):
    detector: Name
    parameters: _Parameters
    adaptation: _Adaptation | None
    representation: AnyRepresentation
    calibration: _Calibration | None
    images: Count
    size: Annotated[list[Annotated[int, Field(ge=0, le=10**6)]], Field(min_length=2, max_length=2)] | None
    seen: _Seen


class _Optimiser(_Card):
    groups: Annotated[list[dict[str, Any]], Field(max_length=1000)]
    plain: dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Settings]
    with_state: Annotated[list[Count], Field(max_length=1_000_000)]


class _Checkpoint(_Card):
    step: Count
    recipe: dict[str, Any]
    optimiser: _Optimiser


class _Run(_Card):
    """Keywords of `kizu.training.train`, and those of the pretraining."""

    model_config = ConfigDict(strict=True, extra="forbid")

    init: Text | None
    source_size: Annotated[int, Field(ge=1, le=MAX_SIDE)] | None
    accumulate: Positive
    precision: Annotated[str, Field(max_length=20)]
    device: Annotated[str, Field(max_length=40)]
    devices: Positive | None
    nodes: Positive | None
    checkpoint_every: Positive
    log_every: Positive
    half: bool
    sync_batch_norm: bool | None = None
    white_level: Annotated[int, Field(ge=255, lt=2**31)] | None = None


class _Pretraining(_Card):
    """Parameters of an objective."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, Setting]

    size: Annotated[int, Field(ge=32, le=MAX_SIDE)] = 32
    batch_size: Annotated[int, Field(ge=1, le=2**20)] = 1
    seed: Seed = 0
    backbone: Architecture = "resnet18"
    spd: bool | Settings | None = None


class _Recipe(_Card):
    objective: Name
    parameters: _Pretraining
    data: Annotated[Texts, Field(min_length=1)]
    steps: Positive
    run: _Run


_SCHEMAS: dict[str, type[_Card]] = {
    "detector": _Detector,
    "representation": _RepresentationFile,
    "checkpoint": _Checkpoint,
}


def check(card: Mapping[str, Any], kind: str, where: object) -> None:
    """Raise ModelFileError, naming the first field that is not as it may be, for the card of a "detector", a
    "representation" or a "checkpoint" in the file `where`; and for a card of another kind."""
    found = str(card.get("kind"))[:40]
    if found != kind:
        hint = " Representations are opened by kizu.representation." if found == "representation" else ""
        raise ModelFileError(f"{where} holds a {found}, not a {kind}.{hint}")
    _validate(_SCHEMAS[kind], card, f"{where}: the card's")
    if kind != "checkpoint":
        _check_count(card["representation"], where)


def check_representation(card: Any) -> None:
    """The same for the card of a representation, as it stands within another card."""
    _validate(_RepresentationFile, {"representation": card}, "The file's")
    _check_count(card, "The file")


def check_recipe(recipe: Any, where: object) -> None:
    """Raise ModelFileError for the recipe of a pretraining run that no run wrote."""
    _validate(_Recipe, recipe, f"{where}: the recipe's")


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise UsageError for a detector's parameters with which its model file would be refused: before a fit,
    not after it."""
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items()}
    try:
        _validate(_Parameters, plain, "The parameter")
    except ModelFileError as error:
        raise UsageError(str(error)) from error


def _validate(schema: type[_Card], card: Any, begin: str) -> None:
    try:
        schema.model_validate(card)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"] if not str(part).startswith("<")) or "content"
        said = f"is {reprlib.repr(first['input'])}" if first["type"] != "missing" else "is not there"
        raise ModelFileError(f"{begin} {place[:200]} {said} ({first['msg']}). Refused.") from error


def _check_count(card: dict[str, Any], where: object) -> None:
    if sum(1 for _ in _within(card)) > MAX_NETWORKS:
        most = f"more than {MAX_NETWORKS} representations within each other"
        raise ModelFileError(f"{where} holds {most}. Refused.")


def _within(card: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A representation's card and those in it."""
    yield card
    parts = card.get("parts")
    for inner in [card.get("base"), *(parts if isinstance(parts, list) else ())]:
        if isinstance(inner, dict):
            yield from _within(inner)
