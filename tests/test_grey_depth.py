"""Grey images of more than 8 bits: which value is white, and that a model keeps it."""

from __future__ import annotations

import io
import json
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from trees import draw_image, mask

import kizu
from kizu import store
from kizu.errors import Clipped, ImageError, UnusedRange, UsageError
from kizu.images import image_digest, open_image

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def tiff(
    path: Path, array: np.ndarray, *, photometric: int = 1, more: tuple[tuple[int, int], ...] = ()
) -> Path:
    """An uncompressed little-endian TIFF, channels last, written from the specification (TIFF 6.0)."""
    values = array if array.ndim == 3 else array[..., None]
    height, width, channels = values.shape
    data, bits = values.astype(values.dtype.newbyteorder("<")).tobytes(), values.dtype.itemsize * 8
    entries = [(256, 1, width), (257, 1, height), (259, 1, 1), (262, 1, photometric), (273, 1, 8)]
    entries += [(277, 1, channels), (278, 1, height), (279, 1, len(data)), (284, 1, 1)]
    entries += [(tag, 1, value) for tag, value in more]
    at = 8 + len(data) + 2 + 12 * (len(entries) + 1) + 4
    blob = struct.pack(f"<{channels}H", *[bits] * channels)
    entries.append(
        (258, channels, bits if channels == 1 else int.from_bytes(blob, "little") if channels == 2 else at)
    )
    body = b"".join(
        struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, count, value)
        for tag, count, value in sorted(entries)
    )
    head = b"II*\0" + struct.pack("<I", 8 + len(data)) + data
    path.write_bytes(head + struct.pack("<H", len(entries)) + body + bytes(4) + blob)
    return path


@pytest.mark.parametrize(("bits", "factor"), [(10, 4), (12, 16), (8, 1), (16, 257)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_named_white_level(tmp_path: Path, bits: int, factor: int, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    values = GREY.astype(np.uint16) * factor
    Image.fromarray(values).save(path)
    white = 2**bits - 1
    out = open_image(path, white_level=white)[..., 0]
    expected = [[int(value * 255 / white + 0.5) for value in row] for row in values.tolist()]
    np.testing.assert_array_equal(out, expected)
    assert np.abs(out.astype(int) - GREY).max() <= 1


def test_values_above_white_are_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 4095, 5000, 65535]], np.uint16)).save(tmp_path / "a.png")
    with pytest.warns(Clipped):
        assert open_image(tmp_path / "a.png", white_level=4095)[0, :, 0].tolist() == [0, 255, 255, 255]


