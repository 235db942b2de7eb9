"""The generator of scenes: a number in, an image and its class out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from kizu.errors import UsageError
from kizu.synthetic.camera import binomial_blur, to_uint8
from kizu.synthetic.noise import Field
from kizu.synthetic.scenes.canvas import SceneCanvas
from kizu.synthetic.scenes.classes import scene_class

LEAST_SIZE = 8
LEAST_CONTRAST = 0.11
"""Least standard deviation, on the scale 0 to 1, that the exposure gives an image."""


class SceneGenerator:
    """Endless drawn images in classes, to train representations on: textures, patterns, objects, fractals and
    cluttered scenes, with no licence attached.

    size: pixels a side, 8 or more. seed: 0 or more; image(i) is a pure function of (seed, i), in any order
    and any thread. classes: how many labels there are. A class is one kind of content with fixed parameters,
    the same for every seed and size and however many classes there are; colours, pose, scale, light and
    camera change from image to image. Raises UsageError for a value out of range.

    >>> image, label = SceneGenerator(size=32, seed=1, classes=10).image(0)
    >>> image.shape, 0 <= label < 10
    ((32, 32, 3), True)
    """

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
        self._classes = tuple(scene_class(index) for index in range(classes))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by label: the family, and which of its variants."""
        return tuple(name for name, _, _ in self._classes)

    def image(self, index: int) -> tuple[NDArray[np.uint8], int]:
        """Image (size, size, 3) number `index` (0 or more), 0 to 255, and its label, 0 to classes - 1."""
        if index < 0:
            raise UsageError(f"Got index={index}. The images are numbered from 0 on: say 0 or more.")
        rng = np.random.default_rng([self.seed, index])
        label = int(rng.integers(len(self._classes)))
        _, draw, parameters = self._classes[label]
        canvas = SceneCanvas(self.size, rng)
        return photograph(canvas, draw(canvas, parameters)), label

    def batch(self, indices: Iterable[int]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images (B, size, size, 3), 0 to 255, and labels (B,) of these numbers, in their order."""
        drawn = [self.image(int(index)) for index in indices]
        images = np.zeros((len(drawn), self.size, self.size, 3), np.uint8)
        for row, (image, _) in enumerate(drawn):
            images[row] = image
        return images, np.array([label for _, label in drawn], np.int64)


def photograph(canvas: SceneCanvas, image: Field) -> NDArray[np.uint8]:
    """The finished image (size, size, 3) of a drawing (3, size, size), 0 to 1: exposure always; uneven light,
    white balance, slight blur and noise each with a probability."""
    mean, spread = float(image.mean()), float(image[:, ::2, ::2].std())
    contrast = max(canvas.uniform(0.8, 1.1), min(LEAST_CONTRAST / (spread + 1e-6), 6.0))
    image = (image - mean) * contrast + min(max(mean, 0.25), 0.75) * canvas.uniform(0.85, 1.15)
    if canvas.chance(0.75):
        image *= _uneven_light(canvas)
    if canvas.chance(0.3):
        image *= np.array([[[canvas.uniform(0.85, 1.1)]] for _ in range(3)], np.float32)
    for _ in range(canvas.choice((0, 0, 0, 1, 1, 2))):
        image = binomial_blur(image)
    if canvas.chance(0.6):
        channels = 3 if canvas.chance(0.4) else 1
        amount = canvas.uniform(0.005, 0.04)
        image += amount * canvas.rng.standard_normal((channels, canvas.size, canvas.size), np.float32)
    return to_uint8(image * 255)


def _uneven_light(canvas: SceneCanvas) -> Field:
    """Factors (size, size) about 1: a slope, perhaps a soft patch, perhaps darker corners."""
    shade = 1 + canvas.uniform(-0.25, 0.25) * canvas.x + canvas.uniform(-0.25, 0.25) * canvas.y
    if canvas.chance(0.3):
        shade += canvas.uniform(0.05, 0.2) * canvas.smooth(2)
    if canvas.chance(0.3):
        shade -= canvas.uniform(0.1, 0.3) * (canvas.x * canvas.x + canvas.y * canvas.y)
    return np.clip(shade, 0.35, 1.6)
