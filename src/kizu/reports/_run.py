"""Reads a run folder: what a protocol wrote, nothing else. Nothing in it is trusted: no pickle, no path out
of it."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kizu.errors import LayoutError
from kizu.images import open_image
from kizu.masks import open_mask

COLUMNS: dict[str, type[pl.DataType]] = {
    "row": pl.Int64,
    "image": pl.String,
    "mask": pl.String,
    "label": pl.Int8,
    "category": pl.String,
    "defect": pl.String,
    "split": pl.String,
    "group": pl.String,
    "dataset": pl.String,
    "score": pl.Float64,
    "p_value": pl.Float64,
    "is_anomalous": pl.Boolean,
}
REQUIRED = ("row", "image", "label", "score")
MISTAKES = ("false alarm", "missed flaw")


@dataclass(frozen=True)
class Run:
    """An evaluated run. `samples`: one row per test image with COLUMNS and `verdict`; `metrics`, `curves`: as
    on disk, {} if absent."""

    folder: Path
    info: dict[str, Any]
    samples: pl.DataFrame
    metrics: dict[str, Any]
    curves: dict[str, Any]
    maps: Any = field(repr=False, default=None)

    @property
    def threshold(self) -> float | None:
        """Score above which an image is called anomalous, or None before calibration."""
        return number(section(self.info, "calibration").get("threshold"))

    @property
    def promised(self) -> float | None:
        """The promised false-alarm rate, or None before calibration."""
        return number(section(self.info, "calibration").get("false_alarm_rate"))

    @property
    def is_promise(self) -> bool:
        """Whether the rate is a promise that holds on average, or an estimate (cross, a named threshold)."""
        return section(self.info, "calibration").get("method") != "cross" and not self.is_named

    @property
    def is_named(self) -> bool:
        """Whether the threshold was named instead of a rate."""
        return section(self.info, "calibration").get("fixed") is True

    @functools.cached_property
    def map_range(self) -> tuple[float, float]:
        """Display range of the heat maps: the recorded one, else the 50th and 99.9th percentile over at most
        64 maps."""
        recorded = self.info.get("map_range")
        if isinstance(recorded, list) and len(recorded) == 2:
            low, high = number(recorded[0]), number(recorded[1])
            if low is not None and high is not None and low <= high:
                return low, high
        heats = [heat for row in self.samples["row"][:64] if (heat := self.heat(row)) is not None]
        values = np.concatenate([heat[np.isfinite(heat)] for heat in heats]) if heats else np.zeros(0)
        return (
            (float(np.percentile(values, 50)), float(np.percentile(values, 99.9)))
            if values.size
            else (0.0, 1.0)
        )

    def image(self, row: int) -> NDArray[np.uint8] | None:
        """Thumbnail (h, w, 3) of a test image, or None. Raises ImageError for a damaged one."""
        path = self.folder / "images" / f"{int(row)}.jpg"
        return open_image(path) if path.is_file() else None

    def mask(self, row: int) -> NDArray[np.bool_] | None:
        """True defect (H, W) at the size of the map, or None. Raises ImageError for a damaged one."""
        path = self.folder / "masks" / f"{int(row)}.png"
        return open_mask(path) if path.is_file() else None

    def heat(self, row: int) -> NDArray[np.float32] | None:
        """Raw map (H, W) float32, or None where none was kept."""
        if self.maps is None or str(int(row)) not in self.maps:
            return None
        try:
            scale = np.float32(self.maps.get("scale", 1.0))
            heat = np.asarray(self.maps[str(int(row))], dtype=np.float32) * scale
        except (ValueError, TypeError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise LayoutError(
                f"{self.folder / 'maps.npz'} is damaged: no array for row {row} ({error}). Evaluate again."
            ) from error
        if heat.ndim != 2:
            raise LayoutError(
                f"{self.folder / 'maps.npz'} is damaged: the map of row {row} has shape {heat.shape}, (H, W) "
                "was expected."
            )
        return heat


@contextlib.contextmanager
def open_run(folder: Path | str) -> Iterator[Run]:
    """Open a run folder for reading. Raises LayoutError when it is none, naming the file that is missing or
    damaged."""
    folder = Path(folder)
    for name in ("run.json", "samples.parquet"):
        if not (folder / name).is_file():
            raise LayoutError(
                f"{folder} is no run folder: it has no {name}. Give the folder that `kizu evaluate` wrote."
            )
    info, metrics, curves = (
        _read_json(folder / name) for name in ("run.json", "metrics.json", "curves.json")
    )
    samples = _read_samples(folder / "samples.parquet")
    with contextlib.ExitStack() as stack:
        maps = (
            stack.enter_context(_open_maps(folder / "maps.npz")) if (folder / "maps.npz").is_file() else None
        )
        yield Run(folder, info, samples, metrics, curves, maps)


def number(value: Any) -> float | None:
    """A finite number, or None for anything else (null, text, NaN, a missing key)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def section(record: dict[str, Any], name: str) -> dict[str, Any]:
    """A nested object of a JSON record; {} where it is null or missing."""
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def verdict() -> pl.Expr:
    """What label and decision together say of an image, in two words."""
    called, label = pl.col("is_anomalous"), pl.col("label")
    return (
        pl.when(called & (label == 0))
        .then(pl.lit("false alarm"))
        .when(~called & (label == 1))
        .then(pl.lit("missed flaw"))
        .when(called & (label == 1))
        .then(pl.lit("flaw found"))
        .when(~called & (label == 0))
        .then(pl.lit("good, passed"))
        .when(called)
        .then(pl.lit("called anomalous"))
        .when(~called)
        .then(pl.lit("called normal"))
        .when(label == 1)
        .then(pl.lit("flawed"))
        .when(label == 0)
        .then(pl.lit("good"))
        .otherwise(pl.lit("unlabelled"))
    )


