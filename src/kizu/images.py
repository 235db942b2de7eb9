"""The only place that opens image and mask files (Pillow; no torch). Safe to call from many threads.

An image comes out as (H, W, 3) uint8 RGB, whatever it was on disk:

    grey, 1-bit, palette, CMYK  -> RGB                      colour profiles are not applied
    16-bit grey                 -> 255 value / white        kizu.grey_depth says which value is white
    16-bit colour               -> the high byte            (that is all Pillow reads)
    transparency                -> laid on white            alpha channel, or a transparent palette entry
    EXIF orientation            -> applied                  to masks as well
    several frames              -> the first

Floating-point pixels, of no agreed range, and files that cannot be read as a whole raise ImageError.

Formats are recognised by content, not by suffix: BMP, GIF, JPEG, JPEG 2000, PNG, PPM/PGM/PBM, TIFF, WebP, and
HEIC with the extra `heic`. `kizu.image_files` says which files of a folder are images. Nothing else is tried,
so that a stranger's file never reaches a format that runs other programs (EPS). The size in the header is
compared with `max_pixels` before a pixel is decoded. Pillow's own limit, a global of the process, is neither
used nor changed."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from kizu.digests import deep_digest
from kizu.digests import floats_digest as floats_digest
from kizu.digests import values_digest as values_digest
from kizu.errors import ImageError, KizuError, UsageError
from kizu.grey_depth import SIXTEEN, Depth, depth_of, tiff_layout, to_eight_bits
from kizu.image_files import SUFFIXES as SUFFIXES
from kizu.image_files import is_image as is_image
from kizu.image_files import list_images as list_images
from kizu.image_files import plugin_for

# Pillow warns of damaged tags and goes on; what matters of it is in its error. One filter for its modules
# alone: catch_warnings around each image would not be safe in threads.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
MAX_PIXELS = 100_000_000
"""Largest image that is decoded, in pixels, unless `max_pixels` or the environment variable KIZU_MAX_PIXELS
says otherwise."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(
    path: Path | str | io.BytesIO,
    *,
    size: tuple[int, int] | None = None,
    max_pixels: int | None = None,
    white_level: int | None = None,
) -> NDArray[np.uint8]:
    """Read one image, a file or its content, as (H, W, 3) uint8 RGB, writable; with `size=(h, w)` as (h, w,
    3), resized as `resize_image` does.

    The result depends on the decoded pixels and on `size` alone, not on the file format: a JPEG is decoded at
    its full resolution, for libjpeg's smaller scales move values by up to 11 of 255.
    max_pixels: largest width * height that is decoded (default KIZU_MAX_PIXELS, else 100,000,000).
    white_level: value of white in grey images of more than 8 bits, where not as the file says. Raises
    ImageError when the file is missing, damaged, too large or of a kind that is not read."""
    values = open_values(path, size=size, max_pixels=max_pixels, white_level=white_level)
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)


def open_values(
    path: Path | str | io.BytesIO,
    *,
    size: tuple[int, int] | None = None,
    max_pixels: int | None = None,
    white_level: int | None = None,
) -> NDArray[np.uint8]:
    """`open_image`, but of an image that is grey (H, W), the value of all three channels."""
    if size is not None:
        check_size(size)
    with _header(path, max_pixels) as opened:
        depth = depth_of(opened)
        flat = _eight_bit(_upright(opened), path, depth, white_level)
        return np.array(flat if size is None else _resized(flat, size))


def open_identified(
    path: Path | str, *, size: tuple[int, int] | None = None, white_level: int | None = None
) -> tuple[NDArray[np.uint8], str]:
    """(`open_values`, `image_digest`) of a file that is decoded once. Raises ImageError."""
    if size is not None:
        check_size(size)
    with _header(path, None) as opened:
        depth = depth_of(opened)
        upright = _upright(opened)
        flat = _eight_bit(upright, path, depth, white_level)
        digest = _digest(upright if upright.mode.startswith("I") else flat, path)
        return np.array(flat if size is None else _resized(flat, size)), digest


def image_digest(path: Path | str) -> str:
    """What identifies an image: a digest of its pixels at their full depth, whatever its file format, its
    name and the white level. Raises ImageError."""
    with _header(path, None) as opened:
        return _digest(_upright(opened), path)


def _digest(upright: Image.Image, path: Path | str) -> str:
    if upright.mode.startswith("I"):
        return deep_digest(np.asarray(upright))
    return values_digest(np.asarray(_eight_bit(upright, path, Depth(), None)))


@contextlib.contextmanager
def decoded(path: Path | str, *, max_pixels: int | None = None) -> Iterator[Image.Image]:
    """The file as a Pillow image, upright, in the mode that it has on disk. Whatever fails inside the `with`
    is an ImageError that names the file. For readers of something else than images, such as masks."""
    with _header(path, max_pixels) as opened:
        yield _upright(opened)


