"""What may stand in the card of a model file: a schema for each kind of card, with bounds on every number.

A card says what is built when the file is opened, so all of it is checked before anything is built: names,
types, and sizes. Fields that only document (provenance, curve) are free; `kizu.untrusted` bounds them with
the card as a whole. Whether a card fits the tensors beside it is checked where these are used."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    ValidationError,
)

from kizu.card_fields import (
    Architecture,
    Card,
    Count,
    Digests,
    Local,
    Name,
    Number,
    Positive,
    Seed,
    Setting,
    Settings,
    Text,
    Texts,
)
from kizu.card_parameters import DetectorParameters
from kizu.card_representations import (
    MAX_NETWORKS,
    AnyRepresentation,
    Projector,
    ProjectorBase,
    cards_within,
)
from kizu.checks import MAX_SIDE
from kizu.errors import ModelFileError, UsageError


class _Adaptation(Card):
    name: Name
    parameters: Settings
    seed: Seed


class _Calibration(Card):
    method: Literal["split", "cross"]
    false_alarm_rate: Annotated[float, Field(ge=1e-9, le=1)]
    map_range: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None
    map_threshold: Number | None = None
    file_sizes: Annotated[list[Positive], Field(min_length=4, max_length=4)] | None = None
    fixed: bool = False
    threshold: Number | None = None


class _Event(Card):
    """An update: when, of how many images, which, and how many were left out."""

    date: Annotated[str, Field(max_length=40)]
    images: Count
    digests: Digests
    left_out: Count


class _Seen(Card):
    fitted: Digests
    calibrated: Digests


class _RepresentationFile(Card):
    representation: AnyRepresentation


class _TrainedProjector(Projector):
    base: ProjectorBase


class _ProjectorFile(Card):
    projector: _TrainedProjector


class _Detector(Card):
    detector: Name
    parameters: DetectorParameters
    adaptation: _Adaptation | None
    representation: AnyRepresentation
    calibration: _Calibration | None
    images: Count
    size: Annotated[list[Annotated[int, Field(ge=0, le=10**6)]], Field(min_length=2, max_length=2)] | None
    seen: _Seen
    history: Annotated[list[_Event], Field(max_length=100_000, default_factory=list)]


class _Optimiser(Card):
    groups: Annotated[list[dict[str, Any]], Field(max_length=1000)]
    plain: dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Settings]
    with_state: Annotated[list[Count], Field(max_length=1_000_000)]


class _Checkpoint(Card):
    step: Count
    recipe: dict[str, Any]
    optimiser: _Optimiser


class _Run(Card):
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


class _Pretraining(Card):
    """Parameters of an objective."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, Setting]

    size: Annotated[int, Field(ge=32, le=MAX_SIDE)] = 32
    batch_size: Annotated[int, Field(ge=1, le=2**20)] = 1
    seed: Seed = 0
    backbone: Architecture | Local = "resnet18"
    spd: bool | Settings | None = None


class _Recipe(Card):
    objective: Name
    parameters: _Pretraining
    data: Annotated[Texts, Field(min_length=1)]
    steps: Positive
    run: _Run


_SCHEMAS: dict[str, type[Card]] = {
    "detector": _Detector,
    "representation": _RepresentationFile,
    "projector": _ProjectorFile,
    "checkpoint": _Checkpoint,
}


def check(card: Mapping[str, Any], kind: str, where: object) -> None:
    """Raise ModelFileError, naming the first field that is not as it may be, for the card of a "detector", a
    "representation", a "projector" or a "checkpoint" in the file `where`; and for a card of another kind."""
    found = str(card.get("kind"))[:40]
    if found != kind:
        hint = " Representations are opened by kizu.representation." if found == "representation" else ""
        raise ModelFileError(f"{where} holds a {found}, not a {kind}.{hint}")
    _validate(_SCHEMAS[kind], card, f"{where}: the card's")
    if kind in ("detector", "representation"):
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
        _validate(DetectorParameters, plain, "The parameter")
    except ModelFileError as error:
        raise UsageError(str(error)) from error


def _validate(schema: type[Card], card: Any, begin: str) -> None:
    try:
        schema.model_validate(card)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"] if not str(part).startswith("<")) or "content"
        said = f"is {reprlib.repr(first['input'])}" if first["type"] != "missing" else "is not there"
        raise ModelFileError(f"{begin} {place[:200]} {said} ({first['msg']}). Refused.") from error


def _check_count(card: dict[str, Any], where: object) -> None:
    if sum(1 for _ in cards_within(card)) > MAX_NETWORKS:
        most = f"more than {MAX_NETWORKS} representations within each other"
        raise ModelFileError(f"{where} holds {most}. Refused.")
