"""folder: each layout it takes, and each that it must refuse with the files in the message."""

from __future__ import annotations

from pathlib import Path

import pytest
from trees import draw_image, mask, mvtec_category, write_csv
from trees import folder as two_classes

import kizu
from kizu.datasets.folder import folder
from kizu.errors import EmptyData, LayoutError, MaskError, UnknownName, UsageError


def rows(samples: object, *columns: str) -> list[tuple[object, ...]]:
    return list(samples.table.select(columns).iter_rows())  # type: ignore[attr-defined]


def test_images_only(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg"):
        draw_image(tmp_path / "parts" / name)
    (tmp_path / "parts" / "notes.txt").touch()
    (tmp_path / "parts" / "empty").mkdir()
    samples = folder(tmp_path / "parts")
    assert samples.paths == [str(tmp_path / "parts" / "a.jpg"), str(tmp_path / "parts" / "b.png")]
    assert rows(samples, "label", "split", "category", "defect", "dataset")[0] == (
        0,
        "train",
        "parts",
        "good",
        "folder",
    )
    assert folder(tmp_path / "parts", category="gear").table["category"].to_list() == ["gear", "gear"]


def test_relative_path_and_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_image(tmp_path / "my parts" / "ü 1.png")
    monkeypatch.chdir(tmp_path)
    assert folder("my parts").paths == [str(tmp_path / "my parts" / "ü 1.png")]


def test_two_classes_have_no_split(tmp_path: Path) -> None:
    two_classes(tmp_path)
    samples = folder(tmp_path)
    assert rows(samples, "label", "defect", "split") == [(0, "good", None)] * 3 + [(1, "scratch", None)] * 2
    assert samples.table["mask"].null_count() == 5


@pytest.mark.parametrize("name", ["good", "GOOD", "ok", "Normal"])
def test_names_of_good(tmp_path: Path, name: str) -> None:
    draw_image(tmp_path / name / "a.png")
    draw_image(tmp_path / "ko" / "b.png")
    samples = folder(tmp_path)
    assert [Path(path).parent.name for path in samples.normal.paths] == [name]
    assert samples.anomalous.table["defect"].to_list() == ["ko"]


def test_own_name_of_good(tmp_path: Path) -> None:
    draw_image(tmp_path / "passed" / "a.png")
    with pytest.raises(EmptyData, match=r"no good images.*there are: passed"):
        folder(tmp_path)
    assert folder(tmp_path, good=("passed",)).labels.tolist() == [0]
    assert folder(tmp_path, good="Passed").labels.tolist() == [0]


def test_train_and_test(tmp_path: Path) -> None:
    mvtec_category(tmp_path)
    samples = folder(tmp_path)
    assert (len(samples.train), len(samples.test.normal), len(samples.test.anomalous)) == (4, 2, 3)
    assert samples.where(defect="dent").table["mask"].to_list() == [
        str(tmp_path / "ground_truth" / "dent" / "000_mask.png")
    ]
    assert folder(tmp_path, use_masks=False).table["mask"].null_count() == 9


def test_train_may_hold_images_directly_but_test_may_not(tmp_path: Path) -> None:
    draw_image(tmp_path / "train" / "a.png")
    assert rows(folder(tmp_path), "label", "split") == [(0, "train")]
    draw_image(tmp_path / "test" / "b.png")
    with pytest.raises(LayoutError, match="which are good"):
        folder(tmp_path)


def test_masks_by_class(tmp_path: Path) -> None:
    two_classes(tmp_path)
    mask(tmp_path / "masks" / "scratch" / "s1.bmp")
    mask(tmp_path / "masks" / "scratch" / "s0_label.png")
    assert [Path(name).name for name in folder(tmp_path).anomalous.table["mask"]] == [
        "s0_label.png",
        "s1.bmp",
    ]
    with pytest.raises(LayoutError, match="no such folder of masks"):
        folder(tmp_path, mask_folder="nowhere")


def test_masks_in_one_folder(tmp_path: Path) -> None:
    two_classes(tmp_path)
    mask(tmp_path / "flat" / "s0.png")
    mask(tmp_path / "flat" / "s1_gt.png")
    for place in ("flat", tmp_path / "flat"):
        samples = folder(tmp_path, mask_folder=place)
        assert len(samples) == 5
        assert len(samples.pixel_labelled) == 5


def test_masks_are_paired_by_name_and_not_by_order(tmp_path: Path) -> None:
    draw_image(tmp_path / "good" / "g.png")
    for name in ("2", "10", "1"):
        draw_image(tmp_path / "bad" / f"{name}.jpg")
        mask(tmp_path / "masks" / "bad" / f"{name}_mask.png")
    for image, paired in rows(folder(tmp_path).anomalous, "image", "mask"):
        assert Path(paired).stem == Path(image).stem + "_mask"


def test_missing_and_extra_masks(tmp_path: Path) -> None:
    two_classes(tmp_path)
    mask(tmp_path / "masks" / "scratch" / "s1.png")
    with pytest.raises(MaskError, match=r"1 image without a mask: s0\.png"):
        folder(tmp_path)
    mask(tmp_path / "masks" / "scratch" / "s0.png")
    mask(tmp_path / "masks" / "scratch" / "s7.png")
    with pytest.raises(MaskError, match=r"1 mask without an image: s7\.png"):
        folder(tmp_path)
    (tmp_path / "masks" / "scratch" / "s7.png").unlink()
    mask(tmp_path / "masks" / "scratch" / "s0_mask.png")
    with pytest.raises(MaskError, match=r"two masks: s0\.png, s0_mask\.png"):
        folder(tmp_path)
    (tmp_path / "masks" / "scratch" / "s0_mask.png").unlink()
    mask(tmp_path / "masks" / "dents" / "d0.png")
    with pytest.raises(MaskError, match=r"classes that have no images: dents/ \(1 mask\)"):
        folder(tmp_path)


def test_class_without_masks_when_others_have_them(tmp_path: Path) -> None:
    two_classes(tmp_path)
    draw_image(tmp_path / "dent" / "d0.png")
    for name in ("s0", "s1"):
        mask(tmp_path / "masks" / "scratch" / f"{name}.png")
    with pytest.raises(MaskError, match=r"masks/dent: 1 image without a mask: d0\.png"):
        folder(tmp_path)
    assert len(folder(tmp_path, use_masks=False)) == 6


def test_long_lists_are_cut_and_counted(tmp_path: Path) -> None:
    draw_image(tmp_path / "good" / "g.png")
    for number in range(13):
        draw_image(tmp_path / "bad" / f"{number:02}.png")
    (tmp_path / "masks" / "bad").mkdir(parents=True)
    with pytest.raises(MaskError, match=r"13 images without a mask: 00\.png, .*09\.png, and 3 more"):
        folder(tmp_path)


def test_flat_masks_of_one_name(tmp_path: Path) -> None:
    draw_image(tmp_path / "good" / "g.png")
    for name in ("bent", "cut"):
        draw_image(tmp_path / name / "0.png")
    mask(tmp_path / "masks" / "0.png")
    with pytest.raises(MaskError, match="cannot be distinguished"):
        folder(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="no such folder"):
        folder(tmp_path / "nowhere")
    with pytest.raises(EmptyData, match="holds no images"):
        folder(tmp_path)
    with pytest.raises(LayoutError, match="is a file"):
        folder(draw_image(tmp_path / "a.png"))


def test_no_good_images(tmp_path: Path) -> None:
    draw_image(tmp_path / "scratch" / "a.png")
    (tmp_path / "good").mkdir()
    with pytest.raises(EmptyData, match="no good images"):
        folder(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(EmptyData, match=r"train is there, but yields no image: it is empty"):
        folder(tmp_path)


def test_too_deep(tmp_path: Path) -> None:
    draw_image(tmp_path / "2024" / "may" / "good" / "a.png")
    with pytest.raises(LayoutError, match=r"2024/may/good"):
        folder(tmp_path)


def test_several_categories(tmp_path: Path) -> None:
    mvtec_category(tmp_path / "bottle")
    with pytest.raises(LayoutError, match=r"several data sets: bottle.*mvtec"):
        folder(tmp_path)


def test_images_beside_folders_of_images(tmp_path: Path) -> None:
    two_classes(tmp_path)
    draw_image(tmp_path / "a.png")
    with pytest.raises(LayoutError, match=r"both images \(a\.png\) and folders of images \(good, scratch\)"):
        folder(tmp_path)


def test_masks_among_images(tmp_path: Path) -> None:
    draw_image(tmp_path / "one" / "a.jpg")
    mask(tmp_path / "one" / "a.png")
    with pytest.raises(LayoutError, match=r"two images of one name: a\.jpg, a\.png"):
        folder(tmp_path / "one")
    draw_image(tmp_path / "two" / "a.jpg")
    mask(tmp_path / "two" / "a_label.png")
    with pytest.raises(LayoutError, match=r"masks beside images: a_label\.png"):
        folder(tmp_path / "two")
    draw_image(tmp_path / "three" / "a.jpg")
    mask(tmp_path / "three" / "masks" / "a.png")
    with pytest.raises(LayoutError, match="beside the mask folder masks/"):
        folder(tmp_path / "three")


def test_csv(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "list.CSV", [("image", "label"), ("a.png", 0)])
    assert folder(path).paths == [str(tmp_path / "a.png")]
    with pytest.raises(UsageError, match="columns of it"):
        folder(path, category="gear")
    with pytest.raises(UnknownName, match="'split'"):
        folder(write_csv(tmp_path / "bad.csv", [("image", "splits"), ("a.png", "train")]))


def test_the_line_of_the_readme_learns_from_every_layout(tmp_path: Path) -> None:
    """samples.to_learn.normal: of the split train where there is one, else of all images."""
    two_classes(tmp_path / "classes")
    mvtec_category(tmp_path / "splits")
    draw_image(tmp_path / "bare" / "a.png")
    for layout in ("classes", "splits", "bare"):
        samples = folder(tmp_path / layout)
        learned = samples.to_learn.normal
        assert len(learned) > 0, layout
        assert set(learned.labels.tolist()) == {0}
        assert "test" not in learned.table["split"].to_list()
    classes = folder(tmp_path / "classes")
    with pytest.raises(EmptyData, match=r"\.to_learn\.normal; \.train is empty"):
        kizu.detector("gaussian", "random/resnet10t@1", image_size=32).fit(classes.train.normal)
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    assert "model.fit(samples.to_learn.normal" in readme


@pytest.mark.parametrize("name", ["val", "Validation", "holdout", "calibration", "dev", "backup"])
def test_a_split_of_other_names_is_no_defect(tmp_path: Path, name: str) -> None:
    """Its good images once counted as flawed ones."""
    two_classes(tmp_path)
    draw_image(tmp_path / name / "good" / "v.png", 90)
    draw_image(tmp_path / name / "w.png", 91)
    samples = folder(tmp_path)
    assert set(samples.table["defect"]) == {"good", "scratch"}
    assert sorted(Path(path).name for path, _ in samples.unused) == ["v.png", "w.png"]


@pytest.mark.parametrize("name", ["ground-truth", "Ground Truth", "annotations", "seg", "labels"])
def test_folders_of_masks_by_other_names(tmp_path: Path, name: str) -> None:
    two_classes(tmp_path)
    for image in folder(tmp_path).anomalous.paths:
        mask(tmp_path / name / "scratch" / f"{Path(image).stem}.png")
    samples = folder(tmp_path)
    assert set(samples.table["defect"]) == {"good", "scratch"}
    assert samples.anomalous.table["mask"].null_count() == 0


@pytest.mark.parametrize("name", ["label", "scratch_mask", "what_i_drew"])
def test_masks_are_no_defect_whatever_their_folder_is_called(tmp_path: Path, name: str) -> None:
    two_classes(tmp_path)
    mask(tmp_path / name / "a.png")
    samples = folder(tmp_path)
    assert set(samples.table["defect"]) == {"good", "scratch"}
    assert [Path(path).name for path, _ in (*samples.unused, *samples.passed_over)] in (["a.png"], [name])
