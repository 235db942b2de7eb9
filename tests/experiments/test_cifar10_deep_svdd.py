"""Deep SVDD on CIFAR-10: end to end at an absurd size, on a data set made up for it."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).parents[2] / "experiments" / "cifar10_one_class"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="installed without its experiments")
BUDGET = ["--classes", "airplane", "truck", "--images", "6", "--batch-size", "4", "--pretraining-epochs", "2"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    import deep_svdd

    return deep_svdd


@pytest.fixture
def data(tmp_path: Path, script: ModuleType) -> Path:
    """7 and 3 images of each class; the first value of a class's images is its number."""
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, count in (("train", 7), ("test", 3)):
        files, labels = [], np.repeat(np.arange(10), count).astype(np.uint8)
        for label in labels:
            pixels = generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            pixels[:8, :8] = 20 * label
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "jpeg", quality=95)
            files.append(file.getvalue())
        offsets = np.cumsum([0, *map(len, files)])
        jpeg = np.frombuffer(b"".join(files), np.uint8)
        np.savez(
            folder / f"cifar10_{name}.npz",
            jpeg=jpeg,
            offsets=offsets,
            labels=labels,
            class_names=np.array(list(script.PUBLISHED)),
        )
    return tmp_path / "data"


def test_one_class_is_read(script: ModuleType, data: Path) -> None:
    images, names = script.read(data / "cifar10" / "cifar10_train.npz", "deer", 5)
    assert images.shape == (5, 3, 32, 32)
    assert names == ["deer"] * 5
    assert float(images[:, :, 1:7, 1:7].mean()) == pytest.approx(80 / 255, abs=0.03)
    every, names = script.read(data / "cifar10" / "cifar10_test.npz")
    assert len(every) == len(names) == 30
    assert 0.0 <= every.min() <= every.max() <= 1.0


@pytest.mark.slow
def test_end_to_end_and_again(
    script: ModuleType, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    places = ["--data-root", str(data), "--out", str(out), "--epochs", "2", "--every", "0"]
    script.main([*places, *BUDGET])
    said = capsys.readouterr().out
    assert "airplane seed 0: step 8 of 8, about 0 min left" in said
    assert "published 73.1" in said
    rows = list(csv.DictReader((out / "results.csv").read_text("utf-8").splitlines()))
    assert [row["class"] for row in rows] == ["airplane", "truck"]
    assert all(0.0 <= float(row["auroc"]) <= 100.0 and float(row["seconds_per_epoch"]) > 0 for row in rows)
    script.main([*places, *BUDGET])
    assert "step" not in capsys.readouterr().out
    assert len((out / "results.csv").read_text("utf-8").splitlines()) == 3
    (out / "results.csv").unlink()
    script.main([*places, *BUDGET])  # the trainings are finished: only the test is done again
    assert "step 1 of" not in capsys.readouterr().out
    again = list(csv.DictReader((out / "results.csv").read_text("utf-8").splitlines()))
    assert [row["auroc"] for row in again] == [row["auroc"] for row in rows]
