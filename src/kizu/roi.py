"""The region of interest: the part of an image that is learned from, scored and shown.

An image is cut to the region's bounding box before it is resized, so that a detector sees the box as the
whole image; what lies in the box but outside of a mask gets one grey value first, before any pixel is mixed
with its neighbours. So features, scores and maps are functions of the pixels inside, for every detector, and
two images that differ only outside give the same numbers. Nothing of the detector has to know.

The price: a border of the region is a border of the image, where a network sees padding (of a rectangle) or
the grey value (of a mask). It is there in good images too, and learned with them."""

from __future__ import annotations

import base64
import binascii
import functools
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kizu.errors import ImageError, ShapeError, UsageError
from kizu.images import MAX_PIXELS, decoded, open_identified, open_values, resize_image

FILL = 128
"""Grey value of what lies in the box but outside of the mask: near the mean of photographs, so that a
network's normalisation brings it near zero."""
Box = tuple[int, int, int, int]
_RECTANGLE = re.compile(r"\s*(-?\d+)\s*,\s*(-?\d+)\s*,\s*(-?\d+)\s*,\s*(-?\d+)\s*")
_MASK = re.compile(r"mask:(\d{1,6})x(\d{1,6}):(\d{1,6}),(\d{1,6}),(\d{1,6}),(\d{1,6}):([A-Za-z0-9+/=]*)")


