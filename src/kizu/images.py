"""The only place that opens image and mask files (Pillow; no torch). Safe to call from many threads.

An image comes out as (H, W, 3) uint8 RGB, whatever it was on disk:

    grey, 1-bit, palette, CMYK  -> RGB                      colour profiles are not applied
    16-bit grey                 -> value / 257, rounded     the range 0..65535: 12-bit data stay dark
    16-bit colour               -> the high byte            (that is all Pillow reads)
    transparency                -> laid on white            alpha channel, or a transparent palette entry
    EXIF orientation            -> applied                  to masks as well
    several frames              -> the first

Floating-point pixels are refused: they have no agreed range. A file that cannot be read as a whole raises
ImageError.

Formats are recognised by content, not by suffix: BMP, GIF, JPEG, JPEG 2000, PNG, PPM/PGM/PBM, TIFF, WebP.
Nothing else is tried, so that a stranger's file never reaches a format that runs other programs (EPS). The
size in the header is compared with `max_pixels` before a pixel is decoded. Pillow's own limit, a global of
the process, is neither used nor changed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from kizu.errors import ImageError, KizuError, LayoutError, UsageError

MAX_PIXELS = 100_000_000
"""Largest image that is decoded, in pixels, unless `max_pixels` or the environment variable KIZU_MAX_PIXELS
says otherwise."""

SUFFIXES = frozenset(
    (
        *(".bmp", ".dib", ".gif", ".j2k", ".jp2", ".jpe", ".jpeg", ".jpg"),
        *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
    )
)
"""Suffixes, in lower case, by which a file counts as an image when a folder is listed."""

_MAGIC: tuple[tuple[tuple[bytes, ...], type[ImageFile.ImageFile]], ...] = (
    ((b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
    ((b"\xff\xd8\xff",), JpegImagePlugin.JpegImageFile),
    ((b"BM",), BmpImagePlugin.BmpImageFile),
    ((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"), TiffImagePlugin.TiffImageFile),
    ((b"RIFF",), WebPImagePlugin.WebPImageFile),
    ((b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile),
    ((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), PpmImagePlugin.PpmImageFile),
    ((b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  \r\n\x87\n"), Jpeg2KImagePlugin.Jpeg2KImageFile),
)
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
    path: Path | str | io.BytesIO, *, size: tuple[int, int] | None = None, max_pixels: int | None = None
) -> NDArray[np.uint8]:
    """Read one image, a file or its content, as (H, W, 3) uint8 RGB, writable; with `size=(h, w)` as (h, w,
    3), resized as `resize_image` does.

    The result depends on the decoded pixels and on `size` alone, not on the file format: a JPEG is decoded at
    its full resolution, for libjpeg's smaller scales move values by up to 11 of 255.
    max_pixels: largest width * height that is decoded (default KIZU_MAX_PIXELS, else 100,000,000). Raises
    ImageError when the file is missing, damaged, too large or of a kind that is not read."""
    values = open_values(path, size=size, max_pixels=max_pixels)
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)


def open_values(
    path: Path | str | io.BytesIO, *, size: tuple[int, int] | None = None, max_pixels: int | None = None
) -> NDArray[np.uint8]:
    """`open_image`, but of an image that is grey (H, W), the value of all three channels."""
    if size is not None:
        check_size(size)
    with _header(path, max_pixels) as opened:
        flat = _eight_bit(_upright(opened), path)
        return np.array(flat if size is None else _resized(flat, size))


def open_identified(path: Path | str, *, size: tuple[int, int]) -> tuple[NDArray[np.uint8], str]:
    """(`open_values` with `size`, `image_digest`) of a file that is decoded once. Raises ImageError."""
    check_size(size)
    with _header(path, None) as opened:
        flat = _eight_bit(_upright(opened), path)
        return np.array(_resized(flat, size)), values_digest(np.asarray(flat))


def image_digest(path: Path | str) -> str:
    """What identifies an image: `values_digest` of its pixels, whatever its file format and name. Raises
    ImageError."""
    return values_digest(open_values(path))


def values_digest(values: NDArray[np.uint8]) -> str:
    """128 bits of the SHA-256 of pixels (H, W, 3) uint8, in hex. Two of a billion images have the same one
    with probability 1e-21. Grey images may come as (H, W)."""
    colour = values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)
    digest = hashlib.sha256(f"{colour.shape}".encode())
    digest.update(np.ascontiguousarray(colour))
    return digest.hexdigest()[:32]


def floats_digest(image: NDArray[np.float32]) -> str:
    """What identifies an image that came as numbers, (3, H, W) float32 in [0, 1]: `values_digest` where these
    are whole 255ths, as a decoded file's are, else that of the very floats."""
    whole = np.rint(image * np.float32(255.0))
    if np.array_equal(whole / np.float32(255.0), image):
        return values_digest(whole.astype(np.uint8).transpose(1, 2, 0))
    return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()[:32]


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


def is_image(path: Path | str) -> bool:
    """Whether a file counts as an image, by its suffix alone; hidden files (a leading dot) do not."""
    path = Path(path)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def list_images(folder: Path | str) -> list[Path]:
    """The images directly in a folder, sorted by name. Raises LayoutError when there is no such folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise LayoutError(
            f"{folder} is {'a file' if folder.exists() else 'not there'}; a folder of images was expected."
        )
    return sorted(entry for entry in folder.iterdir() if is_image(entry) and not entry.is_dir())


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
    if text and not text.isdigit():
        raise UsageError(f"KIZU_MAX_PIXELS must be a whole number of pixels, got {text!r}.")
    return int(text) if text else MAX_PIXELS


@contextlib.contextmanager
def _header(path: Path | str | io.BytesIO, max_pixels: int | None) -> Iterator[ImageFile.ImageFile]:
    """An image whose header is read and whose size is allowed. Whatever fails inside the `with` is an
    ImageError that names the file."""
    limit = _pixel_limit(max_pixels)
    try:
        with _readable(path) as file:
            plugin = _plugin(file.read(16), path)
            file.seek(0)
            opened = plugin(
                file
                # no file name: Pillow would map the file, which garbles turned TIFFs and dies when a file
                # shrinks
            )
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


def _plugin(head: bytes, path: Path | str) -> type[ImageFile.ImageFile]:
    if not head:
        raise ImageError(path, "is empty (0 bytes).")
    for starts, plugin in _MAGIC:
        if head.startswith(starts):
            return plugin
    raise ImageError(
        path,
        "is not an image, whatever its suffix says. BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF and WebP are "
        "read.",
    )


def _orientation(opened: Image.Image) -> int:
    """EXIF orientation 1..8; 1 where there is none, or the EXIF block is damaged and the pixels are not."""
    try:
        return int(opened.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # as in _header: a parser of foreign bytes; the image itself may be whole
        return 1


def _upright(opened: ImageFile.ImageFile) -> Image.Image:
    """Decode and turn as EXIF says (Pillow turns TIFF by itself and then drops the tag)."""
    opened.load()
    turn = _TURNS.get(_orientation(opened))
    return opened if turn is None else opened.transpose(turn)


def _eight_bit(opened: Image.Image, path: Path | str | io.BytesIO) -> Image.Image:
    """Any mode -> mode "L" or "RGB"."""
    if opened.mode.startswith("I"):
        return Image.fromarray(((sixteen_bit(opened, path).astype(np.int32) + 128) // 257).astype(np.uint8))
    if opened.mode == "F":
        raise ImageError(
            path, "holds floating-point pixels, which have no agreed range. Save it with 8 or 16 bits."
        )
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
