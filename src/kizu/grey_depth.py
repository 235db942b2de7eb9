"""Grey images of more than 8 bits -> 8 bits: which value is white.

A camera of 10 or 12 bits often writes its values into files of 16 bits: white is 1023 or 4095, not 65535. The
white level is, in this order, the one that the caller names, the one that the file names (a TIFF of 9 to 15
bits a sample; its tag MaxSampleValue where that is 2^n - 1), or 65535. It is never taken from the brightest
pixel: one scale for all images of a product, or a dark part would look like a bright one. A TIFF of 32 bits
says nothing of white, and is read with a named level only."""

from __future__ import annotations

import io
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile, TiffImagePlugin

from kizu.errors import Clipped, ImageError, UsageError

SIXTEEN = 65535
CLIPPED_SHARE = 0.01
"""Of the pixels of an image; fewer may be hot ones."""
_BITS, _PHOTOMETRIC, _SAMPLES, _MAX_SAMPLE = 258, 262, 277, 281
logging.getLogger("PIL").addHandler(logging.NullHandler())
"""What Pillow logs of a damaged file its error says too; without a handler Python would print it."""


@dataclass(frozen=True)
class Depth:
    """What a file says of its values. white: its white level, None when it does not say; inverted: whether 0
    is white; coarse: whether it holds colours of 16 bits, of which only the high byte is read."""

    white: int | None = SIXTEEN
    inverted: bool = False
    coarse: bool = False


def depth_of(opened: ImageFile.ImageFile) -> Depth:
    """From the header of a file, before its pixels are decoded."""
    coarse = not opened.mode.startswith(("I", "F")) and any("16" in str(tile[3]) for tile in opened.tile)
    if not isinstance(opened, TiffImagePlugin.TiffImageFile) or not opened.mode.startswith("I"):
        return Depth(coarse=coarse)
    tags = opened.tag_v2
    bits, named = int(tags.get(_BITS, (16,))[0]), _first(tags.get(_MAX_SAMPLE))
    white = 2**bits - 1 if bits <= 16 else None
    if named is not None and named > 255 and (named & (named + 1)) == 0 and named <= SIXTEEN:
        white = named
    return Depth(white, inverted=tags.get(_PHOTOMETRIC) == 0)


def to_eight_bits(
    values: NDArray[Any], depth: Depth, white_level: int | None, path: Path | str | io.BytesIO
) -> NDArray[np.uint8]:
    """(H, W) whole numbers -> uint8: round(255 value / white), at most 255. Raises ImageError for values
    below 0, or where nothing says which value is white. Warns with Clipped of an image with many values above
    white."""
    white = white_level or depth.white
    low, high = int(values.min()), int(values.max())
    if white is None:
        raise ImageError(
            path,
            f"holds 32-bit values, here from {low} to {high}, and nothing says which is white. Name it with "
            "--white-level (Python: white_level=), or save with 8 or 16 bits.",
        )
    if low < 0 or high > max(white, SIXTEEN):
        raise ImageError(
            path, f"holds values from {low} to {high}; 0..{max(white, SIXTEEN)} can be read. Save it with 8 "
            "or 16 bits."
        )  # fmt: skip
    if np.count_nonzero(values > white) > CLIPPED_SHARE * values.size:
        warnings.warn(
            f"Grey images hold many values above {white}, the value of white by which they are read, and "
            "these are read as white: what differs among them is lost. Name another --white-level (Python: "
            "white_level=), the same for all images of a product.",
            Clipped,
            stacklevel=2,
        )
    wide = np.minimum(values.astype(np.int64), white)
    wide = white - wide if depth.inverted else wide
    return ((wide * 255 + white // 2) // white).astype(np.uint8)


def check_white_level(white_level: int | None) -> None:
    """Raise UsageError for a level that cannot be meant.

    >>> check_white_level(4095)
    """
    whole = isinstance(white_level, int) and not isinstance(white_level, bool)
    if white_level is not None and not (whole and 255 <= white_level < 2**31):
        raise UsageError(
            "white_level is the value of white in images of more than 8 bits, such as 1023, 4095 or 65535, "
            f"or None for what the files say; got {white_level!r}."
        )


def tiff_layout(file: IO[bytes], *, any_kind: bool = False) -> str:
    """What a TIFF holds that Pillow does not read, in words; "" when it cannot be told, or (but for any_kind)
    is nothing uncommon."""
    try:
        file.seek(0)
        directory = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(directory.next)
        directory.load(file)
        samples, bits = _first(directory.get(_SAMPLES)) or 1, _first(directory.get(_BITS)) or 1
    except Exception:  # a damaged directory: the reader's own error says so
        return ""
    if samples in (1, 3, 4) and bits in (8, 16) and not any_kind:
        return ""
    return f"is a TIFF of {samples} channel{'' if samples == 1 else 's'} with {bits} bits"


def _first(value: Any) -> int | None:
    value = value[0] if isinstance(value, tuple) and value else value
    return int(value) if isinstance(value, int | float) else None