@dataclass(frozen=True)
class Roi:
    """A rectangle, or a mask, in pixels of the images as they are on disk.

    box: (x, y, width, height); x to the right, y downwards, from the top left corner. frame: (H, W) of the
    images that a mask was drawn on, which all images must have; None for a rectangle, which lies in images of
    any size that hold it. packed: bits of the mask within its box, row by row (numpy.packbits); b"" where all
    of the box is inside. Raises UsageError for what is no region.

    >>> roi = Roi.of("40,8,64,32")
    >>> roi.box, roi.text
    ((40, 8, 64, 32), '40,8,64,32')
    """

    box: Box
    frame: tuple[int, int] | None = None
    packed: bytes = b""

    def __post_init__(self) -> None:
        whole = all(isinstance(side, int) and not isinstance(side, bool) for side in self.box)
        if len(self.box) != 4 or not whole or max(self.box) > 10**6:
            raise UsageError(f"A region of interest is x,y,width,height in whole pixels, got {self.box!r}.")
        x, y, width, height = self.box
        if x < 0 or y < 0 or width < 1 or height < 1:
            raise UsageError(
                f"A region of interest begins at x, y >= 0 and is at least 1 x 1 pixels, got x {x}, y {y}, "
                f"width {width}, height {height}."
            )
        if self.frame and not self._lies_in(self.frame):
            raise UsageError(f"The region {self.box} reaches beyond its images of {_hw(self.frame)} pixels.")
        if self.packed and (len(self.packed) != -(-width * height // 8) or self.frame is None):
            raise UsageError(f"The mask of a region of {width} x {height} pixels has another size.")

    @classmethod
    def of(cls, given: Any) -> Self:
        """From "x,y,width,height", four whole numbers, the path of a mask (an image, inside where it is not
        zero), an array (H, W) that is read in the same way, `text`, or a Roi.

        Raises UsageError for what is none of these and for an empty mask, ImageError for a mask that cannot
        be read."""
        if isinstance(given, cls):
            return given
        if isinstance(given, np.ndarray):
            return cls._from_values(given, "The region of interest")
        if isinstance(given, tuple | list):
            return cls(_four(given))
        if isinstance(given, str) and (found := _RECTANGLE.fullmatch(given)):
            return cls(_four([int(part) for part in found.groups()]))
        if isinstance(given, str) and given.startswith("mask:"):
            return cls._from_text(given)
        if isinstance(given, str | Path) and str(given):
            return cls._from_values(_mask_values(given), str(given))
        raise UsageError(
            f"A region of interest is x,y,width,height in pixels or the path of a mask, got {given!r:.80}."
        )

    @classmethod
    def _from_values(cls, values: NDArray[Any], name: str) -> Self:
        if values.ndim != 2 or values.dtype.kind not in "biuf":
            raise UsageError(f"{name}: a mask has shape (H, W), got {values.shape} {values.dtype}.")
        inside = values != 0
        rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            raise UsageError(f"{name} is empty: every pixel is zero. Paint what is of interest, in white.")
        (top, bottom), (left, right) = ((int(side[0]), int(side[-1]) + 1) for side in (rows, columns))
        within = inside[top:bottom, left:right]
        packed = b"" if within.all() else np.packbits(within).tobytes()
        return cls((left, top, right - left, bottom - top), (inside.shape[0], inside.shape[1]), packed)

    @classmethod
    def _from_text(cls, text: str) -> Self:
        found = _MASK.fullmatch(text)
        if not found:
            raise UsageError(f"This is no mask that kizu wrote: {text!r:.60}.")
        width, height, *box = (int(part) for part in found.groups()[:6])
        size = -(-box[2] * box[3] // 8)
        if box[2] * box[3] > MAX_PIXELS or max(width, height) > 10**6:
            raise UsageError(f"The region of interest has {box[2]} x {box[3]} pixels, too many.")
        try:
            packed = zlib.decompressobj().decompress(base64.b64decode(found[7], validate=True), size + 1)
        except (binascii.Error, zlib.error) as error:
            raise UsageError(f"The mask of the region of interest is damaged ({error}).") from error
        return cls(_four(box), (height, width), packed)

    @property
    def text(self) -> str:
        """All of it in one word, as model files keep it; `of` reads it."""
        corners = ",".join(map(str, self.box))
        if self.frame is None:
            return corners
        bits = base64.b64encode(zlib.compress(self.packed, 9)).decode() if self.packed else _NO_BITS
        return f"mask:{self.frame[1]}x{self.frame[0]}:{corners}:{bits}"

    @functools.cached_property
    def inside(self) -> NDArray[np.bool_] | None:
        """(height, width) of the box, True inside; None where all of it is."""
        if not self.packed:
            return None
        bits = np.unpackbits(np.frombuffer(self.packed, np.uint8), count=self.box[2] * self.box[3])
        return bits.reshape(self.box[3], self.box[2]).astype(bool)

    def misfit(self, size: tuple[int, int]) -> str:
        """Why the region is none of an image of this size (H, W); "" when it is."""
        if self.frame is not None and self.frame != size:
            return (
                f"has {_hw(size)} pixels (height x width), and the region of interest was drawn on images "
                f"of {_hw(self.frame)}. Give a region for this size."
            )
        if not self._lies_in(size):
            x, y, width, height = self.box
            return (
                f"has {_hw(size)} pixels (height x width), and the region of interest, {width} wide and "
                f"{height} high from x {x}, y {y}, reaches beyond it. Give one that lies inside."
            )
        return ""

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An image (H, W, 3) or (H, W) uint8 -> that of the box, (height, width, 3) or (height, width), what
        is outside of a mask grey. Raises ShapeError for an image that the region is none of."""
        cut = self._boxed(image)
        if self.inside is not None:
            cut[~self.inside] = FILL
        return cut

    def cut_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask (H, W) bool -> (height, width): False outside of the region. Raises ShapeError."""
        cut = self._boxed(mask)
        return cut if self.inside is None else cut & self.inside

    def cut_tensor(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> (B, 3, height, width). Raises ShapeError."""
        self._check((int(images.shape[2]), int(images.shape[3])))
        x, y, width, height = self.box
        cut = images[:, :, y : y + height, x : x + width].clone()
        if self.inside is not None:
            cut[:, :, torch.from_numpy(~self.inside)] = FILL / 255.0
        return cut

    def place(self, heat: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
        """A map (height, width) of the box -> (H, W) float32 of the image, NaN outside of the region. Raises
        ShapeError."""
        self._check(size)
        x, y, width, height = self.box
        whole = np.full(size, np.nan, dtype=np.float32)
        whole[y : y + height, x : x + width] = (
            heat if self.inside is None else np.where(self.inside, heat, np.float32(np.nan))
        )
        return whole

    def _boxed(self, values: NDArray[Any]) -> NDArray[Any]:
        self._check((values.shape[0], values.shape[1]))
        x, y, width, height = self.box
        return values[y : y + height, x : x + width].copy()

    def _check(self, size: tuple[int, int]) -> None:
        if reason := self.misfit(size):
            raise ShapeError(f"An image {reason}")

    def _lies_in(self, size: tuple[int, int]) -> bool:
        x, y, width, height = self.box
        return x + width <= size[1] and y + height <= size[0]


def open_region(
    path: Path | str, roi: Roi, *, size: tuple[int, int] | None = None, white_level: int | None = None
) -> NDArray[np.uint8]:
    """One image file, cut to the region, as (h, w, 3) uint8 RGB; with size=(h, w) resized to it.

    Raises ImageError as `open_image` does, and for an image that the region is none of."""
    return _cut(open_values(path, white_level=white_level), path, roi, size)


def open_identified_region(
    path: Path | str, roi: Roi, *, size: tuple[int, int], white_level: int | None = None
) -> tuple[NDArray[np.uint8], str]:
    """(`open_region`, digest of the whole image) of a file that is decoded once. Raises ImageError."""
    values, digest = open_identified(path, white_level=white_level)
    return _cut(values, path, roi, size), digest


def _cut(
    values: NDArray[np.uint8], path: Path | str, roi: Roi, size: tuple[int, int] | None
) -> NDArray[np.uint8]:
    if reason := roi.misfit((values.shape[0], values.shape[1])):
        raise ImageError(path, reason)
    cut = roi.cut(values)
    cut = cut if cut.ndim == 3 else np.repeat(cut[..., None], 3, axis=2)
    return cut if size is None else resize_image(cut, size)


def _mask_values(path: str | Path) -> NDArray[Any]:
    """(H, W) values of a mask at their full depth; any channel but alpha counts."""
    with decoded(path) as image:
        if image.mode in ("1", "L", "P") or image.mode.startswith(("I", "F")):
            return np.asarray(image)
        return np.asarray(image.convert("RGB")).max(axis=2)


def _four(values: Any) -> Box:
    if len(values) != 4:
        raise UsageError(f"A region of interest is x,y,width,height, four numbers; got {values!r:.80}.")
    x, y, width, height = values
    return x, y, width, height


def _hw(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


_NO_BITS = base64.b64encode(zlib.compress(b"")).decode()
