"""images.py: every kind of image and mask, every kind of damage, and the numbers that come out."""

from __future__ import annotations

import math
import struct
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kizu import images
from kizu.errors import ImageError, LayoutError, MaskError, UsageError
from kizu.images import image_shape, is_image, list_images, open_image, resize_image
from kizu.masks import open_mask, resize_mask

RAMP = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) * 5


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


# Kinds of pixels


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".pgm", ".gif"])
def test_grey_in_lossless_formats(tmp_path: Path, suffix: str) -> None:
    path = save(
        tmp_path / f"a{suffix}", RAMP, **({"lossless": True, "exact": True} if suffix == ".webp" else {})
    )
    out = open_image(path)
    assert out.dtype == np.uint8
    assert out.shape == (6, 8, 3)
    assert out.flags.writeable
    np.testing.assert_array_equal(out, rgb(RAMP))


def test_colour_order_is_rgb(tmp_path: Path) -> None:
    array = np.zeros((2, 3, 3), np.uint8)
    array[..., 0], array[..., 2] = 250, 7
    np.testing.assert_array_equal(open_image(save(tmp_path / "a.png", array)), array)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_use_the_full_range(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257, 32767, 65535]], np.uint16)
    out = open_image(save(tmp_path / f"a{suffix}", values))
    np.testing.assert_array_equal(out[0, :, 0], [0, 0, 1, 1, 127, 255])  # round(value / 257)


def test_thirty_two_bits(tmp_path: Path) -> None:
    """They say nothing of white, and are read with a named level only: never black, never a guess."""
    path = save(tmp_path / "a.tif", np.array([[0, 51, 255]], np.int32))
    with pytest.raises(ImageError, match=r"32-bit values, here from 0 to 255, .*--white-level"):
        open_image(path)
    np.testing.assert_array_equal(open_image(path, white_level=255)[0, :, 0], [0, 51, 255])
    path = save(tmp_path / "b.tif", np.array([[0, 70000]], np.int32))
    with pytest.raises(ImageError, match="from 0 to 70000"):
        open_image(path, white_level=255)
    np.testing.assert_array_equal(open_image(path, white_level=70000)[0, :, 0], [0, 255])
    with pytest.raises(ImageError, match="from -1 to 5"):
        open_image(save(tmp_path / "c.tif", np.array([[-1, 5]], np.int32)), white_level=255)


def test_floats_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", np.ones((2, 2), np.float32))
    with pytest.raises(ImageError, match="floating-point"):
        open_image(path)
    with pytest.raises(MaskError, match="floating-point"):
        open_mask(path)


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    array = np.full((1, 3, 4), 100, np.uint8)
    array[0, :, 3] = 0, 255, 51
    out = open_image(save(tmp_path / "a.png", array))
    np.testing.assert_array_equal(out[0, :, 0], [255, 100, 224])  # 255 (1 - a) + 100 a with a = 0, 1, 0.2
    grey = open_image(save(tmp_path / "b.png", array, "LA"))
    np.testing.assert_array_equal(grey, out)


def test_transparent_palette_entry(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "a.png", transparency=1)
    np.testing.assert_array_equal(
        open_image(tmp_path / "a.png")[0], [[10, 20, 30], [255, 255, 255], [70, 80, 90]]
    )
    image.save(tmp_path / "b.png", transparency=bytes([255, 0, 255]))
    np.testing.assert_array_equal(open_image(tmp_path / "b.png"), open_image(tmp_path / "a.png"))
    image.save(tmp_path / "c.png")
    np.testing.assert_array_equal(open_image(tmp_path / "c.png")[0, 1], [40, 50, 60])


