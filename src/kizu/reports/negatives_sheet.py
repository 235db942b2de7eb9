"""Good images, what was planted into them, and real anomalies: are synthetic negatives like real ones?

The picture is Fig. 4 of few-shot contrastive fine-tuning, whose authors find that CutPaste does not look like
the flaws of every product. One PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from kizu.checks import whole_numbers
from kizu.errors import DataError, EmptyData, ShapeError, UsageError
from kizu.images import open_image, resize_image
from kizu.masks import resize_mask
from kizu.reports._draw import INK, PAPER, SOFT, fit, font, made_by_kizu, shorten
from kizu.reports._heat import draw_outline
from kizu.store import replacing

_MARGIN, _GAP, _TEXT, _HEAD = 24, 10, 170, 68
ROWS = ("good", "synthetic negative", "real anomaly")


def negatives_sheet(
    good: Sequence[Any],
    negatives: Sequence[Any],
    anomalies: Sequence[Any],
    out: Path | str,
    *,
    masks: Sequence[Any] | None = None,
    names: Sequence[str] = ROWS,
    title: str = "Synthetic negatives beside real anomalies",
    limit: int = 4,
    longest: int = 160,
) -> Path:
    """Write the sheet to `out`, a PNG, and return its path. Column i holds good image i and its negative;
    the anomalies below are others.

    Images are paths, (H, W, 3) uint8 arrays, or (3, H, W) numbers in [0, 1] as views give them (a tensor by
    its `.numpy()`). masks: of the negatives, (H, W) bool, what was planted is then outlined. names: of the
    three rows. limit: the first so many are shown. longest: pixels of an image's longer side. Raises
    UsageError, DataError, EmptyData, ShapeError, ImageError, OutputExists.

    >>> import tempfile
    >>> grey = np.full((3, 32, 32), 0.5)
    >>> planted = grey.copy()
    >>> planted[:, 8:16, 8:24] = 0.9
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     negatives_sheet([grey], [planted], [planted], Path(folder) / "sheet.png").name
    'sheet.png'
    """
    whole_numbers(limit=limit)
    whole_numbers(least=16, longest=longest)
    if Path(out).suffix != ".png":
        raise UsageError(f"The sheet is a .png, got {Path(out).name!r}.")
    if len(names) != len(ROWS):
        raise UsageError(f"names are those of {len(ROWS)} rows, got {list(names)}.")
    for word, row in zip(ROWS, (good, negatives, anomalies), strict=True):
        if not len(row):
            raise EmptyData(f"There is no {word}; each row shows at least one image.")
    if len(negatives) != len(good) or (masks is not None and len(masks) != len(good)):
        held = "" if masks is None else f" and {len(masks)} masks"
        raise DataError(
            f"Each good image has one negative: got {len(good)}, {len(negatives)} negatives{held}."
        )
    outlines = [None] * len(good) if masks is None else masks[:limit]
    tiles = [
        [_tile(image, None, longest) for image in good[:limit]],
        [_tile(*both, longest) for both in zip(negatives[:limit], outlines, strict=False)],
        [_tile(image, None, longest) for image in anomalies[:limit]],
    ]
    sheet = _sheet(tiles, list(names), title, (len(good), len(anomalies)))
    with replacing(out) as temporary:
        sheet.save(temporary, "PNG", pnginfo=made_by_kizu())
    return Path(out)


def _tile(image: Any, mask: Any, longest: int) -> NDArray[np.uint8]:
    pixels = _pixels(image)
    small = resize_image(pixels, fit(pixels.shape[:2], longest))
    if mask is None:
        return small
    planted = np.asarray(mask, dtype=bool)
    if planted.shape != pixels.shape[:2]:
        raise ShapeError(f"A mask has the (H, W) of its image, {pixels.shape[:2]}, got {planted.shape}.")
    return draw_outline(small, resize_mask(planted, (small.shape[0], small.shape[1])))


def _pixels(image: Any) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of a path or an array."""
    if isinstance(image, str | Path):
        return open_image(image)
    values = np.asarray(image)
    if values.dtype == np.uint8 and values.ndim == 3 and values.shape[2] == 3:
        return values
    if values.dtype.kind == "f" and values.ndim == 3 and values.shape[0] == 3:
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise DataError("Images of numbers (3, H, W) lie in [0, 1]. Divide them, or give uint8.")
        return np.round(values.transpose(1, 2, 0) * 255).astype(np.uint8)
    raise ShapeError(
        f"An image is a path, (H, W, 3) uint8 or (3, H, W) numbers in [0, 1], got {values.shape} of "
        f"{values.dtype}."
    )


def _sheet(
    tiles: list[list[NDArray[np.uint8]]], names: list[str], title: str, counts: tuple[int, int]
) -> Image.Image:
    wide = max(tile.shape[1] for row in tiles for tile in row)
    heights = [max(tile.shape[0] for tile in row) for row in tiles]
    columns = max(len(row) for row in tiles)
    size = (
        2 * _MARGIN + _TEXT + columns * (wide + _GAP) - _GAP,
        _HEAD + sum(heights) + _GAP * (len(tiles) - 1) + _MARGIN,
    )
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    room = size[0] - 2 * _MARGIN
    pen.text((_MARGIN, _MARGIN - 6), shorten(title, font(17, True), room), INK, font(17, True))
    shown = f"{len(tiles[0])} of {counts[0]} good images, {len(tiles[2])} of {counts[1]} anomalies"
    pen.text((_MARGIN, _MARGIN + 18), shorten(shown, font(12), room), SOFT, font(12))
    top = _HEAD
    for name, row, high in zip(names, tiles, heights, strict=True):
        pen.text((_MARGIN, top), shorten(name, font(13, True), _TEXT - 12), INK, font(13, True))
        for index, tile in enumerate(row):
            sheet.paste(Image.fromarray(tile), (_MARGIN + _TEXT + index * (wide + _GAP), top))
        top += high + _GAP
    return sheet