def image_shape(path: Path | str, *, max_pixels: int | None = None) -> tuple[int, int]:
    """(H, W) of an image as `open_image` would return it, from the header alone. Raises ImageError as it
    does, but for damaged pixels."""
    with _header(path, max_pixels) as opened:
        width, height = opened.size
        turned = _orientation(opened) >= 5 and not isinstance(opened, TiffImagePlugin.TiffImageFile)
    return (width, height) if turned else (height, width)


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 -> (h, w, 3) uint8: bilinear, with the filter widened when shrinking (anti-aliased).
    `size` is (h, w)."""
    check_size(size)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UsageError(f"resize_image takes (H, W, 3) uint8, got {image.shape} {image.dtype}.")
    return np.array(_resized(Image.fromarray(image), size))


def check_size(size: tuple[int, int]) -> None:
    """Raise UsageError unless `size` is (height, width), two whole numbers from 1 on."""
    good = (
        isinstance(size, tuple | list)
        and len(size) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in size)
    )
    if not good:
        raise UsageError(
            f"An image size is (height, width) in pixels, two whole numbers from 1 on, got {size!r}."
        )


def _pixel_limit(max_pixels: int | None) -> int:
    if max_pixels is not None:
        return max_pixels
    text = os.environ.get("KIZU_MAX_PIXELS", "").strip()
    if text and not text.isdecimal():
        raise UsageError(f"KIZU_MAX_PIXELS must be a whole number of pixels, got {text!r}.")
    return int(text) if text else MAX_PIXELS


@contextlib.contextmanager
def _header(path: Path | str | io.BytesIO, max_pixels: int | None) -> Iterator[ImageFile.ImageFile]:
    """An image whose header is read and whose size is allowed. Whatever fails inside the `with` is an
    ImageError that names the file."""
    limit = _pixel_limit(max_pixels)
    try:
        with _readable(path) as file:
            opened = _opened(file, path)
            width, height = opened.size
            if width * height > limit:
                raise ImageError(
                    path,
                    f"{width} x {height} pixels are more than the limit of {limit:,}. If the file can be "
                    "trusted, raise the limit with max_pixels= or the environment variable KIZU_MAX_PIXELS.",
                )
            yield opened
    except KizuError:
        raise
    except Exception as error:  # decoders meet a damaged file with errors of every kind
        detail = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(
            path,
            f"cannot be decoded ({detail}). The file is damaged or incomplete: copy it again or leave it "
            "out.",
        ) from error


def _opened(file: IO[bytes], path: Path | str | io.BytesIO) -> ImageFile.ImageFile:
    """Pillow's image of a file. It gets no file name: Pillow would map the file, which garbles turned TIFFs
    and dies when a file shrinks."""
    plugin = plugin_for(file.read(64), path)
    file.seek(0)
    try:
        return plugin(file)
    except Exception as error:
        unknown = "unknown pixel mode" in str(error)
        layout = tiff_layout(file, any_kind=unknown) if plugin is TiffImagePlugin.TiffImageFile else ""
        if layout:
            advice = "Save it as grey or RGB, with 8 or 16 bits a channel."
            raise ImageError(path, f"{layout}, a kind that is not read. {advice}") from None
        raise


@contextlib.contextmanager
def _readable(path: Path | str | io.BytesIO) -> Iterator[IO[bytes]]:
    if isinstance(path, io.BytesIO):
        path.seek(0)
        yield path
        return
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 (a path may be a str here; no Path is built for speed)
        if not stat.S_ISREG(mode):
            raise ImageError(
                path,
                "is a folder; an image file was expected."
                if stat.S_ISDIR(mode)
                else "is not a regular file.",
            )
        file = open(path, "rb")  # noqa: PTH123, SIM115
    except FileNotFoundError as error:
        raise ImageError(path, "there is no such file.") from error
    except PermissionError as error:
        raise ImageError(path, "may not be read: permission denied.") from error
    except OSError as error:
        raise ImageError(path, f"cannot be opened ({error.strerror}).") from error
    with file:
        yield file


def _orientation(opened: Image.Image) -> int:
    """EXIF orientation 1..8; 1 where there is none, or the EXIF block is damaged and the pixels are not."""
    try:
        return int(opened.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # as in _header: a parser of foreign bytes; the image itself may be whole
        return 1


def _upright(opened: ImageFile.ImageFile) -> Image.Image:
    """Decode and turn as EXIF says (Pillow turns TIFF by itself and then drops the tag)."""
    said = opened.size
    opened.load()
    if sorted(opened.size) != sorted(said):  # HEIC has two sizes; the limit was held against the first
        raise ValueError(f"its header says {said[0]} x {said[1]} pixels, it holds {opened.size}")
    turn = _TURNS.get(_orientation(opened))
    return opened if turn is None else opened.transpose(turn)


def _eight_bit(
    opened: Image.Image, path: Path | str | io.BytesIO, depth: Depth, white_level: int | None
) -> Image.Image:
    """Any mode -> mode "L" or "RGB"."""
    if opened.mode.startswith("I"):
        return Image.fromarray(to_eight_bits(np.asarray(opened), depth, white_level, path))
    if depth.coarse and white_level not in (None, SIXTEEN):
        raise ImageError(
            path,
            f"holds colours of 16 bits, of which only the high byte is read, so that a white level of "
            f"{white_level} cannot be applied. Save it with 8 bits.",
        )
    if opened.mode == "F":
        raise ImageError(path, "holds floating-point pixels, of no agreed range. Save it with 8 or 16 bits.")
    if opened.has_transparency_data:
        layered = opened.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    if opened.mode in ("L", "RGB"):
        return opened
    return opened.convert("L" if opened.mode == "1" else "RGB")


def sixteen_bit(opened: Image.Image, path: Path | str | io.BytesIO) -> NDArray[Any]:
    """(H, W) values of an image of a 16- or 32-bit mode. Raises ImageError for values outside 0..65535."""
    values = np.asarray(opened)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(
            path,
            f"holds 32-bit values from {low} to {high}; 0..65535 can be read. Save it with 8 or 16 bits.",
        )
    return values


def _resized(opened: Image.Image, size: tuple[int, int]) -> Image.Image:
    height, width = size
    return (
        opened
        if opened.size == (width, height)
        else opened.resize((width, height), Image.Resampling.BILINEAR)
    )
