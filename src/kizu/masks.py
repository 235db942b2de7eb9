"""Masks: (H, W) bool, True = defect. One file an image, or one folder an image with a file for each
defect."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from kizu.errors import MaskError, UsageError, some
from kizu.images import check_size, decoded, list_images, sixteen_bit

ADVICE = (
    "If its values are class numbers, read it with --mask-rule nonzero (experiments: mask_rule of "
    "[[dataset]]; Python: rule='nonzero', or mask_rule='nonzero' of the data set folder); otherwise "
    "store 0 for normal and 255 for defect."
)
MaskRule = Literal["half", "nonzero", "folder"]
"""How the values of a mask file become True and False; see `open_mask`. Every data set has one, its
MASK_RULE."""


def open_mask(
    path: Path | str,
    *,
    shape: tuple[int, int] | None = None,
    rule: MaskRule = "half",
    max_pixels: int | None = None,
) -> NDArray[np.bool_]:
    """Read one mask as (H, W) bool, True = defect. shape: the (H, W) of its image, to be compared with it.

    rule "half": a pixel is a defect above half of the full range of its bit depth (8 bits: > 127, 16 bits: >
    32767), which reads 0/255 and anti-aliased masks; a mask whose largest value is 1 is read as 0/1. Colours
    count by their largest channel; pixels that are more than half transparent do not count. MaskError is
    raised where no pixel is above half though some are not 0 (an index image, for example), and where a
    region would count as good that is not 0 and not above half (grey classes, 80 and 160): a square of 3 x 3
    pixels of one value, or 9 pixels or more that touch each other, above a quarter of the range and none
    above half (fainter ones lie about in magnetic tile's masks). In a JPEG or WebP a square up to a sixteenth
    of the range is none.
    rule "nonzero": a pixel is a defect where it is not 0; in a palette image the index counts, as in VisA's
    raw masks.
    rule "folder": the union of all mask files in the folder of `path`, each read as "nonzero" (MVTec LOCO AD:
    one file for each defect).

    Raises ImageError as `kizu.images.open_image` does, MaskError for a mask of another size than its image or
    than the masks it is united with, UsageError for another rule."""
    checked_rule(rule)
    if rule != "folder":
        return _open_one(path, shape, rule, max_pixels)
    united = _open_one(path, shape, "nonzero", max_pixels)
    for part in list_images(Path(path).parent):
        if part != Path(path):
            united = united | _open_one(part, united.shape, "nonzero", max_pixels)
    return united


def checked_rule(rule: str) -> MaskRule:
    """The rule. Raises UsageError for a word that is none.

    >>> checked_rule("nonzero")
    'nonzero'
    """
    if rule not in get_args(MaskRule):
        raise UsageError(f"A mask rule is 'half', 'nonzero' or 'folder', got {rule!r}.")
    return rule  # type: ignore[return-value]


def resize_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) bool -> (h, w) bool by the nearest pixel; `size` is (h, w).

    Output (i, j) is the pixel under its centre: floor((i + 0.5) H / h), floor((j + 0.5) W / w). Raises
    UsageError for an array that is not (H, W) bool.

    >>> resize_mask(np.array([[True, False, False, False]]), (1, 2))
    array([[False, False]])
    >>> resize_mask(np.array([[True, False]]), (1, 4))
    array([[ True,  True, False, False]])
    """
    check_size(size)
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise UsageError(f"resize_mask takes (H, W) bool, got {mask.shape} {mask.dtype}.")
    rows, columns = (
        ((2 * np.arange(new) + 1) * old) // (2 * new) for new, old in zip(size, mask.shape, strict=True)
    )
    return np.ascontiguousarray(mask[rows[:, None], columns])


def _open_one(
    path: Path | str, shape: tuple[int, ...] | None, rule: str, max_pixels: int | None
) -> NDArray[np.bool_]:
    with decoded(path, max_pixels=max_pixels) as image:
        values, full = _values(image, rule, path)
        lossy = image.format in ("JPEG", "MPO", "WEBP", "JPEG2000")
    if shape is not None and values.shape != tuple(shape):
        raise MaskError(
            f"{path}: the mask has {_hw(values.shape)} pixels but its image {_hw(shape)} (height x width). "
            "They must agree."
        )
    top = int(values.max())
    if rule == "nonzero" or top == 1:
        return values > 0
    if 0 < top <= full // 2:
        raise MaskError(
            f"{path}: no pixel of the mask lies above half of 0..{full}; the largest value is {top}. {ADVICE}"
        )
    defect = values > full // 2
    lost = _solid_values(values, (values > (full // 16 if lossy else 0)) & ~defect)
    lost += _lost_alone(values, values > full // 4, defect)
    if lost:
        raise MaskError(
            f"{path}: regions of the mask have the value {some(sorted(set(lost)))}, not above half of "
            f"0..{full}, and would count as good. {ADVICE}"
        )
    return defect


def _lost_alone(values: NDArray[Any], marked: NDArray[np.bool_], defect: NDArray[np.bool_]) -> list[int]:
    """The largest value of each region of `marked` of 9 pixels or more, 8-connected, none of them `defect`:
    no soft edge of anything."""
    if not (marked & ~defect).any():
        return []
    regions, count = ndimage.label(marked, np.ones((3, 3)))
    areas = np.bincount(regions.ravel(), minlength=count + 1)
    kept = np.bincount(regions[defect], minlength=count + 1) > 0
    alone = [number for number in range(1, count + 1) if areas[number] >= 9 and not kept[number]]
    return [int(value) for value in ndimage.maximum(values, regions, alone)] if alone else []


def _solid_values(values: NDArray[Any], where: NDArray[np.bool_]) -> list[int]:
    """Values that fill a square of 3 x 3 pixels whose middle lies in `where`, sorted."""
    rows = values[:, 1:] == values[:, :-1]
    pairs = rows[:, 1:] & rows[:, :-1]
    columns = values[1:] == values[:-1]
    below = (columns[1:] & columns[:-1])[:, 1:-1]
    solid = pairs[2:] & pairs[1:-1] & pairs[:-2] & below
    return [int(value) for value in np.unique(values[1:-1, 1:-1][solid & where[1:-1, 1:-1]])]


def _values(image: Image.Image, rule: str, path: Path | str) -> tuple[NDArray[Any], int]:
    """(H, W) values and the top of their range."""
    if image.mode == "1":
        return np.asarray(image), 1
    if image.mode.startswith("I"):
        return sixteen_bit(image, path), 65535
    if image.mode == "F":
        raise MaskError(
            f"{path}: the mask holds floating-point pixels, which have no agreed range. Save it with 8 bits: "
            "0 and 255."
        )
    if (image.mode == "P" and rule == "nonzero") or (image.mode == "L" and not image.has_transparency_data):
        return np.asarray(image), 255
    layers = np.asarray(image.convert("RGBA"))
    return np.where(layers[..., 3] > 127, layers[..., :3].max(axis=2), 0), 255


def _hw(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)
