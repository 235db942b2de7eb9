"""cifar10, cifar10_c, cifar100_c: pictures are those of the archive byte for byte, labels and levels are the
official ones, and no pickle is opened."""

from __future__ import annotations

import io
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import cifar10 as tree
from trees import cifar10_c as tree_c
from trees import cifar100 as tree_100
from trees import cifar100_c as tree_100_c
from trees import cifar_pictures, corrupted_arrays

from kizu.apps._commands import read
from kizu.datasets.checking import check
from kizu.datasets.cifar10 import cifar10
from kizu.datasets.cifar10_c import NINE, cifar10_c
from kizu.datasets.cifar100_c import SUPERCLASSES, cifar100_c
from kizu.errors import LayoutError, UnknownName, UsageError
from kizu.samples import Samples


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_cifar10_one_class_against_the_others(tmp_path: Path) -> None:
    tree(tmp_path)
    samples = cifar10(tmp_path, category="cat")
    assert (len(samples.train), len(samples.test.normal), len(samples.test.anomalous)) == (2, 1, 9)
    assert set(samples.table["category"]) == {"cat"}
    assert samples.anomalous.table["defect"].n_unique() == 9
    (dog,) = samples.where(defect="dog").paths
    assert Path(dog).stem == "00004", "label 5 is the fifth record, for the labels run from 9 down"
    assert np.array_equal(pixels(dog), cifar_pictures(9, 10)[4])
    first = sorted(Path(path).stem for path in samples.train.paths)
    assert first == ["00003", "00013"], "numbers run on over the five files"
    assert np.array_equal(pixels(samples.train.paths[1]), cifar_pictures(3, 4)[1])
    assert (
        cifar10(tmp_path / "cifar-10-batches-bin", category="cat")
        .table.drop("image")
        .equals(samples.table.drop("image"))
    )
    several = cifar10(tmp_path, category="ship+cat")
    assert (set(several.table["category"]), len(several.train)) == ({"cat+ship"}, 4)


def test_cifar10_packs_of_jpeg(tmp_path: Path) -> None:
    for split, count in (("train", 10), ("test", 20)):
        files = []
        for picture in cifar_pictures(1, count):
            stream = io.BytesIO()
            Image.fromarray(picture).save(stream, "JPEG")
            files.append(stream.getvalue())
        offsets = np.cumsum([0, *map(len, files)])
        jpeg = np.frombuffer(b"".join(files), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        np.savez(tmp_path / f"cifar10_{split}.npz", jpeg=jpeg, offsets=offsets, labels=labels)
    samples = cifar10(tmp_path, category="bird")
    assert (len(samples.train), len(samples.test.normal), len(samples.test.anomalous)) == (1, 2, 18)
    assert np.array_equal(pixels(samples.train.paths[0]), np.asarray(Image.open(io.BytesIO(files[2]))))
    assert len(cifar10_c(tmp_path, category="bird", source="generated").anomalous) == 9 * 2
    corrupted_arrays(tmp_path / "CIFAR-10-C", list(range(10)) * 2)
    with pytest.raises(LayoutError, match="traces of JPEG"):
        cifar10_c(tmp_path)
    np.savez(tmp_path / "cifar10_test.npz", jpeg=np.array([{}], dtype=object), offsets=offsets, labels=labels)
    with pytest.raises(LayoutError, match="damaged or another file"):
        cifar10(tmp_path, category="bird")
    Image.new("RGB", (64, 32)).save(stream := io.BytesIO(), "JPEG")
    wide = np.frombuffer(stream.getvalue(), np.uint8)
    np.savez(tmp_path / "cifar10_test.npz", jpeg=wide, offsets=np.array([0, len(wide)]), labels=labels[:1])
    with pytest.raises(LayoutError, match="a picture has 64 x 32 pixels"):
        cifar10(tmp_path, category="bird")
    np.savez(tmp_path / "cifar10_test.npz", jpeg=jpeg, labels=labels)
    with pytest.raises(LayoutError, match="no array offsets"):
        cifar10(tmp_path, category="bird")


def test_a_category_of_the_command_line_makes_that_one_into_files(tmp_path: Path) -> None:
    tree_c(tmp_path)
    assert read("cifar10_c", tmp_path, "ship") == cifar10_c(tmp_path, category="ship")
    assert [folder.name for folder in (tmp_path / "kizu_copies" / "cifar10_c" / "train").iterdir()] == [
        "ship"
    ]
    assert read("cifar10", tmp_path, "cat") == cifar10(tmp_path, category="cat")
    with pytest.raises(UnknownName, match="'cat'"):
        read("cifar10", tmp_path, "cats")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("a pickle was opened",))


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(pickle.dumps(Bomb()))
    for reader in (cifar10, cifar10_c):
        with pytest.raises(LayoutError, match=r"a pickle, .* cifar-10-binary\.tar\.gz"):
            reader(tmp_path)
    with pytest.raises(LayoutError, match="a pickle"):
        cifar10(folder)
    tree_c(tmp_path)
    (tmp_path / "CIFAR-10-C" / "fog.npy").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(LayoutError, match=r"fog\.npy is damaged"):
        cifar10_c(tmp_path)


