"""semicon: volumes become slices, labels come from folders, masks or labels.csv, the group is the volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import semicon as tree
from trees import volume, write_csv

from kizu.datasets.checking import check
from kizu.datasets.semicon import semicon
from kizu.errors import EmptyData, LayoutError, MaskError, UnknownName, UsageError
from kizu.protocols.few_shot import few_shot


def array(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path)
    with Image.open(path) as pages:
        return np.stack([(pages.seek(n), np.asarray(pages))[1] for n in range(pages.n_frames)])


@pytest.mark.parametrize(("axis", "number", "count"), [("z", 0, 4), ("y", 1, 12), ("x", 2, 16)])
def test_slices_are_the_planes_of_the_volume(tmp_path: Path, axis: str, number: int, count: int) -> None:
    tree(tmp_path)
    samples = semicon(tmp_path, axis=axis)  # type: ignore[arg-type]
    assert len(samples) == 3 * count
    files = {file.stem: array(file) for file in (*tmp_path.glob("good/*"), *tmp_path.glob("defect/*"))}
    for path, group in samples.table.select("image", "group").iter_rows():
        plane = files[group].take(int(Path(path).stem), axis=number)
        assert np.array_equal(np.asarray(Image.open(path)), plane)


def test_masks_say_which_slices_of_a_defective_volume_are_anomalous(tmp_path: Path) -> None:
    tree(tmp_path)
    samples = semicon(tmp_path)
    assert [Path(path).stem for path in samples.anomalous.paths] == ["00001", "00002"]
    assert (len(samples.normal), set(samples.anomalous.table["group"])) == (10, {"die2"})
    cut = np.asarray(Image.open(samples.anomalous.table["mask"][0]))
    assert np.array_equal(cut > 0, array(tmp_path / "masks" / "die2.npy")[1] > 0)
    split = few_shot(samples, shots=2, leak_safe=True)
    assert not set(split.train.table["group"]) & set(split.test.table["group"])
    (tmp_path / "masks" / "die2.npy").unlink()
    (tmp_path / "masks").rmdir()
    assert len(semicon(tmp_path).anomalous) == 4
    assert check("semicon", tmp_path).ok


def test_kinds_are_folders_and_some_slices_are_left_away(tmp_path: Path) -> None:
    tree(tmp_path)
    volume(tmp_path / "defect" / "crack" / "die3.npy", 3, shape=(10, 12, 16))
    np.save(tmp_path / "masks" / "die3.npy", np.ones((10, 12, 16), np.uint8))
    samples = semicon(tmp_path, every=2, margin=0.2)
    assert [Path(path).stem for path in samples.where(defect="crack").paths] == ["00002", "00004", "00006"]


def test_labels_from_a_list(tmp_path: Path) -> None:
    for number in range(3):
        volume(tmp_path / "volumes" / f"die{number}.npy", number)
    rows = [("die0.npy", 0, "train"), ("die1.npy", 0, "test"), ("die2.npy", 1, "test")]
    write_csv(tmp_path / "labels.csv", [("volume", "label", "split"), *rows])
    samples = semicon(tmp_path)
    assert (len(samples.train), len(samples.test.normal), len(samples.anomalous)) == (4, 4, 4)
    listed = [("die0.npy", 2, 0, ""), ("die2.npy", 0, 1, "void"), ("die2.npy", 3, 0, "")]
    write_csv(tmp_path / "labels.csv", [("volume", "slice", "label", "kind"), *listed])
    found = semicon(tmp_path).table.select("group", "label", "defect").rows()
    assert found == [("die0", 0, "good"), ("die2", 1, "void"), ("die2", 0, "good")]
    listed[1] = ("die2.npy", 0, 1, "../../void")
    write_csv(tmp_path / "labels.csv", [("volume", "slice", "label", "kind"), *listed])
    assert semicon(tmp_path).table["defect"][1] == "../../void", "no kind is part of a path"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("volume", "good"), ("die0.npy", 1)], "volume and label are needed"),
        ([("volume", "label"), ("die0.npy", "yes")], "label is 0 or 1, got yes"),
        ([("volume", "label"), ("die9.npy", 0)], r"neither in .* nor in volumes/: die9\.npy"),
        ([("volume", "label"), ("die0.npy", 0), ("die0.npy", 1)], "2 times and has no column slice"),
        ([("volume", "label", "slice"), ("die0.npy", 0, "-1")], "numbers from 0 on"),
        ([("volume", "label", "slice"), ("die0.npy", 0, "7")], "has 4 slices, 0 to 3; listed: 7"),
        ([("volume", "label", "split"), ("die0.npy", 0, "val")], "train, test or empty"),
        ([("volume", "label"), ("die0.npy", 1)], "no good images"),
    ],
)
def test_bad_lists(tmp_path: Path, rows: list[tuple[object, ...]], words: str) -> None:
    volume(tmp_path / "die0.npy", 0)
    write_csv(tmp_path / "labels.csv", rows)
    with pytest.raises((LayoutError, EmptyData), match=words):
        semicon(tmp_path)


def test_values_are_kept(tmp_path: Path) -> None:
    tree(tmp_path)
    deep = np.arange(4 * 12 * 16, dtype=np.uint16).reshape(4, 12, 16) * 80
    np.save(tmp_path / "good" / "deep.npy", deep)
    np.save(tmp_path / "good" / "share.npy", deep / 65535)
    np.save(tmp_path / "good" / "cut.npy", deep > 30000)
    np.save(tmp_path / "good" / "other_end.npy", deep.astype(">u2"))
    pages = [Image.fromarray(page) for page in deep]
    pages[0].save(tmp_path / "good" / "pages.tif", save_all=True, append_images=pages[1:])
    samples = semicon(tmp_path)
    wholes = dict.fromkeys(("deep", "share", "other_end", "pages"), deep)
    for name, expected in (wholes | {"cut": (deep > 30000) * 255}).items():
        planes = [np.asarray(Image.open(path)) for path in samples.where(group=name).paths]
        assert np.array_equal(np.stack(planes), expected)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((4, 4)), r"shape \(4, 4\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), "a grey volume"),
        (np.zeros((2, 4, 4), np.int32), "type int32"),
        (np.full((2, 4, 4), 7.0), "floats from 7 to 7"),
        (np.full((2, 4, 4), np.nan), "floats from nan"),
        (np.array([{}], dtype=object), "no volume"),
    ],
)
def test_bad_volumes(tmp_path: Path, values: np.ndarray, words: str) -> None:
    """An array of Python objects is a pickle: it is not opened."""
    tree(tmp_path)
    np.save(tmp_path / "good" / "bad.npy", values, allow_pickle=True)
    with pytest.raises(LayoutError, match=words):
        semicon(tmp_path)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"neither labels\.csv nor good/ and defect/"):
        semicon(tmp_path)
    tree(tmp_path)
    with pytest.raises(UnknownName, match="There are: x, y, z"):
        semicon(tmp_path, axis="w")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"below 0\.5, got 0\.5"):
        semicon(tmp_path, margin=0.5)
    with pytest.raises(UsageError, match="every"):
        semicon(tmp_path, every=0)
    (tmp_path / "good" / "broken.tif").write_bytes(b"II*\0")
    with pytest.raises(LayoutError, match=r"broken\.tif is damaged"):
        semicon(tmp_path)
    (tmp_path / "good" / "broken.tif").rename(tmp_path / "good" / "broken.nii")
    assert [reason for _, reason in semicon(tmp_path).unused] == ["is no volume (.npy, .tif, .tiff)"]
    np.save(tmp_path / "masks" / "die2.npy", np.ones((4, 12, 15), np.uint8))
    with pytest.raises(MaskError, match="They must agree"):
        semicon(tmp_path)
    volume(tmp_path / "defect" / "die1.npy", 5)
    with pytest.raises(LayoutError, match="several volumes of one name: die1"):
        semicon(tmp_path)
