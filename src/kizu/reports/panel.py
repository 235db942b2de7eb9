"""One image and what a detector says of it, side by side in one image.

Image, true defect (if it is known), heat map, and the heat map laid over the image inside a frame that shows
the decision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from kizu.checks import check_shapes
from kizu.errors import UsageError
from kizu.reports._draw import (
    CALLED,
    INK,
    PAPER,
    PASSED,
    RULE,
    SOFT,
    colour_bar,
    decision_word,
    figure,
    font,
    frame,
    outline_regions,
    panel_images,
    shorten,
)

_MARGIN, _GAP, _HEAD, _FOOT = 16, 12, 26, 52


@check_shapes(image="H W 3", heat="h w", mask="y x", regions="h w")
def panel(
    image: NDArray[np.uint8],
    heat: NDArray[np.floating],
    *,
    map_range: tuple[float, float],
    mask: NDArray[np.bool_] | None = None,
    title: str = "",
    score: float | None = None,
    p_value: float | None = None,
    is_anomalous: bool | None = None,
    regions: NDArray[np.int32] | None = None,
    longest: int = 320,
) -> Image.Image:
    """Draw one image (H, W, 3) uint8 beside its raw heat map (h, w), higher is more anomalous, and its true
    defect (y, x) bool.

    map_range: the values at the two ends of the colours, the same for every image of a run. title: usually
    the file name; where it is too long its middle is left out. score, p_value, is_anomalous: as the detector
    gave them, None before calibration. regions: (h, w) the number of the flaw region of each map value, 0 for
    none; they are outlined, with their numbers. longest: pixels of an image's longer side; a larger image is
    scaled down, a smaller one stays. Map and mask may be of any size. Returns an RGB image. Raises
    ShapeError, and UsageError for an image that is not uint8 or a range that is none."""
    if image.dtype != np.uint8:
        raise UsageError(f"panel takes an image of uint8, got {image.dtype}.")
    shown = panel_images(image, heat, mask, map_range, longest)
    tiles = [("image", Image.fromarray(shown.image))]
    if shown.truth is not None:
        tiles.append(("true defect", Image.fromarray(shown.truth)))
    if shown.heat is not None:
        tiles.append(("heat map", Image.fromarray(shown.heat)))
    decision = shown.decision if regions is None else outline_regions(shown.decision, regions)
    tiles.append((_decided(is_anomalous, mask is not None), frame(decision, is_anomalous)))
    high, wide = shown.image.shape[:2]
    cell = max(wide, 150)
    sheet = Image.new(
        "RGB",
        (2 * _MARGIN + len(tiles) * cell + (len(tiles) - 1) * _GAP, _MARGIN + _HEAD + high + _FOOT + _MARGIN),
        PAPER,
    )
    pen = ImageDraw.Draw(sheet)
    for index, (label, tile) in enumerate(tiles):
        left = _MARGIN + index * (cell + _GAP)
        pen.text((left, _MARGIN), label, SOFT, font(14))
        sheet.paste(tile, (left, _MARGIN + _HEAD))
    _caption(sheet, pen, _MARGIN + _HEAD + high + 12, title, (score, p_value, is_anomalous), map_range)
    return sheet


def _decided(called: bool | None, outlined: bool) -> str:
    return ("overlay" if called is None else "decision") + (" and outline" if outlined else "")


def _caption(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    top: int,
    title: str,
    result: tuple[float | None, float | None, bool | None],
    map_range: tuple[float, float],
) -> None:
    score, p_value, called = result
    pen.line((_MARGIN, top, sheet.width - _MARGIN, top), RULE)
    low, high = figure(map_range[0], 3), figure(map_range[1], 3)
    small, bar = font(13), colour_bar(96, 10)
    right = sheet.width - _MARGIN - round(small.getlength(high))
    pen.text((right, top + 32), high, SOFT, small)
    sheet.paste(bar, (right - 6 - bar.width, top + 35))
    left = right - 12 - bar.width - round(small.getlength(low))
    pen.text((left, top + 32), low, SOFT, small)
    pen.text(
        (_MARGIN, top + 9), shorten(title, font(15, True), sheet.width - 2 * _MARGIN), INK, font(15, True)
    )
    word = decision_word(called)
    pen.text(
        (_MARGIN, top + 31), word, SOFT if called is None else CALLED if called else PASSED, font(14, True)
    )
    facts = f"score {figure(score)}" + ("" if p_value is None else f"   p-value {figure(p_value, 3)}")
    start = _MARGIN + round(font(14, True).getlength(word)) + 14
    pen.text((start, top + 31), shorten(facts, font(14), left - 14 - start), INK, font(14))
