"""Training images: folders, classes, broken files, several sources, order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kizu.errors import EmptyData, LayoutError, UsageError
from kizu.images import image_digest
from kizu.pretraining.data import Images, identified_square
from kizu.training import Position


def write(path: Path, grey: int, size: tuple[int, int] = (24, 24)) -> Path:
    """One grey image, (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey, grey, grey)).save(path)
    return path


def plain(folder: Path, count: int = 6, first: int = 0) -> Path:
    """Images whose grey says which they are."""
    for number in range(count):
        write(folder / f"{number}.png", 10 * (first + number))
    return folder


def greys(source: Images, first: int, count: int) -> list[int]:
    images, _ = source(Position(0, first, count))
    return [int(image[0, 0, 0]) // 10 for image in images]


def test_a_folder_of_images(tmp_path: Path) -> None:
    source = Images([plain(tmp_path / "a")], side=16)
    images, labels = source(Position(0, 0, 5))
    assert images.shape == (5, 16, 16, 3)
    assert images.dtype == torch.uint8
    assert labels.tolist() == [0] * 5
    assert labels.dtype == torch.int64
    assert (source.count, source.classes) == (6, 1)
    assert source.card() == [{"name": "a", "images": 6, "classes": 1}]


def test_class_folders_are_labels(tmp_path: Path) -> None:
    for number, name in enumerate(("ant", "bee", "cat")):
        plain(tmp_path / name / "deeper", 2, 2 * number)
    source = Images([tmp_path], side=16)
    assert source.classes == 3
    images, labels = source(Position(0, 0, 6))
    assert [int(p[0, 0, 0]) // 20 for p in images] == labels.tolist()
    write(tmp_path / "stray.png", 0)
    assert Images([tmp_path], side=16).classes == 1, "an image beside the folders: they are no classes"
    assert Images([tmp_path / "ant"], side=16).classes == 1, "one folder is no class"


def test_every_pass_is_a_new_order(tmp_path: Path) -> None:
    source = Images([plain(tmp_path, 8)], side=16, seed=4)
    passes = [greys(source, 8 * turn, 8) for turn in range(5)]
    assert all(sorted(order) == list(range(8)) for order in passes)
    assert len({tuple(order) for order in passes}) == 5
    assert greys(source, 5, 8) == passes[0][5:] + passes[1][:5], "any position can be asked for, in any order"
    assert greys(Images([tmp_path], side=16, seed=4), 16, 8) == passes[2]
    assert greys(Images([tmp_path], side=16, seed=5), 0, 8) != passes[0]
    without = Images([tmp_path], side=16, seed=4)
    without.sources[0]._cache = None  # as for a set that does not fit into memory
    assert greys(without, 0, 8) == passes[0]


def test_sources_take_turns(tmp_path: Path) -> None:
    one, other = plain(tmp_path / "one", 2), tmp_path / "other"
    for number, name in enumerate(("x", "y", "z")):
        plain(other / name, 1, 10 + number)
    source = Images([one, other], side=16)
    assert (source.count, source.classes) == (5, 4)
    images, labels = source(Position(0, 0, 12))
    seen_greys = [int(image[0, 0, 0]) // 10 for image in images]
    assert sorted(seen_greys[0:4:2]) == sorted(seen_greys[4:8:2]) == [0, 1]
    assert sorted(seen_greys[1:6:2]) == sorted(seen_greys[7:12:2]) == [10, 11, 12]
    assert labels.tolist() == [0 if grey < 10 else grey - 9 for grey in seen_greys]
    assert seen_greys == [grey for index in range(12) for grey in greys(source, index, 1)]


def test_a_long_source_keeps_its_order_beside_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, orders, real = (
        Images([plain(tmp_path / "a", 2), plain(tmp_path / "b", 20)], side=16),
        [],
        np.random.default_rng,
    )
    monkeypatch.setattr(np.random, "default_rng", lambda key: orders.append(tuple(key)) or real(key))
    source(Position(0, 0, 40))
    assert orders.count((0, 1, 0)) == 1


def test_procedural_images_have_classes() -> None:
    source = Images(["procedural:5"], side=16, seed=1)
    assert (source.count, source.classes) == (None, 5)
    images, labels = source(Position(0, 3, 12))
    assert images.shape == (12, 16, 16, 3)
    assert set(labels.tolist()) <= set(range(5))
    again, _ = Images(["procedural:5"], side=16, seed=1)(Position(0, 5, 2))
    assert torch.equal(again, images[2:4])
    assert Images(["procedural"], side=16).classes == 200


def test_procedural_beside_a_folder(tmp_path: Path) -> None:
    source = Images([plain(tmp_path), "procedural:5"], side=16)
    assert (source.count, source.classes) == (None, 6)
    _, labels = source(Position(0, 0, 20))
    assert labels[0::2].tolist() == [0] * 10
    assert all(1 <= label <= 5 for label in labels[1::2].tolist())


def test_broken_images_are_skipped_and_named(tmp_path: Path) -> None:
    for number, name in enumerate(("ant", "bee")):
        plain(tmp_path / name, 3, 3 * number)
    (tmp_path / "ant" / "1.png").write_bytes(b"")
    (tmp_path / "bee" / "2.png").write_text("no image")
    source = Images([tmp_path], side=16)
    assert source.count == 6
    images, labels = source(Position(0, 0, 12))
    seen_greys = [int(image[0, 0, 0]) // 10 for image in images]
    assert set(seen_greys) == {0, 2, 3, 4}
    assert [grey // 3 for grey in seen_greys] == labels.tolist(), "the replacement brings its own label"
    assert sorted(source.skipped) == [str(tmp_path / "ant" / "1.png"), str(tmp_path / "bee" / "2.png")]
    assert all(source.skipped.values())
    assert greys(Images([tmp_path], side=16), 6, 6) == seen_greys[6:], "what was met before does not matter"


def test_nothing_that_can_be_read(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")
    with pytest.raises(EmptyData, match="None of the 3 images can be read"):
        Images([tmp_path], side=16)(Position(0, 0, 2))


def test_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(EmptyData, match="holds no images"):
        Images([tmp_path], side=16)
    with pytest.raises(LayoutError, match="is no folder"):
        Images([tmp_path / "absent"], side=16)
    with pytest.raises(LayoutError, match="is no folder"):
        Images([write(tmp_path / "one.png", 3)], side=16)
    with pytest.raises(UsageError, match="Give images to train on"):
        Images([], side=16)
    for text in ("procedural:many", "procedural:-3"):
        with pytest.raises(UsageError, match="comes the number of classes"):
            Images([text], side=16)
    with pytest.raises(UsageError, match="classes=0"):
        Images(["procedural:0"], side=16)


@pytest.mark.parametrize("size", [(16, 16), (5, 7), (200, 90), (31, 300), (1, 40), (640, 480)])
def test_any_size_is_brought_to_the_side(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write(tmp_path / "p.png", 70, size)
    square, digest = identified_square(path, 16)
    assert square.shape == (16, 16, 3)
    assert digest == image_digest(path)


def test_the_middle_square_is_kept(tmp_path: Path) -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    for name in ("wide.png", "tall.png"):
        assert (identified_square(tmp_path / name, 20)[0] == 200).all()
