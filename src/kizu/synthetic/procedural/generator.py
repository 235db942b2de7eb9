"""The generator: an index in, an image and its class out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from kizu.errors import UsageError
from kizu.synthetic.procedural.camera import develop
from kizu.synthetic.procedural.canvas import Canvas
from kizu.synthetic.procedural.catalogue import variant

LEAST_SIZE = 8


class Procedural:
    """Endless drawn images: textures, patterns, bodies, fractals and scenes, with no licence attached.

    size: pixels a side, 8 or more. seed: 0 or more; image(i) is a pure function of (seed, i), in any order
    and any thread. classes: how many labels there are. A class is one kind of content with its own fixed
    numbers, the same for every seed and size and however many classes there are; colours, pose, scale, light
    and lens change from image to image."""

    def __init__(self, *, size: int = 64, seed: int = 0, classes: int = 200) -> None:
        if size < LEAST_SIZE:
            raise UsageError(
                f"Got size={size}. Procedural images have at least {LEAST_SIZE} pixels a side: say size=64 "
                "or more."
            )
        if classes < 1:
            raise UsageError(
                f"Got classes={classes}. Every procedural image belongs to a class: say classes=1 or more."
            )
        if seed < 0:
            raise UsageError(f"Got seed={seed}. A seed is a whole number from 0 on: say seed=0.")
        self.size, self.seed = size, seed
        self._variants = tuple(variant(index) for index in range(classes))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by label: the family, and which of its variants."""
        return tuple(name for name, _, _ in self._variants)

    def image(self, index: int) -> tuple[NDArray[np.uint8], int]:
        """Image (size, size, 3) number `index` (0 or more), 0 to 255, and its label, 0 to classes - 1."""
        if index < 0:
            raise UsageError(f"Got index={index}. The images are numbered from 0 on: say 0 or more.")
        rng = np.random.default_rng([self.seed, index])
        label = int(rng.integers(len(self._variants)))
        _, draw, parameters = self._variants[label]
        canvas = Canvas(self.size, rng)
        return develop(canvas, draw(canvas, parameters)), label

    def batch(self, indices: Iterable[int]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images (B, size, size, 3), 0 to 255, and labels (B,) of these numbers, in their order."""
        drawn = [self.image(int(index)) for index in indices]
        images = np.zeros((len(drawn), self.size, self.size, 3), np.uint8)
        for place, (image, _) in enumerate(drawn):
            images[place] = image
        return images, np.array([label for _, label in drawn], np.int64)