def worst_first(run: Run) -> pl.DataFrame:
    """Samples, the most instructive first.

    False alarms (highest score first) and missed flaws (lowest first) in turn, then the rest, nearest to the
    threshold first. Without decisions: by the share of images of the other label that are ranked on the wrong
    side of it, then by score."""
    samples = run.samples
    if samples["is_anomalous"].null_count() == samples.height:
        return _worst_ranked(samples)
    badness = pl.when(pl.col("verdict") == "missed flaw").then(-pl.col("score")).otherwise(pl.col("score"))
    distance = (pl.col("score") - (run.threshold if run.threshold is not None else 0.0)).abs()
    mistake = pl.col("verdict").is_in(MISTAKES)
    turn = pl.when(mistake).then(badness.rank("ordinal", descending=True).over("verdict")).otherwise(0)
    kind = pl.when(mistake).then(pl.col("verdict")).otherwise(pl.lit(""))
    return samples.sort(mistake.not_(), turn, kind, distance, pl.col("row"))


def _worst_ranked(samples: pl.DataFrame) -> pl.DataFrame:
    score, label = samples["score"].to_numpy(), samples["label"].fill_null(-1).to_numpy()
    good, flawed = np.sort(score[label == 0]), np.sort(score[label == 1])
    wrong = np.zeros(len(score))
    if good.size and flawed.size:
        above = 1 - np.searchsorted(good, score, side="left") / good.size
        below = np.searchsorted(flawed, score, side="right") / flawed.size
        wrong = np.where(label == 0, below, np.where(label == 1, above, 0.0))
    keyed = samples.with_columns(pl.Series("_wrong", wrong))
    return keyed.sort("_wrong", "score", descending=True).drop("_wrong")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text("utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise LayoutError(f"{path} is damaged: it is not JSON ({error}). Evaluate again.") from error
    if record is None:
        return {}
    if not isinstance(record, dict):
        raise LayoutError(
            f"{path} is damaged: an object was expected, got {type(record).__name__}. Evaluate again."
        )
    return record


def _read_samples(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise LayoutError(
            f"{path} is damaged: it is not a Parquet table ({error}). Evaluate again."
        ) from error
    missing = [name for name in REQUIRED if name not in frame.columns]
    if missing:
        raise LayoutError(f"{path} lacks the columns {missing}; it has {frame.columns}.")
    absent = [
        pl.lit(None, dtype=kind).alias(name) for name, kind in COLUMNS.items() if name not in frame.columns
    ]
    frame = frame.with_columns(absent).select(pl.col(name).cast(kind) for name, kind in COLUMNS.items())
    return frame.with_columns(verdict().alias("verdict"))


@contextlib.contextmanager
def _open_maps(path: Path) -> Iterator[Any]:
    with path.open("rb") as stream:
        try:
            maps = np.load(stream, allow_pickle=False)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise LayoutError(
                f"{path} is damaged: it is not an NPZ file of arrays ({error}). Evaluate again."
            ) from error
        if not isinstance(maps, np.lib.npyio.NpzFile):
            raise LayoutError(
                f"{path} is damaged: one array, where an NPZ file of arrays was expected. Evaluate again."
            )
        with maps:
            yield maps
