"""Batches and masks: order, values, broken files, early ends."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from trees import draw_image, mask

from kizu import loader as loader_module
from kizu.errors import ImageError, MaskError, UsageError
from kizu.images import open_image, open_values
from kizu.loader import batches, mask_rule, masks_for
from kizu.masks import open_mask, resize_mask
from kizu.samples import Samples


@pytest.fixture
def ten(tmp_path: Path) -> list[Path]:
    return [draw_image(tmp_path / f"{n}.png", n, size=(12 + n, 16)) for n in range(10)]


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("kizu-images")]


def no_workers_left() -> bool:
    deadline = time.monotonic() + 3
    while workers() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not workers()


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 0), (2, 1), (5, 3)])
def test_order_values_rows(ten: list[Path], threads: int, prefetch: int) -> None:
    loader = batches(ten, image_size=(8, 10), batch_size=4, threads=threads, prefetch=prefetch)
    assert len(loader) == 3
    found = list(loader)
    assert [len(batch) for batch in found] == [4, 4, 2]
    assert [path for batch in found for path in batch.paths] == [str(path) for path in ten]
    assert [row for batch in found for row in batch.rows] == list(range(10))
    images = torch.cat([batch.images for batch in found])
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    truth = np.stack([open_image(path, size=(8, 10)) for path in ten]).transpose(0, 3, 1, 2) / np.float32(255)
    np.testing.assert_array_equal(images.numpy(), truth)
    assert no_workers_left()


def test_from_samples_and_from_strings(ten: list[Path]) -> None:
    samples = Samples(pl.DataFrame({"image": [str(path) for path in ten]}))
    one = next(batches(samples.take([3, 1]), image_size=(4, 4)))
    two = next(batches([str(ten[3]), str(ten[1])], image_size=(4, 4)))
    assert one.paths == two.paths == (str(ten[3]), str(ten[1]))
    assert torch.equal(one.images, two.images)


def test_nothing_in_nothing_out() -> None:
    assert list(batches([], image_size=(4, 4))) == []


def test_broken_files_are_collected_and_no_other_is_lost(ten: list[Path]) -> None:
    for index in (0, 4, 5, 9):
        ten[index].write_bytes(ten[index].read_bytes()[:60])
    ten[7].unlink()
    loader = batches(ten, image_size=(4, 4), batch_size=3, on_error="collect")
    found = list(loader)
    assert [row for batch in found for row in batch.rows] == [1, 2, 3, 6, 8]
    assert [len(batch) for batch in found] == [3, 2]
    assert [path for path, _ in loader.errors] == [str(ten[index]) for index in (0, 4, 5, 7, 9)]
    assert "damaged" in loader.errors[0][1]
    assert "no such file" in loader.errors[3][1]


def test_all_broken(ten: list[Path]) -> None:
    for path in ten:
        path.write_bytes(b"x")
    loader = batches(ten, image_size=(4, 4), batch_size=3, on_error="collect")
    assert list(loader) == []
    assert len(loader.errors) == 10


def test_broken_file_raises_by_default_and_ends_the_threads(ten: list[Path]) -> None:
    ten[5].write_bytes(b"")
    loader = batches(ten, image_size=(4, 4), batch_size=2)
    assert [next(loader).rows, next(loader).rows] == [(0, 1), (2, 3)]
    with pytest.raises(ImageError, match="0 bytes"):
        next(loader)
    assert no_workers_left()
    assert list(loader) == []


def test_early_ends(ten: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in batches(ten, image_size=(4, 4), batch_size=1):
        break
    gc.collect()
    assert no_workers_left()
    with batches(ten, image_size=(4, 4), batch_size=1) as loader:
        next(loader)
    assert no_workers_left()
    assert list(loader) == []

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    loader = batches(ten, image_size=(4, 4), batch_size=1)
    next(loader)
    monkeypatch.setattr(loader_module.torch, "from_numpy", interrupt)
    monkeypatch.setattr(loader, "_gather", interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(loader)
    assert no_workers_left()


def test_no_more_is_decoded_than_asked(ten: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(
        loader_module,
        "open_values",
        lambda path, size, white_level: (seen.append(path), open_values(path, size=size))[1],
    )
    loader = batches(ten, image_size=(4, 4), batch_size=2, prefetch=1)
    time.sleep(0.1)
    assert not seen
    loader.start()
    time.sleep(0.1)
    assert 1 <= len(seen) <= 4  # a batch and one ahead, before the first question
    next(loader)
    time.sleep(0.1)
    assert len(seen) <= 5  # and what the pops of the first made room for
    loader.close()


@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "P", "1"])
def test_images_are_opened_and_divided(mode: str, tmp_path: Path) -> None:
    path = draw_image(tmp_path / "a.png", 3, mode=mode)
    (batch,) = batches([path], image_size=(7, 5))
    expected = open_image(path, size=(7, 5)).transpose(2, 0, 1).astype(np.float32) / np.float32(255.0)
    assert np.array_equal(batch.images[0].numpy(), expected)
    assert batch.images.is_contiguous()
    assert open_values(path).ndim == (2 if mode in ("L", "1") else 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"threads": 0},
        {"prefetch": -1},
        {"batch_size": 2.0},
        {"on_error": "skip"},
        {"image_size": 8},
        {"image_size": (8, 0)},
    ],
)
def test_arguments_that_cannot_be_meant(ten: list[Path], wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong)).replace("image_size", "image size")):
        batches(ten, **{"image_size": (4, 4), **wrong})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="one path"):
        batches("a.png", image_size=(4, 4))


# Masks


@pytest.fixture
def marked(tmp_path: Path) -> Samples:
    names = [str(draw_image(tmp_path / f"{n}.png", n)) for n in range(4)]
    masks = [
        None,
        str(mask(tmp_path / "m1.png", box=(0, 0, 5, 5))),
        str(mask(tmp_path / "m2.png", box=(6, 8, 12, 16))),
        None,
    ]
    return Samples(pl.DataFrame({"image": names, "mask": masks, "label": [0, 1, 1, 1]}))


def test_masks_for(marked: Samples) -> None:
    out = masks_for(marked.take([0, 1, 2]), (6, 8))
    assert out.dtype == np.bool_
    assert out.shape == (3, 6, 8)
    assert not out[0].any()
    for row in (1, 2):
        np.testing.assert_array_equal(out[row], resize_mask(open_mask(marked.table["mask"][row]), (6, 8)))
    with pytest.raises(MaskError, match=r"No mask for 1 image that is .*3\.png"):
        masks_for(marked, (6, 8))
    assert not masks_for(marked, (6, 8), allow_missing=True)[3].any()
    np.testing.assert_array_equal(masks_for(marked.pixel_labelled, (6, 8)), out)
    assert masks_for(marked.take([]), (6, 8)).shape == (0, 6, 8)


def test_masks_of_normal_images_are_not_opened(marked: Samples) -> None:
    table = marked.table.with_columns(
        mask=pl.lit("/nowhere/m.png"), label=pl.lit(0, pl.Int8), defect=pl.lit("good")
    )
    assert not masks_for(Samples(table), (4, 4)).any()


def test_masks_of_another_size(marked: Samples, tmp_path: Path) -> None:
    mask(Path(marked.table["mask"][1]), size=(16, 12))
    with pytest.raises(MaskError, match="16 x 12 pixels but its image 12 x 16"):
        masks_for(marked.take([1]), (6, 8))
    assert masks_for(marked.take([1]), (6, 8), check_shapes=False).any()


def test_the_data_set_says_how_masks_are_read(marked: Samples) -> None:
    mask(Path(marked.table["mask"][1]), value=3)
    with pytest.raises(MaskError, match="largest value is 3"):
        masks_for(marked.take([1]), (6, 8))
    visa = Samples(marked.take([1]).table.with_columns(dataset=pl.lit("visa")))
    assert masks_for(visa, (6, 8)).any()
    assert (mask_rule("visa"), mask_rule("mvtec"), mask_rule("somebody's own")) == ("nonzero", "half", "half")
