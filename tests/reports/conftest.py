"""Writes small run folders as the protocols do, with drawn images of parts in which the flaws can be seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageDraw, ImageFilter

RUN: dict[str, Any] = {
    "kizu": "0.1.0",
    "name": "washers, PatchCore on WideResNet-50",
    "created": "2026-01-05T10:00:00+00:00",
    "command": "kizu evaluate model washers -o run",
    "detector": "patchcore",
    "parameters": {"coreset": 0.1, "neighbours": 9},
    "representation": "wide_resnet50_2",
    "dataset": "washers",
    "category": "m8",
    "protocol": "one_class",
    "seed": 0,
    "image_size": [64, 64],
    "calibration": {"method": "conformal", "images": 60, "false_alarm_rate": 0.05, "threshold": 3.0},
    "map_range": [0.6, 4.5],
    "seconds": {"fit": 41.2, "predict": 9.7},
    "seen": False,
    "notes": [],
    "errors": [],
    "machine": "laptop, 8 cores",
    "commit": "0123abc",
}


def part(rng: np.random.Generator, defect: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A metal washer on a dark belt, (size, size, 3) uint8, and the mask of its flaw, (size, size) bool."""
    picture = Image.new("RGB", (size, size), (38, 42, 48))
    pen = ImageDraw.Draw(picture)
    shift, outer = rng.integers(-size // 24, size // 24 + 1, 2), 0.38 * size
    centre = np.array([size / 2, size / 2]) + shift
    shade = int(rng.integers(168, 190))
    for radius, tone in (
        (outer, shade - 22),
        (outer * 0.95, shade),
        (outer * 0.5, shade - 30),
        (outer * 0.45, 40),
    ):
        pen.ellipse([*(centre - radius), *(centre + radius)], fill=(tone, tone, min(255, tone + 4)))
    mask = Image.new("1", (size, size))
    if defect != "good":
        angle = rng.uniform(0, 2 * np.pi)
        spot = centre + 0.7 * outer * np.array([np.cos(angle), np.sin(angle)])
        reach = size * rng.uniform(0.03, 0.07)
        for canvas, ink in (
            (pen, (92, 58, 34) if defect == "rust" else (225, 228, 232)),
            (ImageDraw.Draw(mask), 1),
        ):
            if defect == "scratch":
                way = reach * 2.6 * np.array([np.sin(angle), -np.cos(angle)])
                canvas.line([*(spot - way), *(spot + way)], fill=ink, width=max(2, size // 70))
            else:
                canvas.ellipse([*(spot - reach), *(spot + reach)], fill=ink)
    soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(size / 200)), dtype=np.float32)
    light = np.linspace(-9, 9, size)[None, :, None]
    noisy = soft + light + rng.normal(0, 2.5, soft.shape[:2])[..., None]
    return np.clip(noisy, 0, 255).astype(np.uint8), np.asarray(mask)


def write_run(
    folder: Path,
    *,
    good: int = 4,
    defects: dict[str, int] | None = None,
    info: dict[str, Any] | None = None,
    calibrated: bool = True,
    pixel: bool = True,
    size: int = 96,
    names: Callable[[int], str] | None = None,
    seed: int = 0,
) -> Path:
    """A run folder of `good` normal test images and of the given numbers of each defect."""
    rng = np.random.default_rng(seed)
    kinds = ["good"] * good + [
        kind
        for kind, count in (defects if defects is not None else {"scratch": 3, "rust": 3}).items()
        for _ in range(count)
    ]
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows, maps = [], {}
    for row, kind in enumerate(kinds):
        image, mask = part(rng, kind, size)
        Image.fromarray(image).save(folder / "images" / f"{row}.jpg", quality=88)
        heat = _heat(rng, mask, size)
        maps[str(row)] = (heat * 4).astype(np.float16)
        if kind != "good":
            Image.fromarray(_at(mask, heat.shape[0])).save(folder / "masks" / f"{row}.png")
        score = float(np.float32(heat.max()))
        rows.append(_row(row, kind, score, calibrated, (names or (lambda i: f"{i:03}.png"))(row)))
    pl.DataFrame(
        rows,
        schema_overrides={
            "label": pl.Int8,
            "score": pl.Float32,
            "p_value": pl.Float64,
            "is_anomalous": pl.Boolean,
        },
    ).write_parquet(folder / "samples.parquet")
    np.savez_compressed(folder / "maps.npz", **maps, scale=np.float32(0.25))
    _write_json(folder, kinds, {**RUN, **(info or {})}, calibrated, pixel)
    return folder


def _row(row: int, kind: str, score: float, calibrated: bool, name: str) -> dict[str, Any]:
    flawed = kind != "good"
    return {
        "row": row,
        "image": f"washers/test/{kind}/{name}",
        "mask": f"washers/mask/{kind}/{name}" if flawed else None,
        "label": int(flawed),
        "category": "m8",
        "defect": kind,
        "split": "test",
        "group": None,
        "dataset": "washers",
        "score": score,
        "p_value": float(np.clip(np.exp(-(score - 1) * 1.4), 1 / 61, 1)) if calibrated else None,
        "is_anomalous": score > 3.0 if calibrated else None,
    }


def _at(mask: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))


