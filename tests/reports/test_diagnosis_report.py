"""The page about trainings, from folders as `kizu diagnose` writes them; and its charts."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kizu import reports
from kizu.errors import LayoutError, UsageError
from kizu.reports._lines import lines, square


def write(folder: Path, name: str, auroc: float = 0.9, side: int = 0, **more: Any) -> Path:
    tests = [
        {"step": step, "image_auroc": auroc + 0.01 * (step == 20), "aupro_0.3": 0.5} for step in (20, 40)
    ]
    landscape = {"offsets": [-0.5, 0.5], "values": [[1.0, 2.0], [3.0, 4.0]], "images": 4}
    run = {
        "name": name, "detector": "ReContrast", "representation": "kizu/starter", "parameters": {},
        "images": {"train": 10, "test": 6},
        "steps": [{"step": step, "loss": 1 / step, "diversity": 0.04} for step in (10, 20, 30, 40)],
        "tests": tests, "last": tests[-1], "best_oracle": tests[0],
        "landscape": landscape if side else None,
        **more,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "diagnosis.json").write_text(json.dumps(run), "utf-8")
    return folder


def test_runs_side_by_side(tmp_path: Path) -> None:
    page = reports.diagnosis(
        [write(tmp_path / "C", "C", 0.7), write(tmp_path / "D", "D", 0.9, side=2)], tmp_path / "page.html"
    )
    text = page.read_text("utf-8")
    assert "Highest image AUROC at the last iteration: D" in text
    assert re.search(
        r"<td>70.00 / 71.00</td>\s*<td>– / –</td>\s*<td>50.00 / 50.00</td>", text
    )  # no pixel AUROC was given
    assert text.count('<polyline class="line s0"') == text.count('<polyline class="line s1"') == 4
    assert text.count("data:image/webp") == 1
    assert "http" not in text.replace("http-equiv", "")


def test_names_are_escaped(tmp_path: Path) -> None:
    text = reports.diagnosis(
        [write(tmp_path, "<script>alert(1)</script>")], tmp_path / "page.html"
    ).read_text("utf-8")
    assert "<script>alert" not in text


def test_what_it_refuses(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none"):
        reports.diagnosis([], tmp_path / "page.html")
    with pytest.raises(UsageError, match="different names"):
        reports.diagnosis([write(tmp_path / "a", "C"), write(tmp_path / "b", "C")], tmp_path / "page.html")
    with pytest.raises(LayoutError, match="kizu diagnose"):
        reports.diagnosis([tmp_path / "none"], tmp_path / "page.html")
    (write(tmp_path / "a", "C") / "diagnosis.json").write_text('{"name": "C"}', "utf-8")
    with pytest.raises(LayoutError, match="lacks detector"):
        reports.diagnosis([tmp_path / "a"], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_points_lie_where_they_should() -> None:
    drawn = lines("loss", {"a": ([0, 10, 20], [0.0, 1.0, math.nan]), "b": ([5], [0.5])}, ("step", "loss"))
    (path,) = re.findall(r'<polyline class="line s0" points="([^"]+)"', drawn)
    points = np.array([[float(value) for value in pair.split(",")] for pair in path.split()])
    assert len(points) == 2  # the NaN is left out
    assert points[0, 0] < points[1, 0]
    assert points[0, 1] > points[1, 1]  # up is high
    (x, y) = map(float, re.findall(r'<circle class="line s1" cx="([^"]+)" cy="([^"]+)"', drawn)[0])
    assert x == pytest.approx(points[:, 0].mean(), abs=0.2)
    assert y == pytest.approx(points[:, 1].mean(), abs=0.2)
    assert not lines("loss", {"a": ([], [])}, ("step", "loss"))
    assert lines("flat", {"a": ([1, 2], [3.0, 3.0])}, ("step", "loss"))


def test_a_square_of_values() -> None:
    drawn = square(np.array([[0.0, 1.0], [2.0, 3.0]]), side=100)
    assert drawn.shape == (100, 100, 3)
    assert (drawn[:50, :50] == drawn[0, 0]).all()
    assert drawn[0, 0].sum() < drawn[99, 99].sum()
    assert square(np.ones((3, 3))).shape == (288, 288, 3)
