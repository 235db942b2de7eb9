"""What a class of scenes fixes, so that its images are alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from kizu.synthetic.noise import Field

T = TypeVar("T")
SEED = 20_260_607
"""Seeds the classes, so that they are the same under every seed of the images."""
STEPS = (0.618034, 0.754878, 0.569840, 0.414214, 0.732051, 0.236068, 0.645751, 0.316625)
"""Irrational steps (golden and plastic ratio, then square roots): successive variants lie far apart in every
parameter (Weyl's equidistribution)."""


class ClassParameters:
    """The fixed numbers of variant 0, 1, ... of family 0, 1, ...: pure functions of these two.

    draws: eight parameters in [0, 1), each spread evenly over the variants of a family. table (64,): further
    numbers in [0, 1), of this class alone. The methods read parameter `index`, 0 to 7."""

    def __init__(self, family: int, variant: int) -> None:
        starts = np.random.default_rng([SEED, family]).random(len(STEPS))
        self.draws = [float((start + variant * step) % 1) for start, step in zip(starts, STEPS, strict=True)]
        self.table: Field = np.random.default_rng([SEED, family, variant]).random(64, np.float32)
        self.table.flags.writeable = False

    def between(self, index: int, low: float, high: float) -> float:
        """A parameter between two numbers."""
        return low + (high - low) * self.draws[index]

    def log(self, index: int, low: float, high: float) -> float:
        """A parameter between two positive numbers, evenly in the logarithm."""
        return float(low * (high / low) ** self.draws[index])

    def integer(self, index: int, low: int, high: int) -> int:
        """A parameter as a whole number, both ends included."""
        return low + int(self.draws[index] * (high + 1 - low))

    def choice(self, index: int, options: Sequence[T]) -> T:
        """A parameter as one of several."""
        return options[int(self.draws[index] * len(options))]
