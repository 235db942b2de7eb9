"""What a folder holds is read, or it is said that it is not: nothing is learned from, or left out, in
silence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import draw_image, mask

import kizu
from kizu import store
from kizu.apps._commands import training
from kizu.datasets.folder import folder
from kizu.errors import EmptyData, LayoutError
from kizu.image_files import find_images
from kizu.samples import Samples


def names(samples: Samples) -> list[str]:
    return [Path(path).name for path in samples.paths]


def with_test(root: Path) -> Path:
    """test/{good,bad} with images; train/ is the test's to make."""
    for name in ("good/g0", "good/g1", "bad/b0"):
        draw_image(root / "test" / f"{name}.png")
    return root


# Never a fall-back to the test images


def test_folders_below_good_are_read(tmp_path: Path) -> None:
    with_test(tmp_path)
    for name in ("cam1/0", "cam1/deep/1", "cam2/0"):
        draw_image(tmp_path / "train" / "good" / f"{name}.png")
    samples = folder(tmp_path)
    assert names(training(samples)) == ["0.png", "1.png", "0.png"]
    assert all("/train/good/cam" in path for path in training(samples).paths)
    assert samples.unused == ()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ((), "it is empty"),
        (("good/notes.txt",), r"it holds good/notes\.txt"),
        (("good/a.mp4", "good/b.mp4"), r"it holds good/a\.mp4, good/b\.mp4"),
    ],
)
def test_a_split_that_yields_nothing_is_an_error(tmp_path: Path, files: tuple[str, ...], said: str) -> None:
    (with_test(tmp_path) / "train").mkdir()
    for name in files:
        (tmp_path / "train" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "train" / name).write_text("words")
    with pytest.raises(EmptyData, match=f"train is there, but yields no image: {said}"):
        folder(tmp_path)
    with pytest.raises(EmptyData, match="yields no image"):
        kizu.detector("gaussian", "random/resnet10t@1", image_size=32).fit(tmp_path)


def test_good_beside_test_is_no_training_split(tmp_path: Path) -> None:
    with_test(tmp_path)
    draw_image(tmp_path / "good" / "mine.png")
    samples = folder(tmp_path)
    assert names(samples) == ["b0.png", "g0.png", "g1.png"]
    assert samples.unused == ((str(tmp_path / "good/mine.png"), samples.unused[0][1]),)
    with pytest.raises(EmptyData, match=r"All 3 images are of the split test.*train/good/.*mine\.png \(lies"):
        training(samples)
    with pytest.raises(EmptyData, match="no good image to learn from"):
        kizu.detector("gaussian", "random/resnet10t@1", image_size=32).fit(tmp_path)
    for protocol in ("one_class", "few_shot"):
        with pytest.raises(EmptyData):
            kizu.registry.load("protocols", protocol)(
                samples, seed=0, **({"shots": 1} if protocol == "few_shot" else {})
            )


def test_flawed_training_images_alone_are_not_replaced_by_test_ones(tmp_path: Path) -> None:
    draw_image(with_test(tmp_path) / "train" / "bad" / "b.png")
    with pytest.raises(EmptyData, match="1 flawed ones, 3 to test on"):
        training(folder(tmp_path))
    with pytest.raises(EmptyData, match="no good image"):
        kizu.detector("gaussian", "random/resnet10t@1", image_size=32).fit(tmp_path)


def test_names_of_splits_in_any_case(tmp_path: Path) -> None:
    draw_image(tmp_path / "Train" / "Good" / "a.png")
    draw_image(tmp_path / "Test" / "Good" / "b.png")
    samples = folder(tmp_path)
    assert (names(samples.train), names(samples.test)) == (["a.png"], ["b.png"])


# Nothing is left out in silence


def test_every_suffix_and_none(tmp_path: Path) -> None:
    draw_image(tmp_path / "a.png")
    for name in ("b.jfif", "noending", "c.png.bak"):
        shutil.copy(draw_image(tmp_path.parent / "x.png"), tmp_path / name)
    (tmp_path / "notes.txt").write_text("BM, P1 and II*")
    assert names(folder(tmp_path)) == ["a.png", "b.jfif", "c.png.bak", "noending"]
    assert [path.name for path in find_images([tmp_path]).images] == names(folder(tmp_path))


def test_val_is_said_and_not_read(tmp_path: Path) -> None:
    for name in ("train/good/a", "val/good/b", "test/good/c"):
        draw_image(tmp_path / f"{name}.png")
    samples = folder(tmp_path)
    assert names(samples) == ["a.png", "c.png"]
    reason = "lies in val/good/, which this layout does not read."
    assert samples.unused == ((str(tmp_path / "val/good/b.png"), reason),)
    assert samples.train.normal.take([0]).unused == samples.unused
    assert "1 file not used: " in repr(samples)
    assert "1 file not used: " in "\n".join(kizu.datasets.checking.check("folder", tmp_path).lines)


