"""data check: each kind of fault is found, and a clean set passes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from trees import draw_image, folder, ksdd, mask, mvtec_category, visa
from trees import magnetic_tile as tiles

from kizu.datasets.checking import check
from kizu.errors import UnknownName


def problems(name: str, path: Path) -> str:
    return "\n".join(line for line in check(name, path).lines if line.startswith("problem: "))


def test_clean(tmp_path: Path) -> None:
    folder(tmp_path)
    steps: list[tuple[int, int]] = []
    report = check("folder", tmp_path, progress=lambda done, total: steps.append((done, total)))
    assert report.ok, report.lines
    assert steps == [(n, 5) for n in range(1, 6)]
    assert "licence: your own" in report.lines
    assert any("2 anomalous images have no mask" in line for line in report.lines)
    assert report.lines[-1].startswith("no problem: 5 images")


def test_layout_errors_are_reported(tmp_path: Path) -> None:
    assert "holds no images" in problems("folder", tmp_path)
    with pytest.raises(UnknownName, match="'mvtec'"):
        check("mvtek", tmp_path)


def test_counts(tmp_path: Path) -> None:
    mvtec_category(tmp_path / "bottle")
    found = problems("mvtec", tmp_path)
    assert "bottle, train, normal: 4 images where 209 are published" in found
    assert "bottle, test, anomalous: 3 images where 63 are published" in found
    mvtec_category(tmp_path / "gear")
    (tmp_path / "bottle").rename(tmp_path / "gear2")
    report = check("mvtec", tmp_path)
    assert any(line.startswith("note: no counts are published for: gear, gear2") for line in report.lines)
    ksdd(tmp_path / "ksdd")
    assert "8 normal and 4 defective images where 347 and 52" in problems("ksdd", tmp_path / "ksdd")
    tiles(tmp_path / "tiles")
    assert "blowhole: 0 images where 115 are published" in problems("magnetic_tile", tmp_path / "tiles")


def test_damaged_images_and_masks(tmp_path: Path) -> None:
    mvtec_category(tmp_path / "gear")
    (tmp_path / "gear" / "train" / "good" / "001.png").write_bytes(b"")
    (tmp_path / "gear" / "ground_truth" / "dent" / "000_mask.png").write_text("x")
    mask(tmp_path / "gear" / "ground_truth" / "scratch" / "000_mask.png", size=(4, 4))
    found = problems("mvtec", tmp_path)
    assert "3 images or masks cannot be used" in found
    assert "0 bytes" in found
    assert "is not an image" in found
    assert "4 x 4 pixels but its image 12 x 16" in found


def test_labels_against_masks(tmp_path: Path) -> None:
    ksdd(tmp_path)
    mask(tmp_path / "kos01" / "Part0_label.bmp")
    shutil.copy(tmp_path / "kos01" / "Part1_label.bmp", tmp_path / "kos02" / "Part2_label.bmp")
    names = [f"kos{item:02}/Part{part}.jpg" for item in range(1, 5) for part in range(3)]
    rows = "".join(f"{name},{int('Part2' in name)},test\n" for name in names)
    (tmp_path / "images.csv").write_text("image,defect,split\n" + rows)
    found = problems("ksdd", tmp_path)
    assert "1 normal image has a mask that marks a defect" in found
    assert "kos01/Part0.jpg" in found
    assert "1 anomalous image has a mask that marks nothing" in found
    assert "kos02/Part2.jpg" in found


def test_files_that_occur_twice(tmp_path: Path) -> None:
    mvtec_category(tmp_path / "gear")
    base = tmp_path / "gear"
    shutil.copy(base / "train" / "good" / "000.png", base / "train" / "good" / "100.png")
    shutil.copy(base / "train" / "good" / "001.png", base / "test" / "good" / "100.png")
    shutil.copy(base / "test" / "good" / "000.png", base / "test" / "dent" / "000.png")
    found = problems("mvtec", tmp_path)
    assert "1 image occurs more than once" in found
    assert "1 image occurs in both train and test" in found
    assert "1 image occurs both as normal and as anomalous" in found


def test_images_that_the_list_of_visa_forgets(tmp_path: Path) -> None:
    visa(tmp_path)
    draw_image(tmp_path / "candle" / "Data" / "Images" / "Normal" / "0099.JPG", 99)
    found = problems("visa", tmp_path)
    assert found.count("0099.JPG") == 1
    assert "0099.JPG (lies in candle/Data/Images/Normal/, and 1cls.csv does not name it)" in found
    assert "candle, train, normal: 3 images where 900 are published" in found


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("KIZU_DATA"), reason="KIZU_DATA is not set")
@pytest.mark.parametrize(
    ("name", "folder_name"), [("mvtec", "mvtec-screw"), ("ksdd", "ksdd"), ("magnetic_tile", "magnetic-tile")]
)
def test_real_sets_are_whole(name: str, folder_name: str) -> None:
    report = check(name, Path(os.environ["KIZU_DATA"]) / folder_name)
    assert report.ok, report.lines
