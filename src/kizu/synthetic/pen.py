"""Drawing with a pen, for what has too many parts for arithmetic on every pixel: outlines, lines, writing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from kizu.synthetic.noise import Field
from kizu.synthetic.shapes import Point, Points, moved

STROKES: dict[str, list[Points]] = {
    "K": [[(0, 0), (0, 1)], [(0.6, 0), (0, 0.55), (0.6, 1)]],
    "I": [[(0.3, 0), (0.3, 1)]],
    "Z": [[(0, 0), (0.6, 0), (0, 1), (0.6, 1)]],
    "U": [[(0, 0), (0, 0.75), (0.15, 1), (0.45, 1), (0.6, 0.75), (0.6, 0)]],
    "R": [[(0, 1), (0, 0), (0.45, 0), (0.6, 0.25), (0.45, 0.5), (0, 0.5), (0.6, 1)]],
    "1": [[(0.1, 0.2), (0.3, 0), (0.3, 1)]],
    "2": [[(0, 0.2), (0.15, 0), (0.45, 0), (0.6, 0.25), (0, 1), (0.6, 1)]],
    "5": [[(0.6, 0), (0.05, 0), (0, 0.45), (0.4, 0.4), (0.6, 0.65), (0.45, 1), (0, 0.95)]],
}
"""The stroke font: polylines in a box 0.6 wide and 1 high. It holds the letters that the products bear."""


class Pen:
    """A sheet of size x size pixels, drawn at twice the size, whose values 0 to 255 are grey levels or
    numbers of colours. Coordinates run over [-1, 1]; widths and radii are in the same unit."""

    def __init__(self, size: int, value: int = 0) -> None:
        self.size = size
        self._sheet = Image.new("L", (2 * size, 2 * size), value)
        self._draw = ImageDraw.Draw(self._sheet)

    def polygon(self, points: Sequence[Point], value: int) -> None:
        """A filled polygon."""
        self._draw.polygon(self._pixels(points), fill=value)

    def line(
        self, points: Sequence[Point], width: float, value: int = 255, *, round_ends: bool = False
    ) -> None:
        """A polyline of that width, at least one pixel of the sheet; round_ends: round corners and ends."""
        pixels, thickness = self._pixels(points), max(width * self.size, 1.0)
        joint = "curve" if round_ends else None
        self._draw.line(pixels, fill=value, width=round(thickness), joint=joint)
        if round_ends:
            self._circle(*pixels[0], thickness / 2, value)
            self._circle(*pixels[-1], thickness / 2, value)

    def tube(self, points: Sequence[Point], width: float, value: int) -> None:
        """A line with round corners and ends, each a disc of whole pixels: rougher than `line`, and several
        times faster."""
        pixels, thickness = self._pixels(points), max(round(width * self.size), 1)
        self._draw.line(pixels, fill=value, width=thickness)
        for x, y in pixels if thickness > 2 else ():
            self._circle(x, y, thickness / 2, value)

    def disc(self, x: float, y: float, radius: float, value: int) -> None:
        """A filled circle."""
        self._circle(*self._pixels([(x, y)])[0], radius * self.size, value)

    def write(self, text: str, centre: Point, height: float, width: float) -> None:
        """Write `text`, `height` high, in strokes `width` wide; characters that the font lacks stay blank."""
        left = centre[0] - height * (0.9 * len(text) - 0.3) / 2
        for glyph in text:
            for stroke in STROKES.get(glyph, []):
                middle = [(x, y - 0.5) for x, y in stroke]
                self.line(moved(middle, left, centre[1], height), width, round_ends=True)
            left += 0.9 * height

    def image(self) -> Image.Image:
        """The grey image (size, size), each pixel the mean of four pixels of the sheet."""
        return self._sheet.reduce(2)

    def coverage(self) -> Field:
        """The grey image (size, size) as a field, 0 to 1."""
        return np.asarray(self.image(), np.float32) * np.float32(1 / 255)

    def numbers(self) -> NDArray[np.uint8]:
        """The values (size, size) themselves, one of four pixels of the sheet."""
        return np.asarray(self._sheet)[::2, ::2]

    def coloured(self, colours: Field) -> Field:
        """The image (3, size, size) that has colour i of `colours` (n, 3), 0 to 1, where the value is i."""
        sheet = self._sheet.copy()
        sheet.putpalette((np.clip(colours, 0, 1) * 255).astype(np.uint8).tobytes())
        image = np.asarray(sheet.convert("RGB").reduce(2), np.float32)
        return np.ascontiguousarray(image.transpose(2, 0, 1)) * np.float32(1 / 255)

    def _pixels(self, points: Sequence[Point]) -> Points:
        return [((x + 1) * self.size, (y + 1) * self.size) for x, y in points]

    def _circle(self, x: float, y: float, radius: float, value: int) -> None:
        self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=value)
