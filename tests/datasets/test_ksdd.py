"""ksdd: labels from masks or from images.csv, and the split by item."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from trees import draw_image, mask, write_csv
from trees import ksdd as tree

from kizu.datasets.ksdd import ksdd
from kizu.errors import LayoutError, MaskError


def test_split_by_item_and_labels_from_masks(tmp_path: Path) -> None:
    tree(tmp_path)
    samples = ksdd(tmp_path)
    found = {
        (Path(image).parent.name, Path(image).stem): (label, split)
        for image, label, split in samples.table.select("image", "label", "split").iter_rows()
    }
    assert found["kos01", "Part0"] == (0, "train")
    assert found["kos03", "Part2"] == (1, None)
    assert found["kos02", "Part1"] == (0, "test")
    assert found["kos04", "Part2"] == (1, "test")
    assert (len(samples.train), len(samples.test), len(samples)) == (4, 6, 12)
    assert not set(samples.train.table["group"]) & set(samples.test.table["group"])
    assert samples.train.anomalous.paths == []
    assert ksdd(tmp_path, split="test") == samples.test


def test_labels_and_split_from_csv(tmp_path: Path) -> None:
    tree(tmp_path)
    names = [str(Path(path).relative_to(tmp_path)) for path in ksdd(tmp_path).paths]
    table = [
        (name, int(name.endswith("2.jpg")), "unused_defect" if name.endswith("2.jpg") else "train")
        for name in names
    ]
    write_csv(tmp_path / "images.csv", [("image", "defect", "split"), *table])
    samples = ksdd(tmp_path)
    assert (len(samples.train), len(samples.test), len(samples.anomalous)) == (8, 0, 4)
    assert samples.anomalous.table["split"].null_count() == 4
    write_csv(
        tmp_path / "images.csv", [("image", "defect", "split"), *table[1:], ("kos99/Part0.jpg", 0, "train")]
    )
    with pytest.raises(
        LayoutError,
        match=r"1 image not in the file \(kos01/Part0\.jpg\), "
        r"1 in the file and not on disk \(kos99/Part0\.jpg\)",
    ):
        ksdd(tmp_path)
    write_csv(tmp_path / "images.csv", [("image", "defect", "split"), (names[0], "yes", "train")])
    with pytest.raises(LayoutError, match="got yes"):
        ksdd(tmp_path)
    write_csv(tmp_path / "images.csv", [("image", "split")])
    with pytest.raises(LayoutError, match="are needed"):
        ksdd(tmp_path)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="no item folders"):
        ksdd(tmp_path)
    tree(tmp_path)
    draw_image(tmp_path / "kos02" / "Part7.jpg")
    with pytest.raises(MaskError, match=r"without a mask: Part7\.jpg"):
        ksdd(tmp_path)
    mask(tmp_path / "kos02" / "Part7_label.bmp")
    mask(tmp_path / "kos02" / "Part7_label.png")
    with pytest.raises(MaskError, match="two masks"):
        ksdd(tmp_path)


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("KIZU_DATA"), reason="KIZU_DATA is not set")
def test_real_commutators(tmp_path: Path) -> None:
    """Counts as the copy's README gives them; the rules by item and by mask give what its images.csv says."""
    root = Path(os.environ["KIZU_DATA"]) / "ksdd"
    samples = ksdd(root)
    assert (
        len(samples.train),
        len(samples.test.normal),
        len(samples.test.anomalous),
        len(samples.anomalous),
    ) == (173, 160, 24, 50)
    for folder in root.glob("kos*"):
        (tmp_path / folder.name).symlink_to(folder)
    columns = ["label", "split", "group", "defect"]
    assert ksdd(tmp_path).table.select(columns).equals(samples.table.select(columns))
