"""What a class fixes: eight parameters that are spread evenly over the variants of a family, and a table of its
own numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from kizu.synthetic.procedural.noise import Field

T = TypeVar("T")
SALT = 20_260_607
"""Seeds the classes, so that they are the same under every seed of the images."""
STEPS = (0.618034, 0.754878, 0.569840, 0.414214, 0.732051, 0.236068, 0.645751, 0.316625)
"""Irrational steps (golden and plastic ratio, then square roots): successive variants fall far apart on every
parameter."""


class Parameters:
    """The fixed numbers of variant 0, 1, ... of family 0, 1, ...: pure functions of these two."""

    def __init__(self, family: int, variant: int) -> None:
        starts = np.random.default_rng([SALT, family]).random(len(STEPS))
        self.draws = tuple(
            float((start + variant * step) % 1) for start, step in zip(starts, STEPS, strict=True)
        )
        self.table: Field = np.random.default_rng([SALT, family, variant]).random(64, np.float32)
        self.table.flags.writeable = False

    def between(self, parameter: int, low: float, high: float) -> float:
        """Parameter 0 to 7 between two numbers."""
        return low + (high - low) * self.draws[parameter]

    def log(self, parameter: int, low: float, high: float) -> float:
        """Parameter 0 to 7 between two positive numbers, evenly in the logarithm."""
        return float(low * (high / low) ** self.draws[parameter])

    def whole(self, parameter: int, low: int, high: int) -> int:
        """Parameter 0 to 7 as a whole number, both ends included."""
        return low + int(self.draws[parameter] * (high + 1 - low))

    def pick(self, parameter: int, of: Sequence[T]) -> T:
        """Parameter 0 to 7 as one of several."""
        return of[int(self.draws[parameter] * len(of))]