def test_the_files_own_tags(tmp_path: Path) -> None:
    """MaxSampleValue counts where it is 2^n - 1; the maximum of one image is no white level."""
    values = GREY.astype(np.uint16) * 16
    plain = open_image(tiff(tmp_path / "plain.tif", values))[..., 0]
    np.testing.assert_array_equal(plain, (values + 128) // 257)
    np.testing.assert_array_equal(
        open_image(tiff(tmp_path / "named.tif", values, more=((281, 4095),)))[..., 0],
        open_image(tmp_path / "plain.tif", white_level=4095)[..., 0],
    )
    for other in (3760, 1, 255):
        path = tiff(tmp_path / "odd.tif", values, more=((281, other),))
        np.testing.assert_array_equal(open_image(path)[..., 0], plain)
    path = tiff(tmp_path / "named.tif", values, more=((281, 4095),))
    np.testing.assert_array_equal(open_image(path, white_level=65535)[..., 0], plain)


def test_zero_is_white(tmp_path: Path) -> None:
    deep = tiff(tmp_path / "deep.tif", 65535 - GREY.astype(np.uint16) * 257, photometric=0)
    flat = tiff(tmp_path / "flat.tif", 255 - GREY, photometric=0)
    for path in (deep, flat):
        np.testing.assert_array_equal(open_image(path)[..., 0], GREY)
    twelve = tiff(tmp_path / "twelve.tif", np.uint16(4095) - GREY.astype(np.uint16) * 16, photometric=0)
    out = open_image(twelve, white_level=4095)[..., 0].astype(int)
    assert np.abs(out - GREY).max() <= 1


@pytest.mark.parametrize(("channels", "bits"), [(2, 8), (5, 8), (2, 16), (5, 16)])
def test_odd_numbers_of_channels_are_called_so(tmp_path: Path, channels: int, bits: int) -> None:
    values = np.stack([GREY.astype(np.uint8 if bits == 8 else np.uint16)] * channels, -1)
    with pytest.raises(ImageError, match=rf"TIFF of {channels} channels with {bits} bits, a kind that is"):
        open_image(tiff(tmp_path / "a.tif", values))


def test_sixteen_bit_colour_and_a_white_level(tmp_path: Path) -> None:
    """Only the high byte of a 16-bit colour is read, so that 12-bit colours cannot be made bright."""
    values = np.stack([GREY.astype(np.uint16) * 257] * 3, -1)
    path = tiff(tmp_path / "a.tif", values, photometric=2)
    np.testing.assert_array_equal(open_image(path)[..., 1], GREY)
    with pytest.raises(ImageError, match="high byte"):
        open_image(path, white_level=4095)


def test_an_image_is_known_whatever_its_white_level(tmp_path: Path) -> None:
    """Images that look alike in 8 bits are still told apart; the format does not count."""
    dark, other = GREY.astype(np.uint16), GREY.astype(np.uint16) + 1
    for name, values in {"a.png": dark, "b.tif": dark, "c.png": other}.items():
        Image.fromarray(values).save(tmp_path / name)
    assert image_digest(tmp_path / "a.png") == image_digest(tmp_path / "b.tif")
    assert image_digest(tmp_path / "a.png") != image_digest(tmp_path / "c.png")


@pytest.mark.parametrize("level", [0, 1, 254, -1, 2.5, True, "4095"])
def test_levels_that_cannot_be_meant(level: object) -> None:
    with pytest.raises(UsageError, match="white_level is the value of white"):
        kizu.detector("gaussian", "random/resnet10t@1", image_size=32, white_level=level)


def twelve_bits(folder: Path) -> Path:
    """test/ and train/ of 12-bit values in 16-bit files."""
    places = [f"train/good/{n}" for n in range(6)] + [f"test/good/{n}" for n in range(3)] + ["test/bad/0"]
    for seed, name in enumerate(places):
        with Image.open(draw_image(folder / f"{name}.png", seed, size=(40, 40), mode="L")) as image:
            values = np.asarray(image).astype(np.uint16) * 16
        Image.fromarray(values).save(folder / f"{name}.png")
    mask(folder / "ground_truth" / "bad" / "0.png", size=(40, 40))
    return folder


@pytest.mark.filterwarnings("always::kizu.errors.UnusedRange")
def test_the_model_keeps_it(tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]) -> None:
    data = twelve_bits(tmp_path / "data")
    fast = ("--detector", "gaussian", "--representation", "random/resnet10t@1", "--set", "image_size=32")
    code, _, err = run_cli("fit", data, *fast, "-o", tmp_path / "dark.kizu")
    assert (code, "of their range only" in err, "--white-level 1023 or 4095" in err) == (0, True, True)
    code, _, err = run_cli("fit", data, *fast, "--white-level", 4095, "-o", tmp_path / "m.kizu")
    assert (code, "of their range" in err) == (0, False)
    model = kizu.load(tmp_path / "m.kizu")
    assert model.white_level == 4095
    bright = tmp_path / "bright.png"
    Image.fromarray(open_image(data / "test/bad/0.png", white_level=4095)).save(bright)
    expected = float(model.predict(bright).score[0])
    code, out, _ = run_cli("inspect", tmp_path / "m.kizu", data / "test/bad", "-o", tmp_path / "o", "--json")
    assert json.loads(out)["score"] == pytest.approx(expected, rel=1e-5)
    assert run_cli("evaluate", tmp_path / "m.kizu", data, "-o", tmp_path / "run")[0] == 0
    with Image.open(tmp_path / "run" / "images" / "0.jpg") as shown:
        assert np.asarray(shown).mean() > 60, "thumbnails are bright too"
    facts = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert facts["parameters"]["white_level"] == 4095
    code, _, err = run_cli("evaluate", tmp_path / "m.kizu", data / "train", "-o", tmp_path / "seen")
    assert (code, "has seen all" in err) == (2, True)


