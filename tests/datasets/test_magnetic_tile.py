"""magnetic_tile: labels, exposures, groups and the four masks that mark nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from trees import draw_image, mask, write_csv
from trees import magnetic_tile as tree

from kizu.datasets.magnetic_tile import COUNTS, EMPTY_MASKS, expected_counts, magnetic_tile
from kizu.errors import EmptyData, LayoutError, MaskError, UnknownName
from kizu.loader import masks_for


def test_rows(tmp_path: Path) -> None:
    tree(tmp_path)
    samples = magnetic_tile(tmp_path)
    assert samples.table["defect"].to_list() == ["crack", "good", "good", "good", "good", "uneven"]
    assert samples.labels.tolist() == [1, 0, 0, 0, 0, 1]
    assert samples.table["view"].to_list() == ["exp2", "exp1", "exp1", "exp2", "exp3", "exp3"]
    assert samples.table["split"].null_count() == 6
    assert len(magnetic_tile(tmp_path, defect="crack")) == 1
    with pytest.raises(UnknownName, match="'crack'"):
        magnetic_tile(tmp_path, defect="cracks")


def test_groups_by_number(tmp_path: Path) -> None:
    """Frames 10, 11, 12 | 500 (free), 501 (crack) | 45042: a gap of 200 does not part, 201 does."""
    tree(tmp_path)
    groups = {
        Path(image).stem.split("_")[-1]: group
        for image, group in magnetic_tile(tmp_path).table.select("image", "group").iter_rows()
    }
    assert groups["10"] == groups["11"] == groups["12"]
    assert groups["500"] == groups["501"]
    assert len({groups["12"], groups["500"], groups["45042"]}) == 3
    for number in (212, 701 + 1):
        draw_image(tmp_path / "MT_Free" / "Imgs" / f"exp1_num_{number}.jpg")
        mask(tmp_path / "MT_Free" / "Imgs" / f"exp1_num_{number}.png", value=0)
    samples = magnetic_tile(tmp_path)
    groups = {
        Path(image).stem.split("_")[-1]: group
        for image, group in samples.table.select("image", "group").iter_rows()
    }
    assert groups["12"] == groups["212"] != groups["500"]
    assert groups["501"] != groups["702"]


def test_groups_from_csv(tmp_path: Path) -> None:
    tree(tmp_path)
    names = [str(Path(path).relative_to(tmp_path)) for path in magnetic_tile(tmp_path).paths]
    write_csv(
        tmp_path / "groups.csv", [("image", "group"), *((name, f"g{n // 2}") for n, name in enumerate(names))]
    )
    assert magnetic_tile(tmp_path).table["group"].to_list() == ["g0", "g0", "g1", "g1", "g2", "g2"]
    write_csv(
        tmp_path / "groups.csv",
        [("image", "group"), *((name, "g") for name in names[1:]), ("MT_Free/Imgs/exp1_num_9.jpg", "g")],
    )
    with pytest.raises(
        LayoutError, match=r"1 image not in the file .*1 in the file and not on disk \(exp1_num_9\.jpg\)"
    ):
        magnetic_tile(tmp_path)
    write_csv(tmp_path / "groups.csv", [("image", "tile")])
    with pytest.raises(LayoutError, match="image and group are needed"):
        magnetic_tile(tmp_path)


def test_known_empty_masks_stay_out_of_pixel_metrics(tmp_path: Path) -> None:
    tree(tmp_path)
    samples = magnetic_tile(tmp_path)
    uneven = samples.where(defect="uneven")
    assert uneven.labels.tolist() == [1]
    assert uneven.table["mask"].to_list() == [None]
    assert len(samples.pixel_labelled) == 5
    assert masks_for(samples.where(defect="crack"), (12, 16)).sum() == 4 * 6  # value 176 counts
    assert len(EMPTY_MASKS) == 4


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="MT_<class>/Imgs"):
        magnetic_tile(tmp_path)
    tree(tmp_path)
    draw_image(tmp_path / "MT_Crack" / "Imgs" / "exp1_num_77.jpg")
    with pytest.raises(MaskError, match=r"without a mask: exp1_num_77\.jpg"):
        magnetic_tile(tmp_path)
    mask(tmp_path / "MT_Crack" / "Imgs" / "exp1_num_77.png")
    mask(tmp_path / "MT_Crack" / "Imgs" / "exp1_num_78.png")
    with pytest.raises(MaskError, match=r"without an image: exp1_num_78\.png"):
        magnetic_tile(tmp_path)
    draw_image(tmp_path / "MT_Crack" / "Imgs" / "exp1_num_78.jpg")
    draw_image(tmp_path / "MT_Crack" / "Imgs" / "tile.jpg")
    mask(tmp_path / "MT_Crack" / "Imgs" / "tile.png")
    with pytest.raises(LayoutError, match="exp3_num_45042"):
        magnetic_tile(tmp_path)


def test_without_free_tiles(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "MT_Free").rename(tmp_path / "free")
    with pytest.raises(EmptyData, match="no good images"):
        magnetic_tile(tmp_path)


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("KIZU_DATA"), reason="KIZU_DATA is not set")
def test_real_tiles(tmp_path: Path) -> None:
    root = Path(os.environ["KIZU_DATA"]) / "magnetic-tile"
    samples = magnetic_tile(root)
    assert dict(samples.table.group_by("defect").len().iter_rows()) == COUNTS
    assert (len(samples.normal), len(samples.anomalous)) == tuple(expected_counts().values())
    assert len(samples.anomalous) - len(samples.pixel_labelled.anomalous) == 4
    for folder in root.glob("MT_*"):
        (tmp_path / folder.name).symlink_to(folder)
    inferred = magnetic_tile(tmp_path)  # without groups.csv: the same partition
    pairs = set(zip(samples.table["group"], inferred.table["group"], strict=True))
    assert len(pairs) == samples.table["group"].n_unique() == inferred.table["group"].n_unique() == 202
