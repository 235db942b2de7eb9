"""Run folders: whole or not at all, the same numbers in memory and streamed, nothing invented where something
is undefined."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import kizu
from kizu.detectors.base import Detector
from kizu.errors import EmptyData, OutputExists, UsageError
from kizu.evaluation import predict
from kizu.evaluation.run import Run, evaluate
from kizu.evaluation.seen import was_trained_on
from kizu.samples import Samples


@pytest.fixture(scope="module")
def detector(tiny_planted: Samples) -> Detector:
    return kizu.detector("padim", "random/resnet10t@1,2", image_size=64, dimensions=16).fit(
        tiny_planted.train
    )


def test_streamed_numbers_are_within_their_bounds(
    detector: Detector, tiny_planted: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = evaluate(detector, tiny_planted.test, tmp_path / "exact", Run("exact"))
    monkeypatch.setattr(predict, "fits_in_memory", lambda images, size: False)
    streamed = evaluate(detector, tiny_planted.test, tmp_path / "streamed", Run("streamed"))
    assert streamed["image"] == exact["image"]
    assert all(
        streamed["pixel"][name] == pytest.approx(exact["pixel"][name], abs=1e-3) for name in exact["pixel"]
    )
    assert json.loads((tmp_path / "streamed" / "curves.json").read_text("utf-8"))["pixel"] is None


def test_only_good_images(detector: Detector, tiny_planted: Samples, tmp_path: Path) -> None:
    metrics = evaluate(detector, tiny_planted.test.normal, tmp_path / "run", Run("good"))
    assert metrics["image"] is None
    assert metrics["pixel"] is None
    assert metrics["decision"] is None


def test_images_without_masks_are_left_out_of_pixel_metrics(
    detector: Detector, tiny_planted: Samples, tmp_path: Path
) -> None:
    table = tiny_planted.test.table
    first = table["mask"].is_not_null().arg_max()
    masks = [None if row == first else mask for row, mask in enumerate(table["mask"])]
    fewer = Samples(table.with_columns(mask=pl.Series(masks, dtype=pl.String)))
    run, none = Run("fewer"), Run("none")
    metrics = evaluate(detector, fewer, tmp_path / "run", run)
    assert metrics["images"] == {"normal": 12, "anomalous": 12, "without_mask": 1}
    assert "1 flawed image has no mask" in run.notes[-1]
    assert "1 flawed image has no mask" in (tmp_path / "run" / "run.json").read_text("utf-8")
    without = evaluate(
        detector, Samples(table.with_columns(mask=pl.lit(None, pl.String))), tmp_path / "none", none
    )
    assert none.notes == [], "a data set without masks says nothing of pixels"
    assert without["pixel"] is None
    assert without["image"] == metrics["image"]


def test_a_run_is_whole_or_not_at_all(
    detector: Detector, tiny_planted: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(detector, tiny_planted.test, tmp_path / "run", Run("first"))
    with pytest.raises(OutputExists):
        evaluate(detector, tiny_planted.test, tmp_path / "run", Run("second"))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kizu.evaluation.run._table", full)
    with pytest.raises(OSError, match="No space"):
        evaluate(detector, tiny_planted.test, tmp_path / "run", Run("second"), overwrite=True)
    assert json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))["name"] == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_unlabelled_and_unreadable(detector: Detector, tiny_planted: Samples, tmp_path: Path) -> None:
    unknown = tiny_planted.test.table.with_columns(label=pl.lit(None, pl.Int8), defect=pl.lit("unknown"))
    with pytest.raises(UsageError, match="kizu inspect"):
        evaluate(detector, Samples(unknown), tmp_path / "run", Run("x"))
    gone = tiny_planted.test.table.with_columns(image=pl.concat_str(pl.col("image"), pl.lit(".gone.png")))
    with pytest.raises(EmptyData, match="None of the 24"):
        evaluate(detector, Samples(gone), tmp_path / "run", Run("x"))
    assert not list(tmp_path.iterdir())


def test_maps_come_back_from_any_scale(detector: Detector, tiny_planted: Samples, tmp_path: Path) -> None:
    from kizu.evaluation.run import _scale

    for peak in (1e-9, 0.3, 5.0, 4e6):
        maps = np.full((1, 2, 2), peak, np.float32)
        stored = (maps / _scale(maps)).astype(np.float16)
        assert np.allclose(stored.astype(np.float32) * np.float32(_scale(maps)), maps, rtol=1e-3)
        assert np.log2(_scale(maps)) % 1 == 0


def test_data_that_the_representation_has_seen(
    detector: Detector, tiny_planted: Samples, tmp_path: Path
) -> None:
    assert not was_trained_on(detector.representation, "visa")
    detector.representation.card["trained_on"] = ["visa"]
    assert was_trained_on(detector.representation, "visa")
    detector.representation.card["images_seen"] = []
    assert not was_trained_on(detector.representation, "visa")  # a list of images says it better than a name
    del detector.representation.card["images_seen"]
    with pytest.raises(UsageError, match="--allow-seen"):
        evaluate(detector, tiny_planted.test, tmp_path / "run", Run("x", dataset="visa"))
    evaluate(detector, tiny_planted.test, tmp_path / "run", Run("x", dataset="visa", allow_seen=True))
    assert json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))["seen"] is True
    detector.representation.card["trained_on"] = []