def test_cifar10_refusals(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"cifar-10-batches-bin/test_batch\.bin"):
        cifar10(tmp_path)
    tree(tmp_path)
    with pytest.raises(UnknownName, match="'cat'"):
        cifar10(tmp_path, category="cats")
    with pytest.raises(UsageError, match=r"joined by [+]"):
        cifar10(tmp_path, category=["cat"])  # type: ignore[arg-type]
    file = tmp_path / "cifar-10-batches-bin" / "data_batch_2.bin"
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(LayoutError, match="no whole number of records of 3,073 bytes"):
        cifar10(tmp_path)
    file.write_bytes(b"\x0a" + data[1:])
    with pytest.raises(LayoutError, match="label 10; 0 to 9 are due"):
        cifar10(tmp_path)
    file.unlink()
    with pytest.raises(LayoutError, match=r"holds no data_batch_2\.bin"):
        cifar10(tmp_path)


def test_cifar10_c_takes_the_level_and_pairs_pictures(tmp_path: Path) -> None:
    tree_c(tmp_path)
    samples = cifar10_c(tmp_path, category="ship")
    assert (len(samples.train), len(samples.test.normal), len(samples.test.anomalous)) == (2, 1, 9)
    assert set(samples.anomalous.table["defect"]) == set(NINE)
    for path, defect in samples.anomalous.table.select("image", "defect").iter_rows():
        assert (pixels(path) == 2 * 40 + NINE.index(defect)).all(), "level 2, and the file of the corruption"
    assert set(samples.test.table["group"]) == {"test 00001"}, "label 8 is the second record"
    strong = cifar10_c(tmp_path, category="ship", level=5, corruptions=["fog", "contrast"])
    assert [int(pixels(path)[0, 0, 0]) for path in strong.anomalous.paths] == [207, 208]
    every = cifar10_c(tmp_path)
    assert every.table["category"].n_unique() == 10
    assert every.where(category="ship") == samples


def test_cifar100_c_by_superclass_and_by_class(tmp_path: Path) -> None:
    tree_100_c(tmp_path)
    samples = cifar100_c(tmp_path, category="trees")
    assert SUPERCLASSES[17] == "trees"
    assert len(set(SUPERCLASSES)) == 20
    assert [Path(path).stem for path in samples.train.paths] == ["00017", "00037"]
    assert (len(samples.test.normal), len(samples.test.anomalous)) == (1, 9)
    fine = cifar100_c(tmp_path / ".." / tmp_path.name, category="kind_25", classes="fine", corruptions="fog")
    assert [Path(path).stem for path in fine.test.paths] == ["00005", "00005"]
    assert set(fine.test.table["defect"]) == {"good", "fog"}
    with pytest.raises(UnknownName, match="'super'"):
        cifar100_c(tmp_path, classes="supper")  # type: ignore[arg-type]
    names = tmp_path / "cifar-100-binary" / "coarse_label_names.txt"
    names.write_text("\n".join(["../../evil", *SUPERCLASSES[1:]]))
    with pytest.raises(LayoutError, match="20 different ones were due"):
        cifar100_c(tmp_path)


def generated(path: Path, **more: object) -> Samples:
    return cifar10_c(path, category="frog", source="generated", **more)  # type: ignore[arg-type]


def test_generated_corruptions_are_drawn_by_the_seed(tmp_path: Path) -> None:
    tree(tmp_path)
    with pytest.raises(LayoutError, match="source='generated'"):
        cifar10_c(tmp_path)
    first, other = generated(tmp_path), generated(tmp_path, seed=1)
    assert (len(first.test.normal), len(first.anomalous)) == (1, 9)
    again = generated(tmp_path, copies=tmp_path / "elsewhere")
    for mine, same, drawn, defect in zip(
        first.anomalous.paths, again.anomalous.paths, other.anomalous.paths, NINE, strict=True
    ):
        assert np.array_equal(pixels(mine), pixels(same))
        random = defect not in ("defocus_blur", "zoom_blur", "contrast")
        assert np.array_equal(pixels(mine), pixels(drawn)) != random
    clean = pixels(first.test.normal.paths[0])
    assert all(not np.array_equal(clean, pixels(path)) for path in first.anomalous.paths)


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
def test_damaged_arrays_are_layout_errors(tmp_path: Path) -> None:
    """Bytes of an array's head are spoiled, and a pack is cut short: a LayoutError comes."""
    tree_c(tmp_path)
    file = tmp_path / "CIFAR-10-C" / "labels.npy"
    whole, random = file.read_bytes(), np.random.default_rng(0)
    one_array = whole
    refused = 0
    for _ in range(150):
        spoiled = bytearray(whole)
        for at in random.integers(0, 128, size=3):
            spoiled[at] = random.integers(0, 256)
        file.write_bytes(bytes(spoiled))
        try:
            cifar10_c(tmp_path, category="cat", corruptions="fog")
        except LayoutError:
            refused += 1
    assert refused > 100
    np.savez(tmp_path / "cifar10_test.npz", jpeg=np.zeros(5000, np.uint8))
    shutil.rmtree(tmp_path / "cifar-10-batches-bin")
    whole = (tmp_path / "cifar10_test.npz").read_bytes()
    (tmp_path / "cifar10_train.npz").write_bytes(whole)
    for part in (*(whole[:size] for size in (0, 3, 100, len(whole) - 9)), whole, one_array):
        (tmp_path / "cifar10_train.npz").write_bytes(part)
        with pytest.raises(LayoutError):
            cifar10(tmp_path)


