"""How a detector looks at images, the same for all of them; and building one from parameters by name."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from kizu import checks, engine
from kizu.adaptation.base import Adaptation
from kizu.errors import UnknownParameter, UsageError
from kizu.grey_depth import check_white_level
from kizu.representations.base import Representation
from kizu.roi import Roi

ALIGNMENTS = ("centres", "grid")


@dataclasses.dataclass(frozen=True)
class Runtime:
    """How images are looked at, the same for every detector.

    image_size: side or (H, W) in pixels to which files are resized; tensors are taken at the size they have.
    precision: "auto" (the faster one here: kizu.precision), "fp32" or "bf16". device: "auto", "cpu", "cuda",
    "cuda:0". batch_size: images a forward pass. white_level: value of white in grey files of more than 8
    bits, such as 4095 for a camera of 12 bits; None: as each file says, else 65535. alignment: where the
    scores of cells lie in a map: in the "centres" of what they look at (Representation.offsets; of the finest
    level), or on the "grid" of each method's paper. roi: the region of interest, a kizu.roi.Roi or what
    Roi.of takes: x, y, width and height in pixels of the images as they are, or the path of a mask; outside
    nothing is learned or scored. Maps are those of its bounding box. Raises UsageError for values that cannot
    be meant."""

    image_size: int | tuple[int, int] = 256
    precision: str = "auto"
    device: str = "auto"
    batch_size: int = 16
    white_level: int | None = None
    alignment: str = "centres"
    roi: Roi | str | Path | tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        sides = checks.image_size(self.image_size)
        checks.whole_numbers(batch_size=self.batch_size)
        check_white_level(self.white_level)
        if isinstance(self.device, torch.device):
            object.__setattr__(self, "device", str(self.device))
        for name in ("precision", "device"):
            if not isinstance(getattr(self, name), str):
                raise UsageError(f"{name} is a name such as 'auto', got {getattr(self, name)!r}.")
        if self.alignment not in ALIGNMENTS:
            raise UsageError(f"alignment is 'centres' or 'grid', got {self.alignment!r}.")
        engine.check_precision(self.precision)
        engine.device_named(self.device)
        object.__setattr__(self, "image_size", sides)
        object.__setattr__(self, "roi", None if self.roi is None else Roi.of(self.roi))


RUNTIME = tuple(field.name for field in dataclasses.fields(Runtime))


def parameters_of(detector: Any) -> dict[str, Any]:
    """Every parameter of a detector by name, as plain values: a region of interest is its text."""
    values = {name: getattr(detector, name) for name in parameter_names(type(detector))}
    return values | {"roi": None if detector.roi is None else detector.roi.text}


def parameter_names(kind: type[Any]) -> list[str]:
    """The keywords of a detector's constructor, those of Runtime in the place of `runtime`."""
    keywords = [
        name
        for name, parameter in inspect.signature(kind.__init__).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in ("adaptation", "runtime")
    ]
    return [*keywords, *RUNTIME]


def build(
    kind: type[Any],
    representation: Representation | str | Path | None,
    parameters: Mapping[str, Any],
    *,
    adaptation: Adaptation | str | None = None,
) -> Any:
    """Construct from parameters by name, those of Runtime among them. Raises UnknownParameter naming the
    nearest."""
    known = parameter_names(kind)
    for name in parameters:
        if name not in known:
            raise UnknownParameter(kind.__name__, name, known)
    runtime = Runtime(**{name: value for name, value in parameters.items() if name in RUNTIME})
    own: Any = {name: value for name, value in parameters.items() if name not in RUNTIME}
    return kind(representation, adaptation=adaptation, runtime=runtime, **own)
