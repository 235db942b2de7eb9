"""The region of interest: what is cut, what is kept in one word, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kizu.errors import ImageError, ShapeError, UsageError
from kizu.images import open_image
from kizu.loader import batches
from kizu.roi import FILL, Roi, open_region

SIZE = (40, 60)
BOX = (12, 5, 30, 20)


def disc() -> np.ndarray:
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    return ((rows - 15) ** 2 + (columns - 27) ** 2 <= 81).astype(np.uint8)


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def test_a_rectangle_is_a_slice() -> None:
    roi, whole = Roi.of("12,5,30,20"), image()
    assert roi == Roi.of(BOX) == Roi.of(list(BOX)) == Roi.of(roi.text)
    np.testing.assert_array_equal(roi.cut(whole), whole[5:25, 12:42])
    tensor = torch.from_numpy(whole).permute(2, 0, 1)[None] / 255.0
    torch.testing.assert_close(roi.cut_tensor(tensor), tensor[:, :, 5:25, 12:42], rtol=0, atol=0)


def test_a_mask_keeps_what_is_inside(tmp_path: Path) -> None:
    inside, whole = disc(), image()
    Image.fromarray(inside * 7).save(tmp_path / "mask.png")
    roi = Roi.of(tmp_path / "mask.png")
    assert roi == Roi.of(str(tmp_path / "mask.png")) == Roi.of(inside) == Roi.of(roi.text)
    assert roi.box == (18, 6, 19, 19)
    wanted = np.where(inside[..., None] > 0, whole, FILL)[6:25, 18:37]
    np.testing.assert_array_equal(roi.cut(whole), wanted)
    everything = np.ones(SIZE, bool)
    np.testing.assert_array_equal(roi.cut_mask(everything), inside[6:25, 18:37] > 0)
    placed = roi.place(np.ones((19, 19), np.float32), SIZE)
    np.testing.assert_array_equal(np.isfinite(placed), inside > 0)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_the_text_holds_all_of_it(height: int, width: int, seed: int) -> None:
    inside = np.random.default_rng(seed).random((height, width)) < 0.3
    inside[height // 2, width // 2] = True
    roi = Roi.of(inside)
    again = Roi.of(roi.text)
    assert again == roi
    back = np.zeros((height, width), bool)
    x, y, wide, high = again.box
    back[y : y + high, x : x + wide] = True if again.inside is None else again.inside
    np.testing.assert_array_equal(back, inside)


def test_a_mask_counts_every_value_but_zero(tmp_path: Path) -> None:
    """Also 1 of 65535, and a channel that is not the first."""
    deep = disc().astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(np.stack([deep * 0, deep * 0, deep], 2).astype(np.uint8)).save(tmp_path / "blue.png")
    assert Roi.of(tmp_path / "deep.png") == Roi.of(tmp_path / "blue.png") == Roi.of(disc())


@pytest.mark.parametrize("region", ["12,5,30,20", disc()], ids=["rectangle", "mask"])
@pytest.mark.parametrize("digests", [False, True])
def test_images_that_differ_outside_only_are_one(tmp_path: Path, region: Any, digests: bool) -> None:
    """Bit for bit, after resizing too: no pixel outside is mixed in at the border."""
    roi = Roi.of(region)
    first, second = image(1), image(2)
    x, y, width, height = roi.box
    inside = np.zeros(SIZE, bool)
    inside[y : y + height, x : x + width] = True if roi.inside is None else roi.inside
    second[inside] = first[inside]
    paths = [tmp_path / "first.png", tmp_path / "second.png"]
    for path, values in zip(paths, (first, second), strict=True):
        Image.fromarray(values).save(path)
    (batch,) = batches(paths, image_size=(16, 24), roi=roi, digests=digests)
    assert torch.equal(batch.require_images()[0], batch.require_images()[1])
    (whole,) = batches(paths, image_size=(16, 24))
    assert not torch.equal(whole.require_images()[0], whole.require_images()[1])
    if digests:
        assert len(set(batch.digests)) == 2, "they are two images all the same"
    second[y + height // 2, x + width // 2] ^= 255
    Image.fromarray(second).save(paths[1])
    (batch,) = batches(paths, image_size=(16, 24), roi=roi)
    assert not torch.equal(batch.require_images()[0], batch.require_images()[1])


def test_a_grey_file_is_cut_as_its_colours(tmp_path: Path) -> None:
    grey = image()[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.repeat(grey[..., None], 3, 2)).save(tmp_path / "rgb.png")
    both = [open_region(tmp_path / name, Roi.of(BOX), size=(10, 12)) for name in ("grey.png", "rgb.png")]
    np.testing.assert_array_equal(*both)
    whole = Roi((0, 0, SIZE[1], SIZE[0]))
    for name in ("grey.png", "rgb.png"):
        resized = open_region(tmp_path / name, whole, size=(10, 12))
        np.testing.assert_array_equal(resized, open_image(tmp_path / name, size=(10, 12)))


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ("", "x,y,width,height"),
        ("1,2,3", "cannot|no such file"),
        ("1,2,0,4", "at least 1 x 1"),
        ("-1,2,3,4", ">= 0"),
        ((1, 2, 3), "four numbers"),
        ((1, 2, 3.5, 4), "whole pixels"),
        ((True, 2, 3, 4), "whole pixels"),
        (7, "path of a mask"),
        (np.zeros((4, 4)), "is empty: every pixel is zero"),
        (np.ones((2, 2, 3)), r"shape \(H, W\)"),
        ("mask:4x4:0,0,2,2:####", "no mask that kizu wrote"),
        ("mask:4x4:0,0,2,2:abcd", "damaged"),
        ("mask:4x4:3,0,2,2:eJwDAAAAAAE=", "reaches beyond"),
        ("mask:999999x999999:0,0,99999,99999:eJwDAAAAAAE=", "too many"),
        (Roi.of(disc()).text.replace("18,6,19,19", "18,6,19,29"), "another size"),
    ],
)
def test_what_is_no_region(given_: Any, said: str) -> None:
    with pytest.raises((UsageError, ImageError), match=said):
        Roi.of(given_)


def test_images_that_it_does_not_fit(tmp_path: Path) -> None:
    Image.fromarray(image()).save(tmp_path / "one.png")
    with pytest.raises(ImageError, match=r"has 40 x 60 pixels .* 30 wide and 20 high .* reaches beyond it"):
        open_region(tmp_path / "one.png", Roi.of("31,5,30,20"))
    with pytest.raises(ImageError, match=r"40 x 60 pixels .* was drawn on images of 4 x 4"):
        open_region(tmp_path / "one.png", Roi.of(np.eye(4)))
    with pytest.raises(ShapeError, match="reaches beyond"):
        Roi.of(BOX).cut_tensor(torch.zeros(1, 3, 20, 60))
    loader = batches([tmp_path / "one.png"], image_size=(16, 16), roi=Roi.of(np.eye(4)), on_error="collect")
    assert list(loader) == []
    assert "drawn on images of 4 x 4" in loader.errors[0][1]
