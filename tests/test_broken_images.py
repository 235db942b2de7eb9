"""Images broken in every way: opening one gives an image or an ImageError, in bounded time and memory,
without a warning of Python's.

KIZU_BROKEN_IMAGES says how many are tried (default 200)."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kizu.errors import ImageError
from kizu.images import image_digest, image_shape, open_identified, open_image
from kizu.masks import MaskError, open_mask

try:
    import pillow_heif as heif
except ImportError:  # an extra
    heif = None

COUNT = int(os.environ.get("KIZU_BROKEN_IMAGES", "200"))
LIMIT = 1_000_000
"""Pixels that may be decoded here."""
SECONDS, MEGABYTES = 5.0, 300
RNG = np.random.Generator
SUFFIXES = (".png", ".jpg", ".bmp", ".tif", ".webp", ".gif", ".ppm", ".jp2", ".heic", "", ".PNG")


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def whole() -> dict[str, bytes]:
    """One sound file of every kind that is read, 37 x 23."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (23, 37, 3), np.uint8))
    grey, clear = colour.convert("L"), colour.convert("RGBA")
    deep = Image.fromarray(rng.integers(0, 65536, (23, 37), np.uint16))
    wide = Image.fromarray(rng.integers(0, 65536, (23, 37), np.int32))
    real = Image.fromarray(rng.random((23, 37), np.float32))
    turned = Image.Exif()
    turned[0x0112] = 6
    files = {
        "png": saved(colour, "PNG"), "png grey": saved(grey, "PNG"), "png 16": saved(deep, "PNG"),
        "png 1": saved(grey.convert("1"), "PNG"), "png rgba": saved(clear, "PNG"),
        "png palette": saved(colour.quantize(16), "PNG", transparency=3),
        "jpeg": saved(colour, "JPEG"), "jpeg grey": saved(grey, "JPEG"),
        "jpeg cmyk": saved(colour.convert("CMYK"), "JPEG"), "jpeg turned": saved(colour, "JPEG", exif=turned),
        "jpeg progressive": saved(colour, "JPEG", progressive=True),
        "bmp": saved(colour, "BMP"), "bmp palette": saved(colour.quantize(16), "BMP"),
        "gif": saved(colour, "GIF"), "gif frames": saved(grey, "GIF", save_all=True, append_images=[grey]),
        "webp": saved(colour, "WEBP"), "webp lossless": saved(clear, "WEBP", lossless=True),
        "ppm": saved(colour, "PPM"), "pgm": saved(grey, "PPM"), "pbm": saved(grey.convert("1"), "PPM"),
        "jp2": saved(colour, "JPEG2000"),
        "tiff": saved(colour, "TIFF"), "tiff 16": saved(deep, "TIFF"), "tiff 32": saved(wide, "TIFF"),
        "tiff float": saved(real, "TIFF"),
    }  # fmt: skip
    if heif:
        stream = io.BytesIO()
        heif.from_pillow(colour).save(stream, quality=90)
        files["heic"] = stream.getvalue()
    compressions = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    return files | {f"tiff {name}": saved(colour, "TIFF", compression=name) for name in compressions}


def truncate(data: bytes, rng: RNG) -> bytes:
    return data[: int(rng.integers(0, len(data)))]


def flip(data: bytes, rng: RNG) -> bytes:
    """Some bytes are others."""
    broken = bytearray(data)
    for at in rng.integers(0, len(data), int(rng.integers(1, 20))):
        broken[at] = int(rng.integers(0, 256))
    return bytes(broken)


def flip_header(data: bytes, rng: RNG) -> bytes:
    """Bytes near the beginning, where sizes, types and offsets stand; a TIFF's directory is at its end."""
    near = 64 if not data.startswith((b"II", b"MM")) or rng.integers(2) else 0
    broken = bytearray(data)
    places = rng.integers(8, min(near, len(data)), 4) if near else rng.integers(-180, 0, 6)
    for at in places:
        broken[int(at)] = int(rng.choice([0, 1, 127, 255, int(rng.integers(256))]))
    return bytes(broken)


def cut_out(data: bytes, rng: RNG) -> bytes:
    start, stop = sorted(rng.integers(0, len(data), 2).tolist())
    return data[:start] + data[stop:]


