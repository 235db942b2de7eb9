"""mvtec: the layout, its names and its published totals."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from trees import draw_image, mvtec_category
from trees import mvtec as tree

from kizu.datasets.mvtec import COUNTS, expected_counts, mvtec
from kizu.errors import EmptyData, LayoutError, MaskError, UnknownName


def test_categories_splits_masks(tmp_path: Path) -> None:
    tree(tmp_path)
    samples = mvtec(tmp_path)
    assert len(samples) == 18
    assert samples.table["category"].unique().sort().to_list() == ["bottle", "gear"]
    assert (len(samples.train), len(samples.test.normal), len(samples.test.anomalous)) == (8, 4, 6)
    for image, paired, label in samples.table.select("image", "mask", "label").iter_rows():
        assert (paired is not None) == (label == 1)
        if paired:
            assert paired == image.replace("/test/", "/ground_truth/").replace(".png", "_mask.png")
    gear = mvtec(tmp_path, category="gear", split="test")
    assert gear == samples.where(category="gear", split="test")
    with pytest.raises(UnknownName, match="'bottle'"):
        mvtec(tmp_path, category="bottel")


@pytest.mark.parametrize(
    ("name", "called"),
    [("screw", "screw"), ("mvtec-screw", "screw"), ("my_metal_nut", "metal_nut"), ("gear", "gear")],
)
def test_one_category(tmp_path: Path, name: str, called: str) -> None:
    mvtec_category(tmp_path / name)
    for path in (tmp_path / name, tmp_path):
        assert mvtec(path).table["category"].unique().to_list() == [called]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="holds no category"):
        mvtec(tmp_path)
    mvtec_category(tmp_path / "screw")
    mvtec_category(tmp_path / "copy-screw")
    with pytest.raises(LayoutError, match="category screw twice: copy-screw, screw"):
        mvtec(tmp_path)
    (tmp_path / "screw" / "ground_truth" / "dent" / "000_mask.png").unlink()
    with pytest.raises(MaskError, match=r"000\.png"):
        mvtec(tmp_path / "screw")
    draw_image(tmp_path / "bare" / "train" / "good" / "a.png")
    with pytest.raises(LayoutError, match="lacks test/"):
        mvtec(tmp_path / "bare")
    for path in (tmp_path / "copy-screw" / "train" / "good").iterdir():
        path.unlink()
    for path in (tmp_path / "copy-screw" / "test" / "good").iterdir():
        path.unlink()
    with pytest.raises(
        EmptyData, match=r"train is there, but yields no image: it holds empty folders: good/"
    ):
        mvtec(tmp_path / "copy-screw")


def test_published_totals() -> None:
    assert [sum(column) for column in zip(*COUNTS.values(), strict=True)] == [
        3629,
        467,
        1258,
    ]  # IJCV 2021, table 1
    assert sum(expected_counts().values()) == 5354
    assert len(COUNTS) == 15


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("KIZU_DATA"), reason="KIZU_DATA is not set")
def test_real_screw() -> None:
    samples = mvtec(Path(os.environ["KIZU_DATA"]) / "mvtec-screw")
    assert samples.table["category"].unique().to_list() == ["screw"]
    assert (len(samples.train), len(samples.test.normal), len(samples.anomalous)) == COUNTS["screw"]
    assert samples.anomalous.table["defect"].n_unique() == 5