def _heat(rng: np.random.Generator, mask: np.ndarray, size: int) -> np.ndarray:
    side = max(16, size * 2 // 3)
    small = np.asarray(
        Image.fromarray(rng.normal(0, 1, (14, 14)).astype(np.float32)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
    )
    ground = 1.0 + 0.45 * np.abs(small) + rng.exponential(0.12)
    blob = (
        Image.fromarray(_at(mask, side).astype(np.uint8) * 255)
        .filter(ImageFilter.MaxFilter(5))
        .filter(ImageFilter.GaussianBlur(side / 40))
    )
    spread = np.asarray(blob, dtype=np.float32)
    return ground + spread / max(1.0, float(spread.max())) * rng.uniform(0.9, 4)


def _write_json(folder: Path, kinds: list[str], info: dict[str, Any], calibrated: bool, pixel: bool) -> None:
    flawed = sum(kind != "good" for kind in kinds)
    info["counts"] = {
        "train": 250,
        "calibration": 60,
        "test_normal": len(kinds) - flawed,
        "test_anomalous": flawed,
    }
    info["calibration"] = info["calibration"] if calibrated else None
    both = 0 < flawed < len(kinds)
    grid = np.linspace(0, 1, 200)
    curves = {"x": grid.tolist(), "y": (grid**0.06).tolist()}
    falling = {"x": grid.tolist(), "y": (1 - grid**9).tolist()}
    image = (
        {"auroc": 0.9625, "ap": 0.9712, "f1_max_oracle": 0.9344}
        if both
        else {"auroc": None, "ap": None, "f1_max_oracle": None}
    )
    dense = {"auroc": 0.9811, "ap": 0.6123, "f1_max_oracle": 0.5987, "aupro_0.3": 0.9234}
    records = {
        "run.json": info,
        "metrics.json": {
            "image": image,
            "pixel": dense if pixel and both else None,
            "by_defect": [
                {"defect": kind, "images": kinds.count(kind), "auroc": 0.95, "detected": 0.9}
                for kind in sorted(set(kinds) - {"good"})
            ],
        },
        "curves.json": {
            "image": {"roc": curves, "pr": falling} if both else None,
            "pixel": {"roc": curves, "pr": falling, "pro": curves} if pixel and both else None,
        },
    }
    for name, record in records.items():
        (folder / name).write_text(json.dumps(record), encoding="utf-8")
    (folder / "log.jsonl").write_text("")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """`write_run` into a folder of its own."""

    def make(**options: Any) -> Path:
        return write_run(tmp_path / "run", **options)

    return make
