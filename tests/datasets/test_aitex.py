"""aitex: patches at drawn places, every defective patch shows its defect, groups whole, copies made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import aitex as tree
from trees import draw_image, mask

from kizu.datasets.aitex import aitex
from kizu.datasets.checking import check
from kizu.errors import LayoutError, MaskError, OutputExists, UsageError


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_patches_are_cut_out_of_their_strip(tmp_path: Path) -> None:
    tree(tmp_path)
    samples = aitex(tmp_path, crops=3, train_images=2)
    assert (len(samples.train), len(samples.test.normal), len(samples.test.anomalous)) == (6, 60, 3)
    assert set(samples.anomalous.table["defect"]) == {"broken_end", "fuzzyball", "weft_crack"}
    assert not set(samples.train.table["group"]) & set(samples.test.table["group"])
    assert samples.table["group"].n_unique() == 25
    assert set(samples.normal.table["view"]) == {"fabric 00", "fabric 01"}
    for path, group in samples.table.select("image", "group").iter_rows():
        (strip,) = tmp_path.glob(f"*_images/**/{group}.png")
        left = int(Path(path).stem.rpartition("_x")[2])
        assert np.array_equal(pixels(path), pixels(strip)[:, left : left + 256])


def test_every_defective_patch_shows_the_middle_of_its_largest_defect(tmp_path: Path) -> None:
    tree(tmp_path)
    middles = {"0111_002_00": (4, 4), "0112_019_01": (119, 419), "0113_036_01": (227, 589)}
    places = set()
    for seed in range(6):
        for path, cut, group in (
            aitex(tmp_path, crops=1, train_images=1, seed=seed)
            .anomalous.table.select("image", "mask", "group")
            .iter_rows()
        ):
            left = int(Path(path).stem.rpartition("_x")[2])
            row, column = middles[group]
            assert pixels(cut)[row, column - left] == 255
            whole = np.maximum.reduce([pixels(m) for m in (tmp_path / "Mask_images").glob(f"{group}_mask*")])
            assert np.array_equal(pixels(cut), whole[:, left : left + 256])
            places.add((group, left))
    assert len({left for group, left in places if group == "0112_019_01"}) > 3, "places are drawn"


def test_draws_depend_on_the_seed_and_on_the_strip_alone(tmp_path: Path) -> None:
    tree(tmp_path)
    names = [Path(path).name for path in aitex(tmp_path, crops=1, train_images=1).paths]
    assert names != [Path(path).name for path in aitex(tmp_path, crops=1, train_images=1, seed=1).paths]
    draw_image(tmp_path / "NODefect_images" / "f" / "0200_000_01.png", 3, size=(256, 600), mode="L")
    more = [Path(path).name for path in aitex(tmp_path, crops=1, train_images=1).paths]
    assert set(names) < set(more)


def test_copies_are_made_once_whole_and_anew_when_a_strip_changes(tmp_path: Path) -> None:
    tree(tmp_path / "data")
    samples = aitex(tmp_path / "data", crops=1, train_images=1, copies=tmp_path / "out")
    assert not (tmp_path / "data" / "kizu_copies").exists()
    assert all(Path(path).is_relative_to(tmp_path / "out") for path in samples.paths)
    times = [Path(path).stat().st_mtime_ns for path in samples.paths]
    again = aitex(tmp_path / "data", crops=1, train_images=2, copies=tmp_path / "out")
    assert [Path(path).stat().st_mtime_ns for path in again.paths] == times
    Path(samples.paths[0]).unlink()
    assert aitex(tmp_path / "data", crops=1, train_images=1, copies=tmp_path / "out") == samples
    strip = tmp_path / "data" / "Defect_images" / "0111_002_00.png"
    draw_image(strip, 99, size=(256, 600), mode="L")
    aitex(tmp_path / "data", crops=1, train_images=1, copies=tmp_path / "out")
    (patch,) = (tmp_path / "out").rglob("images/0111_*.png")
    left = int(patch.stem.rpartition("_x")[2])
    assert np.array_equal(pixels(patch), pixels(strip)[:, left : left + 256])


def test_copies_of_all_sets_below_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIZU_COPIES", str(tmp_path / "copies"))
    for place in ("a/data", "b/data"):
        tree(tmp_path / place)
        draw_image(tmp_path / place / "NODefect_images" / f"{ord(place[0])}_000_00.png", 1, size=(256, 300))
        aitex(tmp_path / place, crops=1)
        assert not (tmp_path / place / "kizu_copies").exists()
    first, second = (tmp_path / "copies").iterdir()
    assert first.name[:5] == second.name[:5] == "data_"
    aitex(tmp_path / "a" / "data", crops=1, copies=tmp_path / "said")
    assert (tmp_path / "said").is_dir()


def test_a_failure_leaves_nothing_and_a_foreign_folder_stays(tmp_path: Path) -> None:
    tree(tmp_path)
    mask(tmp_path / "Mask_images" / "0113_036_01_mask.png", size=(256, 599))
    with pytest.raises(MaskError, match="They must agree"):
        aitex(tmp_path, train_images=1)
    assert list((tmp_path / "kizu_copies").iterdir()) == []
    mask(tmp_path / "Mask_images" / "0113_036_01_mask.png", size=(256, 600), value=0)
    with pytest.raises(MaskError, match="marks no defect"):
        aitex(tmp_path, train_images=1)
    mask(tmp_path / "Mask_images" / "0113_036_01_mask.png", size=(256, 600))
    place = tmp_path / "kizu_copies" / "aitex_5x256_seed0"
    place.mkdir()
    (place / "notes.txt").write_text("mine")
    with pytest.raises(OutputExists, match="kizu did not write it"):
        aitex(tmp_path, train_images=1)
    assert (place / "notes.txt").read_text() == "mine"


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="no NODefect_images, Defect_images, Mask_images"):
        aitex(tmp_path)
    tree(tmp_path)
    with pytest.raises(UsageError, match="of 22 good strips leaves none"):
        aitex(tmp_path, train_images=22)
    with pytest.raises(UsageError, match="9 places"):
        aitex(tmp_path, crops=400, train_images=1)
    (tmp_path / "Mask_images" / "0111_002_00_mask.png").rename(
        tmp_path / "Mask_images" / "0099_002_00_mask.png"
    )
    with pytest.raises(
        MaskError, match=r"0111_002_00\.png\), 1 mask without a strip \(0099_002_00_mask\.png"
    ):
        aitex(tmp_path, train_images=1)
    draw_image(tmp_path / "Defect_images" / "holiday.png")
    with pytest.raises(LayoutError, match="not so: holiday"):
        aitex(tmp_path, train_images=1)
    draw_image(tmp_path / "NODefect_images" / "0111_002_00.png")
    with pytest.raises(LayoutError, match="several strips of one name: 0111_002_00"):
        aitex(tmp_path, train_images=1)


def test_short_strips_are_refused(tmp_path: Path) -> None:
    tree(tmp_path)
    draw_image(tmp_path / "NODefect_images" / "0050_000_00.png", size=(200, 600), mode="L")
    with pytest.raises(LayoutError, match="200 x 600 pixels"):
        aitex(tmp_path, train_images=1)


@pytest.mark.slow
def test_data_check_counts_the_patches_of_strips_with_a_mask(tmp_path: Path) -> None:
    """105 defective strips, two without a usable mask; 140 good ones, 20 of them to learn from."""
    size = (256, 261)
    for number in range(140):
        draw_image(tmp_path / "NODefect_images" / f"{number:04}_000_00.png", number, size=size, mode="L")
    defective = [*(f"{number:04}_002_00" for number in range(140, 243)), "0100_025_08", "0106_010_03"]
    for number, name in enumerate(defective):
        draw_image(tmp_path / "Defect_images" / f"{name}.png", 200 + number, size=size, mode="L")
        if number < 103:
            mask(tmp_path / "Mask_images" / f"{name}_mask.png", size=size)
    report = check("aitex", tmp_path)
    assert report.ok, report.lines
    draw_image(tmp_path / "NODefect_images" / "0300_000_00.png", 5, size=size, mode="L")
    problems = [line for line in check("aitex", tmp_path).lines if line.startswith("problem")]
    assert "aitex, test, normal: 605 images where 600 are published" in "\n".join(problems)
