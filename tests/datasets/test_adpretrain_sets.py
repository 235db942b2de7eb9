"""btad, mpdd and mvtec3d: their layouts, their masks and the sizes of the test sets that ADPretrain names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from trees import TREES, draw_image, mask

from kizu import registry
from kizu.datasets import btad, mpdd, mvtec3d
from kizu.errors import EmptyData, LayoutError, MaskError, UnknownName
from kizu.loader import masks_for
from kizu.samples import Samples

READERS: dict[str, Callable[..., Samples]] = {"btad": btad, "mpdd": mpdd, "mvtec3d": mvtec3d}
TEST_SIZES = {"mvtec": 1725, "visa": 2162, "btad": 741, "mvtec3d": 1197, "mpdd": 458}
"""Images in the published lists of aligned references, one entry for each test image."""
PUBLISHED = {"btad": 2540, "mpdd": 1346, "mvtec3d": 4147}
"""Images of the whole data set."""


def module(name: str) -> ModuleType:
    return registry.module("datasets", name)


@pytest.mark.parametrize("name", TEST_SIZES)
def test_published_totals(name: str) -> None:
    counts = module(name).expected_counts()
    assert sum(n for (_, split, _), n in counts.items() if split == "test") == TEST_SIZES[name]
    assert sum(counts.values()) == PUBLISHED.get(name, sum(counts.values()))
    assert all(label == 0 for (_, split, label) in counts if split != "test")


@pytest.mark.parametrize("name", READERS)
def test_one_product_and_filters(name: str, tmp_path: Path) -> None:
    TREES[name](tmp_path)
    samples = READERS[name](tmp_path)
    for product in samples.table["category"].unique():
        alone = READERS[name](tmp_path / product)
        assert alone == samples.where(category=product) == READERS[name](tmp_path, category=product)
    assert READERS[name](tmp_path, split="test") == samples.test
    with pytest.raises(UnknownName, match="category named 'bagle'"):
        READERS[name](tmp_path, category="bagle")


@pytest.mark.parametrize("name", READERS)
def test_wrong_folders_are_refused(name: str, tmp_path: Path) -> None:
    draw_image(tmp_path / "good" / "0.png")
    with pytest.raises(LayoutError, match=r"holds no (category|product): .*train/.* there are: good"):
        READERS[name](tmp_path)
    with pytest.raises(LayoutError, match="there is no such folder"):
        READERS[name](tmp_path / "nothing")


def test_btad_pairs_by_stem(tmp_path: Path) -> None:
    """Images and masks of any suffix; the folder ground_truth/ok, empty in the archive, is no class."""
    TREES["btad"](tmp_path)
    image = tmp_path / "02" / "test" / "ko" / "0000.png"
    image.rename(image.with_suffix(".bmp"))
    samples = btad(tmp_path)
    assert (len(samples.train), len(samples.test.normal), len(samples.anomalous)) == (6, 2, 4)
    assert samples.table["category"].unique().sort().to_list() == ["02", "03"]
    assert set(samples.anomalous.table["defect"]) == {"ko"}
    for picture, paired in samples.anomalous.table.select("image", "mask").iter_rows():
        assert Path(paired).parts[-4:-1] == (Path(picture).parts[-4], "ground_truth", "ko")
        assert Path(paired).stem == Path(picture).stem
    (tmp_path / "03" / "ground_truth" / "ko" / "0001.bmp").unlink()
    with pytest.raises(MaskError, match=r"1 image without a mask: 0001\.bmp"):
        btad(tmp_path)


def test_faint_masks_count(tmp_path: Path) -> None:
    """mpdd and mvtec3d: a pixel is a defect where it is not 0. By "half" these masks would be refused."""
    for name in ("mpdd", "mvtec3d"):
        TREES[name](tmp_path / name)
        samples = READERS[name](tmp_path / name).anomalous
        areas = masks_for(samples, (12, 16)).sum(axis=(1, 2))
        assert (areas == 4 * 6).all(), name
        assert module(name).MASK_RULE == "nonzero"


def test_mvtec3d_reads_colour_only(tmp_path: Path) -> None:
    TREES["mvtec3d"](tmp_path)
    samples = mvtec3d(tmp_path)
    assert {Path(path).parent.name for path in samples.paths} == {"rgb"}
    assert (len(samples.train), len(samples.test.normal), len(samples.anomalous)) == (3, 2, 2)
    validation = samples.table.filter(samples.table["split"].is_null())
    assert (validation.height, set(validation["label"])) == (1, {0})
    assert samples.normal.table["mask"].null_count() == 6
    assert set(samples.anomalous.table["defect"]) == {"combined"}
    mask(tmp_path / "bagel" / "test" / "combined" / "gt" / "009.png")
    with pytest.raises(MaskError, match=r"1 mask without an image: 009\.png"):
        mvtec3d(tmp_path)
    (tmp_path / "bagel" / "test" / "combined" / "gt" / "009.png").unlink()
    draw_image(tmp_path / "bagel" / "test" / "hole" / "000.png")
    with pytest.raises(LayoutError, match="hole holds no folder rgb"):
        mvtec3d(tmp_path)
    (tmp_path / "bagel" / "test" / "hole" / "rgb").mkdir()
    with pytest.raises(EmptyData, match="holds no image"):
        mvtec3d(tmp_path)
