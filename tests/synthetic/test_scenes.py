"""The drawn images: the same whoever asks, of all classes, of all sizes, never flat, and with classes that
mean something."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from kizu.errors import UsageError
from kizu.synthetic.scenes import SceneGenerator
from kizu.synthetic.scenes.canvas import SceneCanvas
from kizu.synthetic.scenes.classes import FAMILIES, scene_class
from kizu.synthetic.scenes.generator import photograph


def drawn(label: int, shot: int, size: int = 48) -> NDArray[np.uint8]:
    """One image of a class."""
    _, family, parameters = scene_class(label)
    canvas = SceneCanvas(size, np.random.default_rng([label, shot]))
    return photograph(canvas, family(canvas, parameters))


def test_an_image_is_what_its_numbers_say() -> None:
    image, label = SceneGenerator(size=40, classes=12).image(7)
    assert image.shape == (40, 40, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.owndata
    assert 0 <= label < 12


def test_order_company_and_threads_do_not_matter() -> None:
    source = SceneGenerator(size=32, seed=3)
    images, labels = source.batch(range(90))
    assert images.shape == (90, 32, 32, 3)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(source.image, reversed(range(90))))
    for index, (image, label) in zip(reversed(range(90)), threaded, strict=True):
        assert np.array_equal(image, images[index])
        assert label == labels[index]
    again, _ = SceneGenerator(size=32, seed=3).batch([41, 5])
    assert np.array_equal(again, images[[41, 5]])


def test_the_global_generator_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()
    SceneGenerator(size=16).batch(range(5))
    assert np.array_equal(before, np.random.get_state()[1])


def test_seeds_and_indices_give_other_images() -> None:
    first, second = SceneGenerator(size=16, seed=0), SceneGenerator(size=16, seed=1)
    images = [source.image(index)[0].tobytes() for source in (first, second) for index in range(20)]
    assert len(set(images)) == 40


def test_all_classes_come_and_have_names() -> None:
    source = SceneGenerator(size=8, classes=9)
    _, labels = source.batch(range(150))
    assert set(labels.tolist()) == set(range(9))
    assert len(set(SceneGenerator(classes=300).classes)) == 300
    assert SceneGenerator(classes=300).classes[:9] == source.classes


def test_no_batch_is_an_empty_batch() -> None:
    images, labels = SceneGenerator(size=8).batch([])
    assert images.shape == (0, 8, 8, 3)
    assert labels.shape == (0,)


@pytest.mark.parametrize("size", [8, 9, 32, 101, 224])
def test_every_size(size: int) -> None:
    images, _ = SceneGenerator(size=size).batch(range(8))
    assert images.shape == (8, size, size, 3)
    assert (images.std((1, 2, 3)) > 6).all()


@pytest.mark.parametrize("family", range(len(FAMILIES)), ids=lambda family: FAMILIES[family].__name__)
def test_no_class_is_flat(family: int) -> None:
    for number in range(4):
        for shot in range(2):
            image = drawn(family + number * len(FAMILIES), shot).astype(np.float32)
            assert image.mean(2).std() > 8, f"variant {number}, shot {shot}"
            assert 8 < image.mean() < 247


def test_families_draw_in_single_precision_and_in_range() -> None:
    for family, draw in enumerate(FAMILIES):
        canvas = SceneCanvas(24, np.random.default_rng(family))
        image = draw(canvas, scene_class(family)[2])
        assert image.shape == (3, 24, 24), draw.__name__
        assert np.isfinite(image).all(), draw.__name__
        assert image.dtype == np.float32, draw.__name__


def statistic(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What colour, pose and light leave alone: grey contrast of 1, 2, 4, 8 pixels relative to the whole, and
    the shape of its histogram."""
    grey = image.mean(2)
    grey = (grey - grey.mean()) / (grey.std() + 1e-6)
    near = [
        np.log(np.abs(grey[far:] - grey[:-far]).mean() + np.abs(grey[:, far:] - grey[:, :-far]).mean())
        for far in (1, 2, 4, 8)
    ]
    steep = np.abs(np.diff(grey)).ravel()
    return np.array([*near, np.log(np.mean(steep**4) / np.mean(steep**2) ** 2) / 2, np.mean(np.abs(grey))])


def test_a_class_is_more_alike_than_the_classes_are() -> None:
    values = np.stack([[statistic(drawn(label, shot)) for shot in range(5)] for label in range(0, 180, 3)])
    within, between = values.var(1).mean(0), values.mean(1).var(0)
    assert (between > within).mean() > 0.8
    centres = values[:, :3].mean(1)
    apart = ((values[:, 3:, None] - centres) ** 2 / within).sum(-1)
    nearest = apart.argmin(-1) == np.arange(60)[:, None]
    assert nearest.mean() > 6 / 60, "six times chance from six numbers"


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"size": 7}, "size=7.*at least 8"),
        ({"classes": 0}, "classes=0.*classes=1 or more"),
        ({"seed": -1}, "seed=-1.*seed=0"),
    ],
)
def test_values_out_of_range_are_refused(parameters: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        SceneGenerator(**parameters)


def test_a_negative_index_is_refused() -> None:
    with pytest.raises(UsageError, match="index=-1"):
        SceneGenerator().image(-1)
