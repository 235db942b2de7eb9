"""The one way in: every kind of input gives the same batches to fit and predict, and labels go only where
they may."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import kizu
from kizu.errors import EmptyData, ImageError, ShapeError, UsageError
from kizu.images import open_image
from kizu.reader import read
from kizu.samples import Samples
from kizu.types import Batch

SIZE = (32, 32)


def pixels(data: Any, **settings: Any) -> torch.Tensor:
    """All images that come out, (n, 3, H, W)."""
    batches = list(read(data, size=SIZE, batch_size=4, errors=[], **settings))
    assert all(len(batch) <= 4 for batch in batches)
    return torch.cat([batch.require_images() for batch in batches])


@pytest.fixture(scope="module")
def paths(tiny_planted: Samples) -> list[str]:
    return tiny_planted.train.paths[:6]


def test_files_arrays_and_pil_images_are_the_same(paths: list[str], tiny_planted: Samples) -> None:
    expected = pixels(paths)
    assert expected.shape == (6, 3, *SIZE)
    arrays = [open_image(path) for path in paths]
    for data in (
        [Path(path) for path in paths],
        iter(paths),
        tiny_planted.train.take(range(6)),
        arrays,
        np.stack(arrays),
        [Image.fromarray(array) for array in arrays],
        [torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 255 for array in map(small, arrays)],
    ):
        assert torch.equal(pixels(data), expected)
    assert torch.equal(pixels(paths[0]), expected[:1])
    assert torch.equal(pixels(arrays[0]), expected[:1])
    assert torch.equal(pixels([array[..., ::-1] for array in arrays], channels="bgr"), expected)


def small(array: np.ndarray) -> np.ndarray:
    from kizu.images import resize_image

    return resize_image(array, SIZE)


def test_tensors_stay_as_they_are_and_are_gathered() -> None:
    images = torch.rand(7, 3, 20, 24)
    assert torch.equal(pixels(images), images)
    assert torch.equal(pixels(list(images)), images)
    assert torch.equal(pixels([Batch(images[:3]), Batch(images[3:6])]), images[:6])
    mixed = list(read([images[0], torch.rand(3, 8, 8), images[1]], size=SIZE, batch_size=4, errors=[]))
    assert [batch.size for batch in mixed] == [(20, 24), (8, 8), (20, 24)]


def test_a_folder_to_learn_from_is_its_good_training_images(tiny_planted: Samples) -> None:
    folder = Path(tiny_planted.train.paths[0]).parents[2]
    learned = list(read(folder, size=SIZE, batch_size=16, errors=[], supervision="normal"))
    assert sorted(path for batch in learned for path in batch.paths) == sorted(tiny_planted.train.paths)
    assert all(batch.labels is None and batch.masks is None for batch in learned)


def test_labels_and_masks_come_where_they_are_learned_from(tiny_planted: Samples) -> None:
    test = tiny_planted.test
    batches = list(read(test, size=SIZE, batch_size=5, errors=[], supervision="labelled"))
    labels = torch.cat([batch.labels for batch in batches if batch.labels is not None])
    assert labels.tolist() == test.labels.tolist()
    masks = torch.cat([batch.masks for batch in batches if batch.masks is not None])
    assert masks.shape == (len(test), *SIZE)
    assert masks.flatten(1).any(1).tolist() == (test.labels == 1).tolist()


def test_anomalous_samples_are_refused_by_every_way(tiny_planted: Samples) -> None:
    labels = torch.tensor(tiny_planted.test.labels)
    images = torch.rand(len(labels), 3, 8, 8)
    features = Batch(features=[torch.rand(len(labels), 2, 2, 2)], labels=labels, size=(8, 8))
    for data in (tiny_planted.test, [Batch(images, labels=labels)], [features], Batch(images, labels=labels)):
        with pytest.raises(UsageError, match="good images only"):
            list(read(data, size=SIZE, batch_size=4, errors=[], supervision="normal"))
    painted = Batch(images, masks=torch.ones(len(labels), 8, 8, dtype=torch.bool))
    with pytest.raises(UsageError, match="good images only"):
        list(read(painted, size=SIZE, batch_size=4, errors=[], supervision="normal"))
    good = Batch(images, labels=torch.zeros(len(labels), dtype=torch.int64))
    (batch,) = read(good, size=SIZE, batch_size=64, errors=[], supervision="normal")
    assert batch.labels is None


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), UsageError, "NumPy arrays"),
        (torch.full((1, 3, 8, 8), 200.0), UsageError, "Divide 8-bit"),
        (torch.zeros(1, 4, 8, 8), ShapeError, r"\(B, 3, H, W\)"),
        (np.zeros((8, 8), np.uint8), ShapeError, r"\(H, W, 3\)"),
        (np.zeros((8, 8, 4), np.uint8), ShapeError, r"\(H, W, 3\)"),
        (7, UsageError, "got int"),
        ([7], UsageError, "got int"),
        ([b"x"], ImageError, "in memory"),
        ([None], UsageError, "got NoneType"),
        ({"a": 1}, UsageError, "got dict"),
    ],
)
def test_what_cannot_be_read_is_said(data: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        list(read(data, size=SIZE, batch_size=4, errors=[]))


def test_channels_are_for_arrays(paths: list[str]) -> None:
    with pytest.raises(UsageError, match="channels is for arrays"):
        list(read(paths, size=SIZE, batch_size=4, errors=[], channels="bgr"))
    for data in (Batch(torch.rand(1, 3, 8, 8)), [Image.fromarray(open_image(paths[0]))]):
        with pytest.raises(UsageError, match="channels is for arrays"):
            list(read(data, size=SIZE, batch_size=4, errors=[], channels="bgr"))
    with pytest.raises(UsageError, match="'rgb' or 'bgr'"):
        list(read(paths, size=SIZE, batch_size=4, errors=[], channels="gbr"))  # type: ignore[arg-type]


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(EmptyData, match="holds no images: it is empty"):
        list(read(tmp_path, size=SIZE, batch_size=4, errors=[]))
    (tmp_path / "monday").mkdir()
    (tmp_path / "monday" / "notes.txt").write_text("none")
    with pytest.raises(EmptyData, match=r"holds no images: it holds monday/notes\.txt"):
        list(read(tmp_path, size=SIZE, batch_size=4, errors=[]))


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        (np.zeros((8, 9), np.uint8), "Repeat a grey image"),
        (np.zeros((8, 9, 1), np.uint8), "Repeat a grey image"),
        (np.zeros((8, 9, 4), np.uint8), "alpha"),
        (np.zeros((3, 8, 9), np.uint8), "moveaxis"),
        (np.zeros((8, 9, 3), np.float32), "moveaxis"),
        (torch.zeros(2, 8, 9, 3), "movedim"),
        (torch.zeros(2, 1, 8, 9), "Repeat a grey image"),
        (torch.zeros(8, 9), "Repeat a grey image"),
        (torch.zeros(5), "not a row"),
        (torch.zeros(2, 7, 8, 9), "three channels"),
    ],
)
def test_arrays_of_other_shapes_are_told_what_to_do(data: Any, advice: str) -> None:
    with pytest.raises(ShapeError, match=advice):
        list(read(data, size=SIZE, batch_size=4, errors=[]))


def test_fit_and_predict_take_the_same(paths: list[str]) -> None:
    arrays = [open_image(path) for path in paths]
    plain = kizu.detector("gaussian", "random/resnet10t@2", image_size=32, precision="fp32")
    from_files, from_arrays = plain.clone().fit(paths), plain.fit(arrays)
    # without streams, 6 images pass together or 4 and 2: convolutions sum in another order
    expected = from_files.predict(paths).score
    turned = np.stack(arrays)[..., ::-1]
    for prediction in (
        from_files.predict(arrays),
        from_arrays.predict(paths),
        from_files.predict(turned, channels="bgr"),
    ):
        torch.testing.assert_close(prediction.score, expected, rtol=1e-3, atol=0)


def test_a_batch_says_what_it_is() -> None:
    batch = Batch(
        torch.rand(5, 3, 8, 6),
        labels=torch.tensor([0, 1, 1, 0, -1]),
        paths=tuple("abcde"),
        rows=tuple(range(5)),
    )
    assert batch.size == (8, 6)
    parts = batch.split(2)
    assert [len(part) for part in parts] == [2, 2, 1]
    assert parts[1].paths == ("c", "d")
    assert parts[1].labels is not None
    assert parts[1].labels.tolist() == [1, 0]
    with pytest.raises(UsageError, match="neither"):
        Batch()
    with pytest.raises(UsageError, match="for the same images"):
        Batch(torch.rand(5, 3, 8, 6), labels=torch.zeros(2))
    with pytest.raises(UsageError, match="labels are 0"):
        Batch(torch.rand(2, 3, 8, 6), labels=torch.tensor([0, 2]))
    with pytest.raises(UsageError, match="size"):
        Batch(features=[torch.zeros(1, 2, 2, 2)])
    with pytest.raises(UsageError, match="without the images"):
        Batch(features=[torch.zeros(1, 2, 2, 2)], size=(8, 8)).require_images()


def test_the_content_of_files_is_read_as_files_are(paths: list[str]) -> None:
    expected, contents = pixels(paths), [Path(path).read_bytes() for path in paths]
    assert torch.equal(pixels(contents), expected)
    assert torch.equal(pixels([io.BytesIO(content) for content in contents]), expected)
    assert torch.equal(pixels(contents[0]), expected[:1])
    used = io.BytesIO(contents[1])
    used.read()  # at its end
    assert torch.equal(pixels(used), expected[1:2])
    for broken in (b"", b"no image at all", contents[0][:40]):
        with pytest.raises(ImageError, match="in memory"):
            pixels(broken)
    with pytest.raises(UsageError, match="colours in files"):
        pixels(contents, channels="bgr")


def test_arrays_of_any_stride_and_of_names(paths: list[str]) -> None:
    arrays = [open_image(path) for path in paths]
    turned = [np.ascontiguousarray(array[::-1, ::-1, ::-1]) for array in arrays]
    expected = pixels(arrays)
    assert torch.equal(pixels([array[::-1, ::-1, ::-1] for array in turned]), expected)
    assert torch.equal(pixels(np.stack(turned)[:, ::-1, ::-1, ::-1]), expected)
    floats = expected.numpy()
    backwards = np.ascontiguousarray(floats[:, ::-1, ::-1])
    assert torch.equal(pixels(backwards[:, ::-1, ::-1]), expected)
    assert torch.equal(pixels(np.array(paths)), expected)
    assert torch.equal(pixels(expected.clone().requires_grad_()), expected)
    for wrong in (np.array([None, 3], dtype=object), np.zeros((1, 3, 8, 8), dtype=complex)):
        with pytest.raises(UsageError, match="Images are"):
            pixels(wrong)