def test_a_dark_set_is_warned_of_once(tmp_path: Path) -> None:
    data = twelve_bits(tmp_path / "data")
    model = kizu.detector("gaussian", "random/resnet10t@1", image_size=32)
    with pytest.warns(UnusedRange, match=r"use 5\.\d% of their range only"):
        model.fit(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kizu.detector("gaussian", "random/resnet10t@1", image_size=32, white_level=4095).fit(data)


def test_values_above_white_are_warned_of(tmp_path: Path) -> None:
    """A level of another camera: all differences among bright values were lost without a word."""
    path = twelve_bits(tmp_path / "data") / "test" / "good" / "0.png"
    with pytest.warns(Clipped, match="many values above 255"):
        assert open_image(path, white_level=255).mean() > 250
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_image(path, white_level=4095)
        hot = np.tile(GREY.astype(np.uint16), (4, 4))
        hot[0, 0] = 60000
        Image.fromarray(hot).save(tmp_path / "hot.png")
        assert open_image(tmp_path / "hot.png", white_level=1023)[0, 0, 0] == 255, "one hot pixel"


@pytest.mark.filterwarnings("always::kizu.errors.Clipped")
def test_a_command_says_it_once(tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]) -> None:
    data = twelve_bits(tmp_path / "data")
    fast = ("--detector", "gaussian", "--representation", "random/resnet10t@1", "--set", "image_size=32")
    code, _, err = run_cli("fit", data, *fast, "--white-level", 1023, "-o", tmp_path / "m.kizu")
    assert (code, err.count("many values above 1023")) == (0, 1)
    code, _, err = run_cli("inspect", tmp_path / "m.kizu", data / "test", "-o", tmp_path / "out")
    assert (code, err.count("many values above 1023")) == (0, 1)


def plain_tiff(samples: int, bits: int, photometric: int = 1) -> bytes:
    """A TIFF of 8 x 8 zeros with this many channels, written tag by tag."""
    data = bytes(64 * samples * bits // 8)
    shorts = {256: 8, 257: 8, 258: bits, 259: 1, 262: photometric, 277: samples, 278: 8, 284: 1}
    entries = {tag: struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in shorts.items()}
    entries |= {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((273, 8), (279, len(data)))}
    directory = b"".join(entries[tag] for tag in sorted(entries))
    head = b"II*\0" + struct.pack("<I", 8 + len(data))
    return head + data + struct.pack("<H", len(entries)) + directory + bytes(4)


@pytest.mark.parametrize("samples", [2, 5, 7])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_of_other_channels_says_so(samples: int, bits: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        ImageError, match=f"is a TIFF of {samples} channels with {bits} bits.* Save it as grey"
    ):
        open_image(io.BytesIO(plain_tiff(samples, bits)))
    assert capfd.readouterr().err == "", "what Pillow logs"
    assert open_image(io.BytesIO(plain_tiff(1, bits))).shape == (8, 8, 3)


def test_three_channels_that_are_no_colours() -> None:
    with pytest.raises(ImageError, match="is a TIFF of 3 channels with 8 bits, a kind that is not read"):
        open_image(io.BytesIO(plain_tiff(3, 8)))
    assert open_image(io.BytesIO(plain_tiff(3, 8, photometric=2))).shape == (8, 8, 3)


def eight_bits(deep: Path, folder: Path) -> Path:
    """The same tree with the values that a white level of 4095 gives."""
    for path in deep.rglob("*.png"):
        place = folder / path.relative_to(deep)
        place.parent.mkdir(parents=True, exist_ok=True)
        white_level = None if "ground_truth" in path.parts else 4095
        Image.fromarray(open_image(path, white_level=white_level)).save(place)
    return folder


def test_adapt_takes_it(tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]) -> None:
    deep = twelve_bits(tmp_path / "data")
    plain = eight_bits(deep, tmp_path / "plain")
    fast = ("--adaptation", "residual", "--representation", "random/resnet10t@1", "--image-size", 32)
    assert run_cli("adapt", deep, *fast, "--white-level", 4095, "-o", tmp_path / "a")[0] == 0
    assert run_cli("adapt", plain, *fast, "-o", tmp_path / "b")[0] == 0
    assert run_cli("adapt", deep, *fast, "-o", tmp_path / "dark")[0] == 0
    (found, card), (expected, other), (dark, _) = (store.load(tmp_path / name) for name in ("a", "b", "dark"))
    banks = [name for name in expected if "bank" in name or "reference" in name]
    assert banks
    assert all(torch.equal(found[name], expected[name]) for name in banks)
    assert not all(torch.equal(dark[name], expected[name]) for name in banks)
    assert card["representation"]["adapted_by"]["white_level"] == 4095
    assert other["representation"]["adapted_by"]["white_level"] is None
    code, _, err = run_cli("adapt", deep, *fast, "--white-level", 0, "-o", tmp_path / "c")
    assert (code, "white_level is the value of white" in err) == (2, True)


