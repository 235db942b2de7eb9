"""visa: both layouts, the three lists, and the published counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from trees import draw_image, visa_prepared, write_csv
from trees import visa as tree

from kizu.datasets._layout import Row, to_samples
from kizu.datasets.checking import compare_counts
from kizu.datasets.visa import COUNTS, SPLITS, expected_counts, read_split, visa
from kizu.errors import LayoutError, MaskError, UnknownName, UsageError
from kizu.loader import masks_for


def test_downloaded(tmp_path: Path) -> None:
    tree(tmp_path)
    samples = visa(tmp_path)
    assert (len(samples.train), len(samples.test.normal), len(samples.test.anomalous)) == (6, 2, 4)
    assert samples.train.anomalous.paths == []
    assert masks_for(samples.anomalous, (12, 16)).any(axis=(1, 2)).all()  # values 1 and 2 of 255
    for image, paired in samples.anomalous.table.select("image", "mask").iter_rows():
        assert paired == image.replace("/Images/", "/Masks/").replace(".JPG", ".png")
    assert visa(tmp_path, category="pcb1", split="train") == samples.where(category="pcb1", split="train")
    (tmp_path / "split_csv" / "1cls.csv").rename(tmp_path / "1cls.csv")
    assert visa(tmp_path) == samples


def test_lists_that_lie_elsewhere(tmp_path: Path) -> None:
    tree(tmp_path / "visa")
    before = visa(tmp_path / "visa")
    (tmp_path / "visa" / "split_csv").rename(tmp_path / "lists")
    assert visa(tmp_path / "visa", lists=tmp_path / "lists") == before
    with pytest.raises(LayoutError, match=r"lists holds no 2cls_fewshot\.csv"):
        visa(tmp_path / "visa", split_csv="2cls_fewshot", lists=tmp_path / "lists")
    visa_prepared(tmp_path / "prepared")
    with pytest.raises(UsageError, match="lists has no effect"):
        visa(tmp_path / "prepared", lists=tmp_path / "lists")


def test_downloaded_order_does_not_depend_on_the_lists(tmp_path: Path) -> None:
    tree(tmp_path)
    before = visa(tmp_path)
    path = tmp_path / "split_csv" / "1cls.csv"
    head, *lines = path.read_text().splitlines()
    path.write_text("\n".join([head, *sorted(lines)]) + "\n")
    assert visa(tmp_path) == before


def test_prepared(tmp_path: Path) -> None:
    visa_prepared(tmp_path)
    samples = visa(tmp_path)
    assert visa(tmp_path / "1cls") == samples
    assert (len(samples.train), len(samples.test.normal), len(samples.test.anomalous)) == (3, 1, 1)
    assert samples.anomalous.table["defect"].to_list() == ["anomaly"]
    assert samples.anomalous.table["mask"][0].endswith("ground_truth/bad/000.png")
    with pytest.raises(LayoutError, match=r"neither 2cls_highshot\.csv"):
        visa(tmp_path, split_csv="2cls_highshot")
    with pytest.raises(LayoutError, match="one-class"):
        visa(tmp_path / "1cls", split_csv="2cls_highshot")
    (tmp_path / "1cls" / "candle" / "ground_truth" / "bad" / "000.png").unlink()
    with pytest.raises(MaskError, match=r"000\.JPG"):
        visa(tmp_path)


def test_prepared_two_class(tmp_path: Path) -> None:
    visa_prepared(tmp_path)
    folder = tmp_path / "1cls" / "candle"
    (folder / "ground_truth" / "test").mkdir()
    (folder / "ground_truth" / "bad").rename(folder / "ground_truth" / "test" / "bad")
    draw_image(folder / "train" / "bad" / "001.JPG")
    with pytest.raises(LayoutError, match="two-class"):
        visa(tmp_path / "1cls")
    (tmp_path / "1cls").rename(tmp_path / "2cls_highshot")
    with pytest.raises(MaskError, match=r"001\.JPG"):
        visa(tmp_path, split_csv="2cls_highshot")
    draw_image(tmp_path / "2cls_highshot" / "candle" / "ground_truth" / "train" / "bad" / "001.png")
    assert len(visa(tmp_path, split_csv="2cls_highshot").train.anomalous) == 1


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"neither 1cls\.csv"):
        visa(tmp_path)
    tree(tmp_path)
    with pytest.raises(UnknownName, match="'1cls'"):
        visa(tmp_path, split_csv="1class")  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="'candle'"):
        visa(tmp_path, category="candel")
    (tmp_path / "pcb1" / "Data" / "Images" / "Normal" / "0002.JPG").unlink()
    (tmp_path / "pcb1" / "Data" / "Masks" / "Anomaly" / "001.png").unlink()
    with pytest.raises(LayoutError, match=r"names 2 files .*pcb1/Data/Images/Normal/0002\.JPG"):
        visa(tmp_path)
    assert len(visa(tmp_path, category="candle")) == 6
    write_csv(
        tmp_path / "split_csv" / "1cls.csv",
        [("object", "split", "label", "image"), ("candle", "train", "normal", "x.JPG")],
    )
    with pytest.raises(LayoutError, match="has the columns"):
        visa(tmp_path)
    head = ("object", "split", "label", "image", "mask")
    write_csv(tmp_path / "split_csv" / "1cls.csv", [head, ("candle", "train", "good", "x.JPG", "")])
    with pytest.raises(LayoutError, match="got good"):
        visa(tmp_path)
    write_csv(
        tmp_path / "split_csv" / "1cls.csv",
        [head, ("candle", "test", "anomaly", "candle/Data/Images/Anomaly/000.JPG", "")],
    )
    with pytest.raises(LayoutError, match="1 anomalous image without a mask"):
        visa(tmp_path)


def test_published_totals() -> None:
    """VisA's paper and README: 9,621 normal and 1,200 anomalous images, split 8,659/962, 60/40 and 20/80."""
    totals = {name: [sum(counts[name][k] for counts in COUNTS.values()) for k in range(4)] for name in SPLITS}
    assert totals == {
        "1cls": [8659, 0, 962, 1200],
        "2cls_highshot": [5773, 720, 3848, 480],
        "2cls_fewshot": [1924, 240, 7697, 960],
    }
    for lists in COUNTS.values():
        assert {(four[0] + four[2], four[1] + four[3]) for four in lists.values()} == {
            (lists["1cls"][0] + lists["1cls"][2], 100)
        }


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("KIZU_DATA"), reason="KIZU_DATA is not set")
@pytest.mark.parametrize("name", SPLITS)
def test_real_lists(name: str) -> None:
    table = read_split(Path(os.environ["KIZU_DATA"]) / "visa-splits" / f"{name}.csv")
    assert table.height == 10_821
    columns = table.select("image", "category", "label", "split").iter_rows()
    rows = [
        Row(Path("/") / image, category, "anomaly" if label else "good", label, split)
        for image, category, label, split in columns
    ]
    samples = to_samples(rows, "visa")
    assert compare_counts(samples, expected_counts(name)) == []  # type: ignore[arg-type]
    assert table["category"].n_unique() == 12