def test_corrupted_refusals(tmp_path: Path) -> None:
    tree_c(tmp_path)
    with pytest.raises(UnknownName, match="'fog'"):
        cifar10_c(tmp_path, corruptions="fogg")
    with pytest.raises(UnknownName, match="no corruption named 'snow'"):
        cifar10_c(tmp_path, corruptions="snow", source="generated")
    with pytest.raises(UnknownName, match="source of corrupted pictures"):
        cifar10_c(tmp_path, source="made")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="level 2 only, got level=3"):
        cifar10_c(tmp_path, source="generated", level=3)
    with pytest.raises(UsageError, match=r"1 \(weak\) to 5"):
        cifar10_c(tmp_path, level=6)
    with pytest.raises(UsageError, match="seed has no effect on official pictures"):
        cifar10_c(tmp_path, seed=3)
    with pytest.raises(UsageError, match="corruptions is empty"):
        cifar10_c(tmp_path, corruptions=[])
    with pytest.raises(LayoutError, match=r"snow\.npy is not there; of the corruptions there are: contrast"):
        cifar10_c(tmp_path, corruptions="snow")
    folder = tmp_path / "CIFAR-10-C"
    for values, words in (
        (np.zeros((50, 32, 32), np.uint8), r"no array of shape \(n, 32, 32, 3\)"),
        (np.zeros((50, 32, 32, 3)), "type float64; uint8 is due"),
        (np.zeros((45, 32, 32, 3), np.uint8), "45 corrupted pictures are 5 times the 10"),
    ):
        np.save(folder / "fog.npy", values)
        with pytest.raises(LayoutError, match=words):
            cifar10_c(tmp_path, corruptions="fog")
    shutil.rmtree(folder)
    corrupted_arrays(folder, list(range(10)))
    with pytest.raises(LayoutError, match="do not belong together"):
        cifar10_c(tmp_path)


def test_data_check(tmp_path: Path) -> None:
    tree_c(tmp_path / "ten")
    tree_100(tmp_path / "hundred")
    corrupted_arrays(tmp_path / "hundred" / "CIFAR-100-C", [n + 20 for n in range(20)])
    for name, folder, line in (
        ("cifar10", "ten", "airplane, train, normal: 2 images where 5000 are published"),
        ("cifar10_c", "ten", "truck, test, anomalous: 9 images where 9000 are published"),
        ("cifar100_c", "hundred", "fish, test, normal: 1 image where 500 are published"),
    ):
        assert any(line in text for text in check(name, tmp_path / folder).lines)


@pytest.mark.data
def test_real_pack(tmp_path: Path, data_root: Path) -> None:
    """60,000 pictures as JPEG, and the nine corruptions of one class made from them: none of them leaves the
    pictures as they are, all keep what they show (correlation)."""
    samples = cifar10(data_root / "cifar10", category="cat", copies=tmp_path / "ten")
    counts = (len(samples.train), len(samples.test.normal), len(samples.test.anomalous))
    assert counts == (5000, 1000, 9000)
    corrupt = cifar10_c(data_root / "cifar10", category="ship", source="generated", copies=tmp_path / "c")
    assert (len(corrupt.train), len(corrupt.test.normal), len(corrupt.anomalous)) == (5000, 1000, 9000)
    clean = np.stack([pixels(path) for path in corrupt.test.normal.paths[:100]]).astype(float)
    for name in NINE:
        paths = corrupt.where(defect=name).paths[:100]
        after = np.stack([pixels(path) for path in paths]).astype(float)
        assert 0.8 < np.corrcoef(clean.ravel(), after.ravel())[0, 1] < 1, name
        assert np.abs(clean - after).mean() > 1, name
