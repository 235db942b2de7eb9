"""The script of one-class CIFAR-10: what it reads, and that a run is done once."""

from __future__ import annotations

import csv
import importlib.util
import io
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import kizu

SCRIPT = Path(kizu.__file__).parents[2] / "experiments" / "cifar10_one_class" / "rotnet.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="installed without its experiments")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cifar10_rotnet", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images a class, all of one grey: 20 times the number of the class."""
    folder = tmp_path_factory.mktemp("cifar10")
    for part in ("train", "test"):
        labels = np.arange(40) // 4
        files = []
        for label in labels:
            file = io.BytesIO()
            Image.fromarray(np.full((32, 32, 3), 20 * label, np.uint8)).save(file, "JPEG", quality=100)
            files.append(file.getvalue())
        offsets = np.cumsum([0, *map(len, files)])
        packed = {"jpeg": np.frombuffer(b"".join(files), np.uint8), "offsets": offsets}
        np.savez(folder / f"cifar10_{part}.npz", labels=labels.astype(np.uint8), **packed)
    return folder


def test_images_belong_to_their_class(script: ModuleType, data: Path) -> None:
    images, classes = script.read(data, "test", script.first_of(None, 2))
    assert classes.tolist() == [number // 2 for number in range(20)]
    assert torch.allclose(images.mean((1, 2, 3)) * 255, classes * 20.0, atol=1.5)
    images, classes = script.read(data, "train", script.first_of(7, 3))
    assert images.shape == (3, 3, 32, 32)
    assert classes.tolist() == [7, 7, 7]


def test_a_run_writes_its_row_once(script: ModuleType, data: Path, tmp_path: Path) -> None:
    given = ["--data", str(data), "--out", str(tmp_path), "--representation", "small/lenet"]
    given += ["--classes", "bird", "--iterations", "2", "--batch-size", "4", "--train", "4", "--test", "4"]
    for _ in range(2):
        script.main(given)
    with (tmp_path / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["class"], row["published"], row["iterations"]) for row in rows] == [("bird", "78.1", "2")]
    assert 0 <= float(rows[0]["auroc"]) <= 100


def test_the_published_mean(script: ModuleType) -> None:
    """86.0, as later papers cite it."""
    assert sum(script.PUBLISHED.values()) / 10 == pytest.approx(86.0, abs=0.05)