def test_attention_takes_it(tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]) -> None:
    deep = twelve_bits(tmp_path / "data")
    plain = eight_bits(deep, tmp_path / "plain")
    fast = ("--representation", "random/resnet10t@1", "--image-size", 32)
    assert run_cli("attention", deep, *fast, "--white-level", 4095, "-o", tmp_path / "a")[0] == 0
    assert run_cli("attention", plain, *fast, "-o", tmp_path / "b")[0] == 0
    with np.load(tmp_path / "a" / "attention.npz") as found, np.load(tmp_path / "b" / "attention.npz") as due:
        for name in ("images", "normals", "maps"):
            np.testing.assert_array_equal(found[name], due[name])
        assert found["images"].mean() > 60
    info = json.loads((tmp_path / "a" / "attention.json").read_text("utf-8"))
    assert info["white_level"] == 4095


def test_pretrain_takes_it(tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]) -> None:
    deep = twelve_bits(tmp_path / "data") / "train" / "good"
    plain = eight_bits(deep, tmp_path / "plain")
    small = ("--backbone", "resnet10t", "--size", 32, "--batch-size", 4, "--steps", 1, "--device", "cpu")
    heads = ("--set", "stages=1", "--set", "hidden=16", "--set", "predictor_hidden=8", "--precision", "fp32")
    command = ("pretrain", "simsiam", *small, *heads)
    out = tmp_path / "a"
    assert run_cli(*command, "--data", deep, "--white-level", 4095, "-o", out)[0] == 0
    assert run_cli(*command, "--data", plain, "-o", tmp_path / "b")[0] == 0
    (found, card), (expected, _) = store.load(out), store.load(tmp_path / "b")
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert card["representation"]["recipe"]["run"]["white_level"] == 4095
    code, _, err = run_cli("pretrain", "--resume", "--white-level", 1023, "-o", out)
    assert (code, "white_level is 4095 there, not 1023" in err) == (2, True)
    code, _, err = run_cli(*command, "--data", deep, "--white-level", 0, "-o", tmp_path / "c")
    assert (code, "white_level is the value of white" in err) == (2, True)


def test_bytes_have_the_white_level_of_the_model_and_deep_pil_images_are_refused(tmp_path: Path) -> None:
    """The same file gave 0.5 by its path and 6.4 by its bytes."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path in paths:
        Image.fromarray(rng.integers(0, 4096, (32, 32), np.uint16)).save(path)
    model = kizu.detector("gaussian", "random/resnet10t@1", image_size=32, white_level=4095).fit(paths)
    score = model.predict(paths).score
    torch.testing.assert_close(model.predict([path.read_bytes() for path in paths]).score, score)
    torch.testing.assert_close(model.predict(io.BytesIO(paths[0].read_bytes())).score, score[:1])
    with Image.open(paths[0]) as opened, pytest.raises(UsageError, match="more than 8 bits"):
        model.predict(opened)
