"""The attention report, from a folder as the protocol writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kizu import reports
from kizu.errors import LayoutError, UsageError


def write(
    folder: Path, n: int = 3, labels: tuple[str, ...] = ("plain", "plain + SPD"), marked: bool = True
) -> Path:
    rng = np.random.default_rng(0)
    masks = np.zeros((n, 40, 60), bool)
    masks[:, 10:20, 30:40] = marked
    maps = rng.random((len(labels), n, 40, 60)).astype(np.float16)
    share = 0.25 if marked else None
    looks = {label: {"similarity": 0.9, "peak": 0.1, "share_inside": share} for label in labels}
    columns: list[dict[str, Any]] = [
        {
            "image": f"/x/bad_{i}.png",
            "normal": f"/x/good_{i}.png",
            "category": "c",
            "defect": "scratch",
            "area": share,
            "looks": looks,
        }
        for i in range(n)
    ]
    info = {
        "representations": list(labels),
        "level": None,
        "image_size": [40, 60],
        "columns": columns,
        "area": share,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "attention.json").write_text(
        json.dumps({**info, "share_inside": dict.fromkeys(labels, share)}), "utf-8"
    )
    drawn = rng.integers(0, 255, (2, n, 40, 60, 3)).astype(np.uint8)
    np.savez_compressed(folder / "attention.npz", images=drawn[0], normals=drawn[1], masks=masks, maps=maps)
    return folder


def size(folder: Path) -> tuple[int, int]:
    with Image.open(folder / "attention.png") as sheet:
        return sheet.size


def test_rows_and_columns(tmp_path: Path) -> None:
    page = reports.attention(write(tmp_path / "a", 3))
    wide, high = size(tmp_path / "a")
    more = size(reports.attention(write(tmp_path / "b", 5)).parent)
    taller = size(reports.attention(write(tmp_path / "c", 3, ("1", "2", "3"))).parent)
    assert more[0] - wide == 2 * (60 + 10)
    assert more[1] == high
    assert (taller[0], taller[1] > high) == (wide, True)
    text = page.read_text("utf-8")
    assert "25.0 % of the map lies in the flaws" in text
    assert text.count("<tr>") == 1 + 3
    assert "bad_2.png" in text
    assert "http:" not in text
    assert "https:" not in text


def test_the_limit_is_said(tmp_path: Path) -> None:
    text = reports.attention(write(tmp_path, 5), limit=2).read_text("utf-8")
    assert "5 flawed images, 2 of them shown." in text


def test_without_masks_nothing_is_claimed(tmp_path: Path) -> None:
    text = reports.attention(write(tmp_path, marked=False)).read_text("utf-8")
    assert "% of the map" not in text
    assert "cover" not in text


def test_labels_are_escaped(tmp_path: Path) -> None:
    text = reports.attention(write(tmp_path, labels=("<script>alert(1)</script>",))).read_text("utf-8")
    assert "<script>alert" not in text


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="kizu attention"):
        reports.attention(tmp_path)
    folder = write(tmp_path / "a")
    info = json.loads((folder / "attention.json").read_text("utf-8"))
    (folder / "attention.json").write_text(json.dumps({**info, "columns": info["columns"][:1]}), "utf-8")
    with pytest.raises(LayoutError, match="do not fit"):
        reports.attention(folder)
    with pytest.raises(UsageError, match="limit"):
        reports.attention(folder, limit=0)


def test_the_images_shown_are_taken_evenly(tmp_path: Path) -> None:
    """Six images of which every second is shown: the sheet is that of these three alone."""
    write(tmp_path / "six", 6)
    reports.attention(tmp_path / "six", limit=3)
    with np.load(tmp_path / "six" / "attention.npz", allow_pickle=False) as held:
        normals = held["normals"]
    with Image.open(tmp_path / "six" / "attention.png") as sheet:
        drawn = np.asarray(sheet)
    for index, place in enumerate((0, 2, 4)):
        left = 24 + 190 + index * (60 + 10)
        np.testing.assert_array_equal(drawn[74:114, left : left + 60], normals[place])
