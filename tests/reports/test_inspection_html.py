"""The report of unlabelled images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kizu import reports
from kizu.errors import LayoutError


def write(folder: Path, records: list[dict[str, Any]]) -> Path:
    (folder / "panels").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for index in range(len(records)):
        image = rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)
        reports.panel(image, rng.random((15, 15)), map_range=(0, 1), title="x").save(
            folder / "panels" / f"{index}.png"
        )
    (folder / "results.jsonl").write_text(
        "\n".join(json.dumps(record) for record in records), encoding="utf-8"
    )
    return folder


def record(index: int, **changes: Any) -> dict[str, Any]:
    made = {
        "path": f"p/{index}.png",
        "score": float(index),
        "p_value": 1 / (1 + index),
        "is_anomalous": index > 2,
        "error": None,
    }
    return {**made, "panel": f"panels/{index}.png", **changes}


def test_most_suspicious_first_and_counted(tmp_path: Path) -> None:
    broken = {
        "path": "bad.png",
        "score": None,
        "p_value": None,
        "is_anomalous": None,
        "error": "truncated",
        "panel": None,
    }
    folder = write(tmp_path, [*(record(i) for i in range(5)), broken])
    text = reports.inspection_html(folder).read_text("utf-8")
    assert "Of 5 images, 2 were called anomalous. 1 file was not used." in text
    names = [part.partition('"')[0] for part in text.split('data-name="')[1:]]
    assert names == ["4.png", "3.png", "2.png", "1.png", "0.png"]
    assert "bad.png" in text
    assert "truncated" in text
    assert text.count("data:image/webp;base64,") == 5
    assert "http" not in text.replace("http-equiv", "")


def test_ties_of_the_p_value_go_by_score(tmp_path: Path) -> None:
    text = reports.inspection_html(write(tmp_path, [record(i, p_value=0.02) for i in range(3)])).read_text(
        "utf-8"
    )
    assert [part.partition('"')[0] for part in text.split('data-name="')[1:]] == ["2.png", "1.png", "0.png"]


def test_limit_and_missing_panel_and_no_calibration(tmp_path: Path) -> None:
    records = [record(i, p_value=None, is_anomalous=None, panel=None) for i in range(4)]
    text = reports.inspection_html(write(tmp_path, records), limit=3).read_text("utf-8")
    assert "not calibrated" in text
    assert "1 of 4 images" in text
    assert "no panel was kept" in text
    assert "data:image/webp" not in text


def test_escapes_and_stays_in_its_folder(tmp_path: Path) -> None:
    evil = '<script>alert(1)</script>".png'
    folder = write(
        tmp_path / "out",
        [
            record(0, path=evil, error=evil),
            record(1, panel="../secret.png"),
            record(2, panel="/etc/hostname"),
        ],
    )
    reports.panel(np.zeros((40, 40, 3), np.uint8), np.zeros((4, 4)), map_range=(0, 1)).save(
        tmp_path / "secret.png"
    )
    text = reports.inspection_html(folder, title=evil).read_text("utf-8")
    assert "<script>alert" not in text
    assert text.count("data:image/webp;base64,") == 1, "panels outside the folder are not shown"


def test_empty_and_foreign_folders(tmp_path: Path) -> None:
    assert "No image could be inspected" in reports.inspection_html(write(tmp_path / "a", [])).read_text(
        "utf-8"
    )
    with pytest.raises(LayoutError, match=r"no results\.jsonl"):
        reports.inspection_html(tmp_path)
    (tmp_path / "results.jsonl").write_text("{")
    with pytest.raises(LayoutError, match="line 1"):
        reports.inspection_html(tmp_path)