def test_one_bit_and_cmyk(tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        open_image(save(tmp_path / "a.png", np.array([[True, False]])))[0, :, 0], [255, 0]
    )
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    red = open_image(tmp_path / "a.jpg").reshape(-1, 3).mean(0)
    assert red[0] > 200
    assert red[1:].max() < 60


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    """Truth: EXIF's own table of what row 0 and column 0 are."""
    upright = np.kron(np.array([[0, 90, 180], [255, 40, 130]], np.uint8), np.ones((16, 16), np.uint8))
    turns = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1]}
    turns |= {5: upright.T, 6: np.rot90(upright, 1), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1)}
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a{suffix}", np.ascontiguousarray(turns[orientation]), exif=exif)
    assert np.abs(open_image(path)[..., 0].astype(int) - upright).max() <= 8
    np.testing.assert_allclose(open_image(path, size=(2, 3)), resize_image(open_image(path), (2, 3)), atol=4)
    assert image_shape(path) == upright.shape
    assert open_mask(path, rule="nonzero").shape == upright.shape


def test_first_frame(tmp_path: Path) -> None:
    frames = [Image.fromarray(RAMP), Image.fromarray(RAMP[::-1].copy())]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    for suffix in ("gif", "tif"):
        np.testing.assert_array_equal(open_image(tmp_path / f"a.{suffix}"), rgb(RAMP))


def test_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    save(tmp_path / "a.png", RAMP).rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(open_image(tmp_path / "a.jpg"), rgb(RAMP))


# Damage


def broken_jpeg(path: Path) -> None:
    save(path, np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), quality=90)
    path.write_bytes(path.read_bytes()[:1500])


