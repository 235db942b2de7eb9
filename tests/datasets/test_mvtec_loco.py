"""mvtec_loco: kinds of defect, masks that are folders, saturation areas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from trees import draw_image, mask
from trees import mvtec_loco as tree

from kizu.datasets import checking
from kizu.datasets.mvtec_loco import COUNTS, defects, expected_counts, mvtec_loco
from kizu.errors import LayoutError, MaskError, UnknownName
from kizu.loader import masks_for
from kizu.masks import open_mask


def test_splits_and_kinds(tmp_path: Path) -> None:
    tree(tmp_path)
    samples = mvtec_loco(tmp_path)
    assert (len(samples.train), len(samples.test.normal), len(samples)) == (3, 2, 9)
    assert samples.table["split"].null_count() == 1
    assert samples.anomalous.table["defect"].to_list() == ["structural", "logical", "logical"]
    assert mvtec_loco(tmp_path / "pushpins") == samples
    assert mvtec_loco(tmp_path, category="pushpins", split="test") == samples.test
    with pytest.raises(UnknownName, match="'pushpins'"):
        mvtec_loco(tmp_path, category="pushpin")


def test_masks_of_an_image_are_united(tmp_path: Path) -> None:
    tree(tmp_path)
    structural = mvtec_loco(tmp_path).where(defect="structural")
    want = np.zeros((12, 16), bool)
    want[2:6, 3:9] = want[4:10, 6:12] = True
    np.testing.assert_array_equal(masks_for(structural, (12, 16))[0], want)
    folder = Path(structural.table["mask"][0]).parent
    mask(folder / "002.png", size=(12, 15))
    with pytest.raises(MaskError, match="12 x 15 pixels but its image 12 x 16"):
        open_mask(folder / "000.png", rule="folder")


def test_defects_and_their_saturation(tmp_path: Path) -> None:
    tree(tmp_path)
    samples = mvtec_loco(tmp_path)
    found = [
        [(d.name, int(d.mask.sum()), d.saturation) for d in defects(m)]
        for m in samples.anomalous.table["mask"]
    ]
    assert found == [[("scratch", 24, 24), ("dent", 36, 18)], [("missing", 24, 10)], [("extra", 24, 24)]]
    one = defects(
        mask(tmp_path / "pushpins/ground_truth/structural_anomalies/000/000.png", value=254, box=(2, 3, 3, 4))
    )[0]
    assert (one.mask.sum(), one.saturation) == (1, 1), "half of one pixel is one pixel"


def test_defects_that_cannot_be_read(tmp_path: Path) -> None:
    tree(tmp_path)
    path = mvtec_loco(tmp_path).where(defect="structural").table["mask"][0]
    mask(Path(path), value=7)
    with pytest.raises(MaskError, match=r"\(250, 251, 254, 255\), got 7"):
        defects(path)
    config = tmp_path / "pushpins" / "defects_config.json"
    entries = json.loads(config.read_text())
    entries[0]["saturation_threshold"] = 1.5
    config.write_text(json.dumps(entries))
    with pytest.raises(LayoutError, match=r"saturation_threshold of scratch is 1\.5"):
        defects(path)
    config.unlink()
    with pytest.raises(LayoutError, match="it comes with the data set"):
        defects(path)
    lines = checking.check("mvtec_loco", tmp_path).lines
    assert any(line.startswith("problem: sPRO cannot be measured: ") for line in lines)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="holds no category"):
        mvtec_loco(tmp_path)
    tree(tmp_path)
    draw_image(tmp_path / "pushpins" / "test" / "structural_anomalies" / "007.png")
    mask(tmp_path / "pushpins" / "ground_truth" / "structural_anomalies" / "008" / "000.png")
    with pytest.raises(
        MaskError, match=r"without a mask \(007\.png\), 1 mask folders without an image \(008\)"
    ):
        mvtec_loco(tmp_path)
    draw_image(tmp_path / "pushpins" / "test" / "scratch" / "000.png")
    with pytest.raises(LayoutError, match="holds scratch beside good"):
        mvtec_loco(tmp_path)


def test_counts(tmp_path: Path) -> None:
    assert [sum(column) for column in zip(*COUNTS.values(), strict=True)] == [
        1772,
        304,
        575,
        432,
        561,
    ]  # IJCV 2022, table 1
    assert sum(expected_counts().values()) == 3644
    tree(tmp_path)
    lines = checking.check("mvtec_loco", tmp_path).lines
    assert "problem: pushpins, structural: 1 image where 81 are published" in lines
    assert "problem: pushpins, train, normal: 3 images where 372 are published" in lines