def insert(data: bytes, rng: RNG) -> bytes:
    at = int(rng.integers(0, len(data)))
    return data[:at] + rng.bytes(int(rng.integers(1, 400))) + data[at:]


def noise_behind_the_magic(data: bytes, rng: RNG) -> bytes:
    return data[:12] + rng.bytes(int(rng.integers(0, 2000)))


def claim_more(data: bytes, rng: RNG) -> bytes:
    """Every 37 and 23, the sizes in the header, becomes a large number: a bomb."""
    wide, high = (int(n) for n in rng.choice([900, 5000, 30_000, 65_535], 2))
    for order in ("<", ">"):
        for code in ("H", "I"):
            for old, new in ((37, wide), (23, high)):
                data = data.replace(struct.pack(order + code, old), struct.pack(order + code, new), 2)
    return data.replace(b"37 23\n", f"{wide} {high}\n".encode(), 1)


def sound_checksums(data: bytes, rng: RNG) -> bytes:
    """A PNG with flipped bytes whose checksums are right all the same: its parsers get to see them."""
    if not data.startswith(b"\x89PNG"):
        return flip(data, rng)
    out, at, broken = [data[:8]], 8, flip(data[8:], rng)
    broken = data[:8] + broken
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        body = broken[at + 8 : at + 8 + length]
        kind = data[at + 4 : at + 8]
        out.append(struct.pack(">I", length) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
        at += 12 + length
    return b"".join(out)


def another_magic(data: bytes, rng: RNG) -> bytes:
    heads = (
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"RIFF",
        b"GIF89a",
        b"P6\n",
    )
    head = heads[int(rng.integers(len(heads)))]
    return head + data[len(head) :]


WAYS: tuple[Callable[[bytes, RNG], bytes], ...] = (
    truncate, flip, flip_header, cut_out, insert, noise_behind_the_magic, claim_more, sound_checksums,
    another_magic,
)  # fmt: skip


def outcome(path: Path) -> str:
    """ "image" or "ImageError", of all ways to open a file; anything else fails."""
    said = ""
    try:
        image = open_image(path, max_pixels=LIMIT, white_level=65535)
    except ImageError as error:
        said = str(error)
    if said:
        assert str(path) in said
        assert "\n" not in said
    else:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert image.size <= 3 * LIMIT
        shape = image_shape(path, max_pixels=LIMIT)
        assert shape == image.shape[:2], (path, shape, image.shape)
    for also in (image_digest, open_identified):
        with contextlib.suppress(ImageError):
            also(path)
    with contextlib.suppress(ImageError, MaskError):
        assert open_mask(path, max_pixels=LIMIT).dtype == bool
    return "ImageError" if said else "image"


def try_them(folder: Path) -> str:
    """What came of COUNT broken images, in a line. Raises AssertionError."""
    kinds = whole()
    for name, data in kinds.items():
        (folder / "sound").write_bytes(data)
        expected = "ImageError" if name == "tiff float" else "image"
        assert outcome(folder / "sound") == expected, name
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen, slowest = Counter[str](), 0.0
    for number in range(COUNT):
        kind, way = list(kinds)[number % len(kinds)], WAYS[number // len(kinds) % len(WAYS)]
        path = folder / f"{number}{SUFFIXES[number % len(SUFFIXES)]}"
        path.write_bytes(way(kinds[kind], np.random.default_rng(number)))
        started = time.perf_counter()
        seen[outcome(path)] += 1
        spent = time.perf_counter() - started
        assert spent < SECONDS, (kind, way.__name__, number)
        slowest = max(slowest, spent)
        path.unlink()
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert more < MEGABYTES, f"{more} MB"
    assert min(seen["image"], seen["ImageError"]) > COUNT / 20, f"both happen: {seen}"
    return f"{COUNT} broken images: {dict(seen)}, slowest {slowest:.2f} s, {more:.0f} MB more"


@pytest.mark.slow
def test_broken_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a process of its own, whose warnings are treated as a user's are, and whose memory is its own."""
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        env={**os.environ, "KIZU_MAX_PIXELS": str(LIMIT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Warning" not in done.stderr  # libtiff, which is C, writes a line of its own at some damage
    with capsys.disabled():
        print(f"\n{done.stdout.strip()}")


if __name__ == "__main__":
    print(try_them(Path(sys.argv[1])))