def broken_png(path: Path) -> None:
    save(path, np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    path.write_bytes(path.read_bytes()[:1500])


DAMAGE = {
    "truncated.jpg": (broken_jpeg, "damaged or incomplete"),
    "truncated.png": (broken_png, "damaged or incomplete"),
    "no_pixels.png": (lambda path: path.write_bytes(png_header(40, 40)), "damaged or incomplete"),
    "empty.png": (lambda path: path.write_bytes(b""), "0 bytes"),
    "text.png": (lambda path: path.write_text("no image at all"), "is not an image"),
    "program.eps": (
        lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        "is not an image",
    ),
    "magic_only.jpg": (lambda path: path.write_bytes(b"\xff\xd8\xff"), "damaged or incomplete"),
    "sound.webp": (lambda path: path.write_bytes(b"RIFF\x10\0\0\0WAVEfmt "), "damaged or incomplete"),
    "folder.png": (lambda path: path.mkdir(), "is a folder"),
    "missing.png": (lambda path: None, "no such file"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_an_image_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    make, words = DAMAGE[name]
    make(tmp_path / name)
    for reader in (open_image, open_mask, lambda path: open_image(path, size=(8, 8))):
        with pytest.raises(ImageError, match=words) as caught:
            reader(tmp_path / name)
        assert caught.value.path == tmp_path / name
        assert str(tmp_path / name) in str(caught.value)
        assert str(tmp_path) not in caught.value.reason


def test_path_through_a_file(tmp_path: Path) -> None:
    save(tmp_path / "a.png", RAMP)
    with pytest.raises(ImageError, match="cannot be opened"):
        open_image(tmp_path / "a.png" / "b.png")


def test_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = save(tmp_path / "a.png", RAMP)
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ImageError, match="permission denied"):
        open_image(path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_bytes_raise_anything_but_image_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    suffix = data.draw(st.sampled_from([".png", ".jpg", ".bmp", ".tif", ".gif", ".webp", ".pgm"]))
    whole = bytearray(save(folder / f"a{suffix}", np.kron(RAMP, np.ones((4, 4), np.uint8))).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    (folder / f"b{suffix}").write_bytes(bytes(whole[: data.draw(st.integers(1, len(whole)))]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow may warn about metadata; what is tested is the kind of error
        try:
            out = open_image(folder / f"b{suffix}", max_pixels=10_000)
        except ImageError:
            return
    assert out.dtype == np.uint8


# Size


def test_size_limit_is_held_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "big.png"
    path.write_bytes(png_header(20_000, 20_000))
    for reader in (open_image, open_mask, image_shape):
        with pytest.raises(ImageError, match=r"20000 x 20000 .* 100,000,000.*max_pixels.*KIZU_MAX_PIXELS"):
            reader(path)
    with pytest.raises(ImageError, match="damaged"):  # allowed, and then there are no pixels
        open_image(path, max_pixels=400_000_000)
    monkeypatch.setenv("KIZU_MAX_PIXELS", "400000000")
    assert image_shape(path) == (20_000, 20_000)
    monkeypatch.setenv("KIZU_MAX_PIXELS", "many")
    with pytest.raises(UsageError, match="KIZU_MAX_PIXELS"):
        image_shape(path)


def test_pillows_own_limit_is_neither_used_nor_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = save(tmp_path / "a.png", RAMP)
    assert open_image(path).shape == (6, 8, 3)
    assert Image.MAX_IMAGE_PIXELS == 10
    assert open_image(path, max_pixels=48).shape == (6, 8, 3)
    with pytest.raises(ImageError, match="8 x 6"):
        open_image(path, max_pixels=47)


def test_one_pixel(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.array([[[9, 8, 7]]], np.uint8))
    np.testing.assert_array_equal(
        open_image(path, size=(4, 5)), np.broadcast_to(np.array([9, 8, 7], np.uint8), (4, 5, 3))
    )


@pytest.mark.parametrize("size", [(0, 4), (4,), (4.0, 4), (True, 4), 4])
def test_sizes_that_cannot_be_meant(tmp_path: Path, size: object) -> None:
    with pytest.raises(UsageError, match="height, width"):
        open_image(save(tmp_path / "a.png", RAMP), size=size)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_opening_at_a_size_is_opening_and_resizing(tmp_path: Path, mode: str) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (50, 70, 3), np.uint8)
    for name in ("a.png", "a.jpg"):
        path = save(tmp_path / name, noise, mode)
        np.testing.assert_array_equal(
            open_image(path, size=(20, 18)), resize_image(open_image(path), (20, 18))
        )


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_is_read_as_its_pixels_are(tmp_path: Path, mode: str) -> None:
    """The same pixels give the same input whatever the file format: no smaller decoding of JPEGs."""
    noise = np.random.default_rng(4).integers(0, 255, (250, 400, 3), np.uint8)
    jpeg = save(tmp_path / "a.jpg", noise, mode, quality=90)
    png = save(tmp_path / "a.png", open_image(jpeg) if mode == "RGB" else open_image(jpeg)[..., 0])
    for size in (None, (250, 400), (125, 200), (50, 100), (31, 17), (8, 8), (300, 500)):
        np.testing.assert_array_equal(open_image(jpeg, size=size), open_image(png, size=size))


def test_resize_is_antialiased_and_bilinear() -> None:
    stripes = rgb(np.tile(np.array([0, 200], np.uint8), (8, 32)))
    np.testing.assert_allclose(
        resize_image(stripes, (4, 8))[:, 1:-1], 100, atol=1
    )  # without the filter: 0 or 200
    np.testing.assert_array_equal(resize_image(np.full((5, 7, 3), 33, np.uint8), (9, 2)), 33)
    np.testing.assert_array_equal(resize_image(stripes, (8, 64)), stripes)
    up = resize_image(rgb(np.array([[0, 100]], np.uint8)), (1, 4))[0, :, 0]
    np.testing.assert_allclose(up, [0, 25, 75, 100], atol=1)  # pixel centres at -0.25, 0.25, 0.75, 1.25
    with pytest.raises(UsageError, match="uint8"):
        resize_image(np.zeros((4, 4, 3), np.float32), (2, 2))  # type: ignore[arg-type]


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.integers(0, 5))
def test_resize_mask_is_pillows_nearest(
    height: int, width: int, new_height: int, new_width: int, seed: int
) -> None:
    """Where an output centre falls exactly between two pixels Pillow's floats may take either; ours is the
    later one."""
    mask = np.random.default_rng(seed).random((height, width)) < 0.4
    out = resize_mask(mask, (new_height, new_width))
    assert out.dtype == np.bool_
    truth = (
        np.asarray(
            Image.fromarray(mask.astype(np.uint8) * 255).resize(
                (new_width, new_height), Image.Resampling.NEAREST
            )
        )
        > 0
    )
    rows = [i for i in range(new_height) if (2 * i + 1) * height % (2 * new_height)]
    columns = [j for j in range(new_width) if (2 * j + 1) * width % (2 * new_width)]
    np.testing.assert_array_equal(out[np.ix_(rows, columns)], truth[np.ix_(rows, columns)])
    exact = [math.floor((i + Fraction(1, 2)) * Fraction(height, new_height)) for i in range(new_height)]
    np.testing.assert_array_equal(resize_mask(mask, (new_height, width)), mask[exact])


def test_resize_mask_wants_bool() -> None:
    with pytest.raises(UsageError, match="bool"):
        resize_mask(np.zeros((4, 4), np.uint8), (2, 2))  # type: ignore[arg-type]


# Masks


@pytest.mark.parametrize(
    ("values", "marked"),
    [
        (np.array([[0, 127, 128, 255]], np.uint8), [0, 0, 1, 1]),
        (np.array([[0, 1, 1, 0]], np.uint8), [0, 1, 1, 0]),
        (np.array([[0, 0, 0, 0]], np.uint8), [0, 0, 0, 0]),
        (np.array([[0, 100, 176, 0]], np.uint8), [0, 0, 1, 0]),
        (np.array([[0, 255, 32767, 32768]], np.uint16), [0, 0, 0, 1]),
        (np.array([[0, 1, 0, 1]], np.uint16), [0, 1, 0, 1]),
        (np.array([[False, True, True, False]]), [0, 1, 1, 0]),
        (np.array([[[0, 0, 0], [255, 0, 0], [0, 0, 128], [127, 127, 127]]], np.uint8), [0, 1, 1, 0]),
        (
            np.array(
                [[[0, 0, 0, 255], [255, 255, 255, 255], [255, 255, 255, 10], [255, 0, 0, 200]]], np.uint8
            ),
            [0, 1, 0, 1],
        ),
    ],
)
def test_mask_rule_half(tmp_path: Path, values: np.ndarray, marked: list[int]) -> None:
    out = open_mask(save(tmp_path / "a.png", values))
    assert out.dtype == np.bool_
    np.testing.assert_array_equal(out[0], np.array(marked, bool))


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_classes_are_not_taken_for_good(tmp_path: Path, bits: int) -> None:
    """80 and 160: by half the first class would be good."""
    values = np.zeros((30, 40), np.uint8 if bits == 8 else np.uint16)
    values[2:8, 2:8], values[12:20, 12:20] = 80 << (bits - 8), 160 << (bits - 8)
    path = save(tmp_path / "a.png", values)
    with pytest.raises(
        MaskError, match=rf"the value {80 << (bits - 8)}, not above half.*--mask-rule nonzero"
    ):
        open_mask(path)
    assert int(open_mask(path, rule="nonzero").sum()) == 36 + 64


def test_a_thin_region_below_half_is_not_lost(tmp_path: Path) -> None:
    """A stripe 2 pixels wide holds no square of 3 x 3; the soft edge of a region above half is no region."""
    values = np.zeros((30, 40), np.uint8)
    values[2:4, 2:30], values[12:20, 12:20] = 80, 160
    path = save(tmp_path / "a.png", values)
    with pytest.raises(MaskError, match="regions of the mask have the value 80, not above half"):
        open_mask(path)
    values[4:12, 2:4] = 160
    assert int(open_mask(save(path, values)).sum()) == 64 + 16
    values[4:12, 2:4] = values[2:4, 6:30] = 0
    assert int(open_mask(save(path, values)).sum()) == 64, "a speck of 8 pixels"


def test_edges_and_noise_are_no_classes(tmp_path: Path) -> None:
    """Anti-aliased edges, blur, and what a JPEG leaves beside an edge, are read as ever."""
    sharp = np.zeros((64, 64), np.uint8)
    sharp[16:40, 20:52] = 255
    image = Image.fromarray(sharp)
    for size in ((100, 90), (640, 640), (31, 17)):
        for resample in (Image.Resampling.BILINEAR, Image.Resampling.LANCZOS, Image.Resampling.BOX):
            image.resize(size, resample).save(tmp_path / "a.png")
            expected = np.asarray(image.resize(size, resample)) > 127
            np.testing.assert_array_equal(open_mask(tmp_path / "a.png"), expected)
    for quality in (5, 30, 60, 95):
        image.save(tmp_path / "a.jpg", quality=quality)
        assert np.mean(open_mask(tmp_path / "a.jpg") != (sharp > 0)) < 0.05


def test_mask_rule_nonzero(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.array([[0, 1, 5, 9]], np.uint8))
    np.testing.assert_array_equal(open_mask(path, rule="nonzero")[0], [False, True, True, True])
    with pytest.raises(MaskError, match=r"largest value is 9.*rule='nonzero'"):
        open_mask(path)
    palette = Image.new("P", (3, 1))
    palette.putpalette([255, 255, 255, 0, 0, 0, 9, 9, 9])
    palette.putdata([0, 1, 2])
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(open_mask(tmp_path / "p.png", rule="nonzero")[0], [False, True, True])
    with pytest.raises(UsageError, match="half"):
        open_mask(path, rule="most")  # type: ignore[arg-type]


def test_mask_of_another_size(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RAMP)
    assert open_mask(path, shape=(6, 8)).shape == (6, 8)
    with pytest.raises(MaskError, match=r"6 x 8 pixels but its image 8 x 6"):
        open_mask(path, shape=(8, 6))


# Folders, threads


def test_is_image() -> None:
    assert all(is_image(name) for name in ("a.png", "b.JPG", "c.Tiff", "d.e.bmp", Path("x/y.webp")))
    assert not any(is_image(name) for name in ("a.txt", "png", "._a.png", ".png", "a.png.part", "thumbs.db"))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp", ".gif", ".pgm", ".jp2"])
def test_content_says_what_an_image_is(tmp_path: Path, suffix: str) -> None:
    for name in ("noending", "a.png.bak", "b.jfif"):
        save(tmp_path / f"a{suffix}", rgb(RAMP) if suffix == ".jp2" else RAMP).rename(tmp_path / name)
        assert is_image(tmp_path / name)
        assert open_image(tmp_path / name).shape == (6, 8, 3)


@pytest.mark.parametrize("words", ["BMW is a car", "P1 is a plan", "P5", "RIFFs of a guitar", "", "a;b"])
def test_words_are_no_image(tmp_path: Path, words: str) -> None:
    (tmp_path / "notes.txt").write_text(words)
    assert not is_image(tmp_path / "notes.txt")


def test_heic_is_read(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    values = np.zeros((24, 32, 3), np.uint8)
    values[:, 16:] = (200, 100, 50)
    heif.from_pillow(Image.fromarray(values)).save(tmp_path / "a.heic", quality=95)
    (tmp_path / "IMG_1").write_bytes((tmp_path / "a.heic").read_bytes())
    for name in ("a.heic", "IMG_1"):
        out = open_image(tmp_path / name)
        assert out.shape == (24, 32, 3)
        assert np.abs(out.astype(int) - values)[:, [4, 28]].max() < 12


def test_heic_says_which_extra_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "IMG_1").write_bytes(bytes(3) + b"\x18ftypheic" + bytes(100))
    assert is_image(tmp_path / "IMG_1")
    with pytest.raises(ImageError, match=r"is HEIC.*pip install 'kizu\[heic\]'"):
        open_image(tmp_path / "IMG_1")


def test_list_images(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", ".hidden.png", "notes.txt", "c.tif"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.JPG", "b.png", "c.tif"]
    with pytest.raises(LayoutError, match="not there"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(LayoutError, match="a file"):
        list_images(tmp_path / "b.png")


def test_threads_read_what_one_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    paths = [
        save(tmp_path / f"{n}.jpg", rng.integers(0, 255, (40 + n, 50, 3), np.uint8)) for n in range(12)
    ] * 4
    alone = [open_image(path, size=(16, 16)) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda path: open_image(path, size=(16, 16)), paths))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_no_file_stays_open(tmp_path: Path) -> None:
    """An unclosed file is a ResourceWarning, which is an error here."""
    broken_jpeg(tmp_path / "bad.jpg")
    save(tmp_path / "good.tif", RAMP)
    for _ in range(3):
        open_image(tmp_path / "good.tif")
        with pytest.raises(ImageError):
            open_image(tmp_path / "bad.jpg")
    assert images.MAX_PIXELS == 100_000_000
