"""oct2017, aptos, isic2018: layouts, splits, published counts, and the copies that `prepare` writes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import trees
from PIL import Image

from kizu.datasets import checking
from kizu.datasets.aptos import aptos, fundus_crop
from kizu.datasets.aptos import expected_counts as aptos_counts
from kizu.datasets.aptos import prepare as prepare_aptos
from kizu.datasets.isic2018 import expected_counts as isic_counts
from kizu.datasets.isic2018 import isic2018
from kizu.datasets.isic2018 import prepare as prepare_isic
from kizu.datasets.oct2017 import expected_counts as oct_counts
from kizu.datasets.oct2017 import oct2017
from kizu.errors import DataError, EmptyData, LayoutError, OutputExists, UsageError
from kizu.images import image_shape
from kizu.samples import Samples


def sizes(samples: Samples) -> tuple[int, int, int, int]:
    """Train, test normal, test anomalous, without a split."""
    return (
        len(samples.train),
        len(samples.test.normal),
        len(samples.test.anomalous),
        samples.table["split"].null_count(),
    )


@pytest.mark.parametrize("inside", ["", "OCT2017", "ZhangLabData/CellData/OCT"])
def test_oct(tmp_path: Path, inside: str) -> None:
    trees.oct2017(tmp_path / inside)
    samples = oct2017(tmp_path)
    assert sizes(samples) == (3, 2, 4, 1)
    assert samples.train.table["group"].to_list() == ["1", "1", "2"]
    assert sorted(samples.anomalous.table["defect"].unique()) == ["CNV", "DME", "DRUSEN"]
    assert oct2017(tmp_path, split="test") == samples.test
    report = checking.check("oct2017", tmp_path)
    assert not report.ok
    assert "problem: oct2017, train, normal: 3 images where 26315 are published" in report.lines


def test_oct_refusals(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="no train/NORMAL and test/NORMAL"):
        oct2017(tmp_path)
    trees.oct2017(tmp_path)
    trees.draw_image(tmp_path / "test" / "AMD" / "AMD-1-1.jpeg")
    with pytest.raises(LayoutError, match=r"beside NORMAL, CNV, DME, DRUSEN: AMD\."):
        oct2017(tmp_path)


@pytest.mark.parametrize("inside", ["", "original"])
def test_aptos_as_downloaded(tmp_path: Path, inside: str) -> None:
    trees.aptos(tmp_path / inside)
    samples = aptos(tmp_path, train_normals=4)
    assert sizes(samples) == (4, 2, 4, 0)
    assert samples.anomalous.table["defect"].to_list() == ["grade2", "grade4", "grade1", "grade3"]
    normals = ["id0", "id2", "id3", "id5", "id7", "id9"]
    random.seed(1)  # as the published script does, in the order of train.csv
    random.shuffle(normals)
    assert {Path(path).stem for path in samples.train.paths} == set(normals[:4])
    assert aptos(tmp_path, train_normals=4, seed=2).train != samples.train


def test_aptos_prepared(tmp_path: Path) -> None:
    trees.aptos(tmp_path / "raw")
    seen: list[tuple[int, int]] = []
    prepare_aptos(tmp_path / "raw", tmp_path / "cut", train_normals=4, progress=lambda *at: seen.append(at))
    assert seen == [(n, 10) for n in range(1, 11)]
    raw, cut = aptos(tmp_path / "raw", train_normals=4), aptos(tmp_path / "cut")
    for side in ("train", "test"):
        mine, theirs = (
            {(Path(path).stem, kind) for path, kind in half.select("image", "defect").iter_rows()}
            for half in (getattr(raw, side).table, getattr(cut, side).table)
        )
        assert mine == theirs
    assert {image_shape(path) for path in cut.paths} == {(512, 512)}
    with pytest.raises(OutputExists):
        prepare_aptos(tmp_path / "raw", tmp_path / "cut", train_normals=4)
    with pytest.raises(UsageError, match="prepared copies, whose split is fixed"):
        aptos(tmp_path / "cut", seed=3)
    trees.aptos_prepared(tmp_path / "theirs")
    assert aptos(tmp_path / "theirs").anomalous.table["defect"].to_list() == ["anomaly", "anomaly"]


def test_an_interrupted_preparation_leaves_nothing(tmp_path: Path) -> None:
    trees.aptos(tmp_path / "raw")
    Image.new("RGB", (20, 20)).save(tmp_path / "raw" / "train_images" / "id4.png")
    with pytest.raises(DataError, match="black"):
        prepare_aptos(tmp_path / "raw", tmp_path / "cut", train_normals=4)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_aptos_refusals(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"neither train\.csv with train_images/"):
        aptos(tmp_path)
    trees.aptos(tmp_path)
    with pytest.raises(EmptyData, match="1000 of 6 images of grade 0"):
        aptos(tmp_path)
    (tmp_path / "train_images" / "id3.png").unlink()
    trees.fundus(tmp_path / "train_images" / "new.png")
    with pytest.raises(
        LayoutError, match=r"1 image of the list are not there \(id3\), 1 are not in the list \(new\)"
    ):
        aptos(tmp_path, train_normals=2)
    trees.write_csv(tmp_path / "train.csv", [("id_code", "diagnosis"), ("id0", 5)])
    with pytest.raises(LayoutError, match="got 5"):
        aptos(tmp_path, train_normals=2)


@pytest.mark.parametrize("centre", [(20, 30), (8, 10), (33, 50)])
def test_fundus_crop(centre: tuple[int, int]) -> None:
    """The disc comes to one pixel from the middle (the published rounding) and keeps its shape, wherever it
    lay."""
    size, radius = (40, 60), 6
    y, x = np.mgrid[: size[0], : size[1]]
    disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
    image = np.where(disc[..., None], np.uint8(100), np.uint8(0)).repeat(3, axis=2)
    image[0, 0] = image[1, 1] = 255  # a smaller region, joined by a corner
    out = fundus_crop(image, size=2 * radius + 1 + 10)
    assert out.shape == (23, 23, 3)
    y, x = np.nonzero(out[..., 0] == 100)
    assert (len(y), y.mean(), x.mean()) == (disc.sum(), 12, 12)


def test_fundus_crop_reaches_past_the_image() -> None:
    image = np.full((30, 50, 3), 80, np.uint8)
    out = fundus_crop(image, size=59, margin=5)  # 49 wide by the published rounding and 5 more on each side
    assert (out[15:45, 5:55] == 80).all()
    assert out.astype(int).sum() == 30 * 50 * 3 * 80, "all else is black"
    with pytest.raises(DataError, match="black"):
        fundus_crop(np.full((5, 5, 3), 10, np.uint8))


@pytest.mark.parametrize("inside", ["", "original"])
def test_isic(tmp_path: Path, inside: str) -> None:
    trees.isic2018(tmp_path / inside)
    samples = isic2018(tmp_path)
    assert sizes(samples) == (4, 2, 2, 1)
    assert samples.test.anomalous.table["defect"].to_list() == ["BCC", "VASC"]
    assert samples.train.table["group"].to_list() == ["HAM_1", "HAM_1", "HAM_3", "HAM_4"]
    prepare_isic(tmp_path, tmp_path / "cut", resize=64, crop=56)
    cut = isic2018(tmp_path / "cut")
    assert sizes(cut) == (4, 2, 2, 0)
    assert {image_shape(path) for path in cut.paths} == {(56, 56)}
    assert (
        "problem: isic2018, test, normal: 2 images where 123 are published"
        in checking.check("isic2018", tmp_path / "cut").lines
    )


def test_isic_refusals(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="neither ISIC2018_Task3_Training_Input"):
        isic2018(tmp_path)
    trees.isic2018(tmp_path)
    with pytest.raises(UsageError, match="from 1 to 64"):
        prepare_isic(tmp_path, tmp_path / "cut", resize=64, crop=65)
    file = tmp_path / "ISIC2018_Task3_Validation_GroundTruth" / "ISIC2018_Task3_Validation_GroundTruth.csv"
    text = file.read_text()
    file.write_text(text.replace("ISIC_V0,0.0,1.0", "ISIC_V0,1.0,1.0"))
    with pytest.raises(LayoutError, match="not so: ISIC_V0"):
        isic2018(tmp_path)
    file.write_text(text.replace("ISIC_V0", "ISIC_X"))
    with pytest.raises(LayoutError, match=r"not there \(ISIC_X\), 1 are not in the list \(ISIC_V0\)"):
        isic2018(tmp_path)
    file.unlink()
    with pytest.raises(LayoutError, match="the list is not there"):
        isic2018(tmp_path)


def test_published_totals() -> None:
    assert sum(aptos_counts().values()) == 3662
    assert sum(isic_counts().values()) == 10015 + 193
    assert sum(oct_counts().values()) == 83484 + 1000
