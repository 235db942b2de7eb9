"""Images in a row with words beneath: what panel and contact sheet are made of (Pillow)."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from kizu.images import resize_image
from kizu.masks import resize_mask
from kizu.reports._heat import colour, draw_contours, draw_outline, overlay, ramp, resize_map, to_unit

PAPER, INK, SOFT, RULE = (255, 255, 255), (24, 26, 31), (98, 104, 114), (222, 225, 230)
CALLED, PASSED = (198, 84, 22), (32, 104, 158)
"""Frames: called anomalous (vermilion) and called normal (blue); different with any kind of colour vision,
and named in words besides."""


def made_by_kizu() -> PngImagePlugin.PngInfo:
    """What a picture says of its origin, so that kizu may replace it later."""
    words = PngImagePlugin.PngInfo()
    words.add_text("Software", "kizu")
    return words


@dataclass(frozen=True)
class Images:
    """What is shown of one image: (h, w, 3) uint8 arrays of one size, None where there is nothing to show."""

    image: NDArray[np.uint8]
    truth: NDArray[np.uint8] | None
    heat: NDArray[np.uint8] | None
    decision: NDArray[np.uint8]


def panel_images(
    image: NDArray[np.uint8],
    heat: NDArray[np.floating] | None,
    mask: NDArray[np.bool_] | None,
    map_range: tuple[float, float],
    longest: int,
) -> Images:
    """The four views of one image, its longer side at most `longest` pixels; map and mask are brought to
    its size."""
    small = resize_image(image, fit(image.shape[:2], longest))
    size = small.shape[:2]
    flat = resize_mask(mask, (size[0], size[1])) if mask is not None else None
    truth = None if flat is None else np.repeat(flat[..., None], 3, axis=2).astype(np.uint8) * np.uint8(255)
    if heat is None:
        return Images(small, truth, None, small)
    unit = to_unit(resize_map(heat, (size[0], size[1])), map_range)
    laid = overlay(small, unit)
    return Images(small, truth, colour(unit), laid if flat is None else draw_outline(laid, flat))


def fit(shape: tuple[int, ...], longest: int) -> tuple[int, int]:
    """(H, W) scaled down, never up, until its longer side is at most `longest`; no side below 1."""
    height, width = int(shape[0]), int(shape[1])
    factor = min(1.0, longest / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


@functools.lru_cache(maxsize=16)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: Latin, Greek, Cyrillic and more on every machine."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")), size)


def shorten(text: str, face: ImageFont.FreeTypeFont, width: int) -> str:
    """Printable text of at most `width` pixels; a longer one loses its middle."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    keep = len(text)
    short = text
    while keep > 1 and face.getlength(short) > width:
        keep -= max(1, keep // 12)
        head = math.ceil(keep / 2)
        short = f"{text[:head]}…{text[len(text) - (keep - head) :]}"
    return short


def frame(pixels: NDArray[np.uint8], called: bool | None, width: int = 4) -> Image.Image:
    """The image inside a frame that shows the decision; a thin grey one without a decision. The size does
    not change."""
    framed = Image.fromarray(pixels)
    if called is None:
        return framed
    pen = ImageDraw.Draw(framed)
    pen.rectangle(
        (0, 0, framed.width - 1, framed.height - 1), outline=CALLED if called else PASSED, width=width
    )
    return framed


def outline_regions(pixels: NDArray[np.uint8], regions: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The image (H, W, 3) with thin contours around the numbered regions (h, w), each with its number beside
    it, as far as there is room: above, else below."""
    size = (pixels.shape[0], pixels.shape[1])
    shown = _nearest(regions, size)
    drawn = Image.fromarray(draw_contours(pixels, shown > 0))
    pen, face = ImageDraw.Draw(drawn), font(12, True)
    for number in np.unique(shown[shown > 0]).tolist():
        rows, columns = np.nonzero(shown == number)
        text, top = str(number), int(rows.min()) - 17
        left = min(int(columns.min()), size[1] - round(face.getlength(text)) - 2)
        place = (max(left, 1), top if top >= 0 else min(int(rows.max()) + 3, size[0] - 16))
        pen.text(place, text, (255, 255, 255), face, stroke_width=1, stroke_fill=(0, 0, 0))
    return np.asarray(drawn)


def _nearest(numbers: NDArray[np.int32], size: tuple[int, int]) -> NDArray[np.int32]:
    """(h, w) -> size, each the number under its centre, as `resize_mask` does it."""
    rows, columns = (
        ((2 * np.arange(new) + 1) * old) // (2 * new) for new, old in zip(size, numbers.shape, strict=True)
    )
    return numbers[rows[:, None], columns]


def colour_bar(width: int, height: int) -> Image.Image:
    """The ramp from low (left) to high (right)."""
    index = np.linspace(0, 255, width).round().astype(np.uint8)
    return Image.fromarray(np.repeat(ramp()[index][None], height, axis=0))


def decision_word(called: bool | None) -> str:
    """The decision in a word."""
    return "not decided" if called is None else "ANOMALOUS" if called else "normal"


def figure(value: float | None, digits: int = 4) -> str:
    """A number with `digits` significant digits, or an en dash."""
    return "\N{EN DASH}" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"
