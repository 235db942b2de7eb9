"""Drawing with a pen at twice the size, in coordinates -1 to 1, for what has too many parts for arithmetic on
every pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from kizu.synthetic.procedural.noise import Field

Points = Sequence[tuple[float, float]]
LEVELS = 256
"""Values 0 to 255 that a pen can write."""


class Ink:
    """A sheet of size x size pixels with values 0 to 255: a grey level, or the number of a colour."""

    def __init__(self, size: int, value: int = 0) -> None:
        self.size = size
        self.image = Image.new("L", (2 * size, 2 * size), value)
        self._pen = ImageDraw.Draw(self.image)

    def polygon(self, points: Points, value: int) -> None:
        """A filled polygon."""
        size = self.size
        self._pen.polygon([((x + 1) * size, (y + 1) * size) for x, y in points], fill=value)

    def line(self, points: Points, width: float, value: int, *, ends: bool = False) -> None:
        """A polyline of that width (image: 2), at least one pixel of the sheet; ends: round corners and
        ends."""
        size, wide = self.size, max(1, round(width * self.size))
        spots = [((x + 1) * size, (y + 1) * size) for x, y in points]
        self._pen.line(spots, fill=value, width=wide)
        if ends and wide > 2:
            r = 0.5 * wide
            for x, y in spots:
                self._pen.ellipse((x - r, y - r, x + r, y + r), fill=value)

    def disc(self, x: float, y: float, radius: float, value: int) -> None:
        """A filled circle."""
        x, y, r = (x + 1) * self.size, (y + 1) * self.size, radius * self.size
        self._pen.ellipse((x - r, y - r, x + r, y + r), fill=value)

    def cover(self) -> Field:
        """The values over 255 (size, size), averaged over the four pixels of the sheet."""
        return np.asarray(self.image.reduce(2), np.float32) * np.float32(1 / 255)

    def numbers(self) -> NDArray[np.uint8]:
        """The values (size, size), one of four pixels of the sheet."""
        return np.asarray(self.image)[::2, ::2]

    def coloured(self, colours: Field) -> Field:
        """The image (3, size, size) with colour (n, 3) number i where the value is i, averaged over four
        pixels."""
        sheet = self.image.copy()
        sheet.putpalette((np.clip(colours, 0, 1) * 255).astype(np.uint8).tobytes())
        small = np.asarray(sheet.convert("RGB").reduce(2), np.float32)
        return np.ascontiguousarray(small.transpose(2, 0, 1)) * np.float32(1 / 255)
