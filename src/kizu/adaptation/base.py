"""An adaptation with its parameters, as detectors and `kizu.adapt` take it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kizu import checks, registry
from kizu.errors import EmptyData, UsageError
from kizu.grey_depth import check_white_level
from kizu.reader import Channels, Images, read
from kizu.representations.base import Representation
from kizu.representations.sources import open_representation
from kizu.training import FitOptions, SampleStore

GIVEN = ("generator", "options")
"""Keywords of every adaptation that are not parameters."""


@dataclass(frozen=True)
class Adaptation:
    """name: a file of kizu/adaptation. parameters: its keywords. seed: of what it draws.

    Raises UnknownName, UnknownParameter naming the nearest, and what the member's `check_parameters` raises
    for values out of range.
    """

    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        checks.whole_numbers(least=0, seed=self.seed)
        if not isinstance(self.parameters, dict):
            raise UsageError(f"parameters of an adaptation are a dict, got {self.parameters!r:.80}.")
        registry.check_keywords(f"adaptation {self.name}", self.function, self.parameters, but=GIVEN)
        registry.module("adaptation", self.name).check_parameters(**self.settings())

    @property
    def function(self) -> Callable[..., Representation]:
        """The member itself: (base, good, *, parameters, generator, options) -> Representation."""
        function: Callable[..., Representation] = registry.load("adaptation", self.name)
        return function

    @property
    def trains(self) -> bool:
        """Whether it trains step by step, and so takes a folder to resume from."""
        return bool(getattr(registry.module("adaptation", self.name), "TRAINS", False))

    def adapt(
        self, base: Representation, good: SampleStore, *, options: FitOptions | None = None
    ) -> Representation:
        """A new representation for the product in the good images; `base` stays as it is. Raises EmptyData
        for none."""
        if not len(good):
            raise EmptyData("There is no good image to adapt to.")
        generator = torch.Generator().manual_seed(self.seed)
        options = options or FitOptions()
        return self.function(base, good, **self.parameters, generator=generator, options=options)

    def settings(self) -> dict[str, Any]:
        """Every parameter as it will be taken, defaults included."""
        known = inspect.signature(self.function).parameters.values()
        defaults = {p.name: p.default for p in known if p.kind is p.KEYWORD_ONLY and p.name not in GIVEN}
        return {**defaults, **self.parameters}


def adapt_to(
    adaptation: Adaptation,
    representation: Representation | str | Path | None,
    data: Images,
    *,
    image_size: int | tuple[int, int] = 256,
    options: FitOptions | None = None,
    channels: Channels = "rgb",
    white_level: int | None = None,
    errors: list[tuple[str, str]] | None = None,
) -> Representation:
    """See kizu.adapt. errors: grows with (path, reason) of the files that could not be read."""
    errors = [] if errors is None else errors
    size = checks.image_size(image_size)
    if options is not None and options.trains and not adaptation.trains:
        raise UsageError(f"{adaptation.name} does not train: folder=, resume= and evaluate= have no effect.")
    base = open_representation(representation)
    check_white_level(white_level)
    good = SampleStore(white_level=white_level)
    for batch in read(
        data,
        size=size,
        batch_size=16,
        errors=errors,
        supervision="normal",
        channels=channels,
        white_level=white_level,
    ):
        good.add(batch)
    if errors and not len(good):
        raise EmptyData(f"None of the good images could be read; the first: {': '.join(errors[0])}")
    adapted = adaptation.adapt(base, good, options=options)
    adapted.card = {
        **adapted.card,
        "adapted_by": {
            "name": adaptation.name,
            "parameters": adaptation.settings(),
            "seed": adaptation.seed,
            "white_level": white_level,
        },
        "images_seen": good.digests(),
    }
    return adapted