def test_kinds_of_defects_in_folders(tmp_path: Path) -> None:
    draw_image(tmp_path / "good" / "g.png")
    for kind in ("long", "short"):
        draw_image(tmp_path / "scratch" / kind / "0.png")
        mask(tmp_path / "masks" / "scratch" / kind / "0.png")
    samples = folder(tmp_path)
    assert samples.anomalous.table["defect"].to_list() == ["scratch", "scratch"]
    for image, place in samples.anomalous.table.select("image", "mask").iter_rows():
        assert Path(image).parent.name == Path(place).parent.name


def test_pages_of_a_tiff_are_counted(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((9, 9), value, np.uint8)) for value in (1, 2, 3)]
    pages[0].save(tmp_path / "part.tif", save_all=True, append_images=pages[1:])
    draw_image(tmp_path / "one.tif")
    expected = [f"{tmp_path / 'part.tif'}, page {page}" for page in (2, 3)]
    assert [path for path, _ in folder(tmp_path).unused] == expected
    assert [path for path, _ in find_images([tmp_path / "part.tif"]).unused] == expected


def test_links_are_followed_once(tmp_path: Path) -> None:
    draw_image(tmp_path / "elsewhere" / "good" / "a.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "good").symlink_to(tmp_path / "elsewhere" / "good", target_is_directory=True)
    (root / "loop").symlink_to(root, target_is_directory=True)
    (tmp_path / "elsewhere" / "good" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    samples = folder(root)
    assert names(samples) == ["a.png"]
    assert samples.unused == ((str(root / "good" / "gone.png"), "a link that leads nowhere."),)
    assert [path.name for path in find_images([root]).images] == ["a.png"]


# What is no part


@pytest.mark.parametrize("name", ["MASK", "mask", "Masks", "ground_truth", "gt"])
def test_names_of_masks(tmp_path: Path, name: str) -> None:
    draw_image(tmp_path / "OK" / "a.png")
    draw_image(tmp_path / "NG" / "b.png")
    mask(tmp_path / name / "b.png")
    samples = folder(tmp_path)
    assert samples.anomalous.table["defect"].to_list() == ["NG"]
    assert samples.anomalous.table["mask"].to_list() == [str(tmp_path / name / "b.png")]
    found = find_images([tmp_path])
    assert [path.name for path in found.images] == ["b.png", "a.png"]
    assert found.passed_over == [(str(tmp_path / name), "a folder of masks")]


@pytest.mark.parametrize("place", [".ipynb_checkpoints", ".trash", "@eaDir", "inspected", "run"])
def test_hidden_folders_and_outputs(tmp_path: Path, place: str) -> None:
    draw_image(tmp_path / "good" / "a.png")
    draw_image(tmp_path / place / "panels" / "000000.png")
    draw_image(tmp_path / place / "0-checkpoint.png")
    if place in ("inspected", "run"):
        record = {"inspected": "inspection.json", "run": "run.json"}[place]
        store.write_record(tmp_path / place, record, {"detector": "padim"})
    samples = folder(tmp_path)
    assert names(samples) == ["a.png"]
    assert [Path(path).name for path, _ in samples.passed_over] == [place]
    assert samples.unused == ()
    assert [path.name for path in find_images([tmp_path]).images] == ["a.png"]


def test_a_record_of_another_program_hides_nothing(tmp_path: Path) -> None:
    draw_image(tmp_path / "good" / "a.png")
    draw_image(tmp_path / "run" / "b.png")
    (tmp_path / "run" / "run.json").write_text(json.dumps({"jog": 3}))
    assert folder(tmp_path).anomalous.table["defect"].to_list() == ["run"]


def test_data_below_a_hidden_folder_are_read(tmp_path: Path) -> None:
    draw_image(tmp_path / ".config" / "data" / "good" / "a.png")
    assert names(folder(tmp_path / ".config" / "data")) == ["a.png"]
    assert len(find_images([tmp_path / ".config"]).images) == 1


def test_masks_of_good_images_in_one_folder(tmp_path: Path) -> None:
    for name in ("good/0", "good/1", "bad/b0"):
        draw_image(tmp_path / f"{name}.png")
    for name in ("0", "1_mask", "b0"):
        mask(tmp_path / "masks" / f"{name}.png")
    samples = folder(tmp_path)
    assert samples.anomalous.table["mask"].to_list() == [str(tmp_path / "masks" / "b0.png")]
    mask(tmp_path / "masks" / "7.png")
    with pytest.raises(kizu.errors.MaskError, match=r"1 mask without an image: 7\.png"):
        folder(tmp_path)


def test_good_too_deep(tmp_path: Path) -> None:
    draw_image(tmp_path / "2024" / "may" / "good" / "a.png")
    with pytest.raises(LayoutError, match=r"too deep, in .*2024/may/good"):
        folder(tmp_path)
    draw_image(tmp_path / "good" / "monday" / "a.png")
    assert folder(tmp_path / "good").labels.tolist() == [0]
