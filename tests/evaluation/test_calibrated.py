"""fit_calibrated keeps its promise on planted data, by split and by cross-conformal, and refuses what it
cannot keep."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import kizu
from kizu.apps._fit import promise
from kizu.calibration import folds, images_needed
from kizu.datasets.planted import planted
from kizu.detectors import Decision
from kizu.errors import OtherSize, TooFewImages, UnknownName, UsageError
from kizu.evaluation.calibrated import calibrate, fit_calibrated
from kizu.evaluation.calibration_method import held_out, plan
from kizu.protocols.base import hold_out
from kizu.representations.sources import open_representation
from kizu.samples import Samples
from kizu.types import Batch


def test_the_plan() -> None:
    assert plan(1000, 0.01, "auto") == "split"
    assert plan(200, 0.01, "auto") == "cross"
    assert plan(10, None, "auto") == "cross"
    with pytest.raises(TooFewImages, match="takes 99 good images to calibrate on; 50 good images leave 50"):
        plan(50, 0.01, "auto")
    assert plan(198, 0.01, "split") == "split"
    with pytest.raises(TooFewImages, match=r"197 good images leave 98 \(split, at most half .* least 198"):
        plan(197, 0.01, "split")
    assert images_needed(0.01) == 99


def test_as_many_are_held_out_as_the_rate_needs() -> None:
    """Never fewer than a fifth, never more than half, and no more than are needed."""
    for count in range(2, 400):
        for rate in (0.01, 0.05, 0.1, 0.2, 0.34, 0.9):
            fifth, needed, held = held_out(count, None), images_needed(rate), held_out(count, rate)
            assert fifth <= held <= max(fifth, count // 2)
            assert held in (fifth, needed, count // 2)
            assert (held >= needed) == (needed <= max(fifth, count // 2))
    assert [held_out(count, 0.1) for count in (17, 18, 20, 45, 60)] == [8, 9, 9, 9, 12]


def test_what_is_held_out_for_a_rate_keeps_it() -> None:
    """18 parts and 10 %: nine are held out, and of ten parts that are drawn alike the new one is the largest
    with probability 1 / 10, whatever was learned from the other nine."""
    draws, new = 4000, 50
    parts = np.random.default_rng(0).gamma(2.0, size=(draws, 18 + new))
    held = held_out(18, 0.1)
    centre = np.median(parts[:, held:18], axis=1, keepdims=True)
    scores = np.abs(parts - centre)
    limits = np.array([kizu.calibration.conformal_threshold(row[:held], 0.1) for row in scores])
    rates = (scores[:, 18:] > limits[:, None]).mean(1)
    assert abs(rates.mean() - 0.1) < 4 * rates.std() / np.sqrt(draws)


@pytest.mark.parametrize("trained", ["detector", "adaptation"])
def test_a_training_holds_out_more_than_a_fifth_for_a_rate(
    trained: str, tiny_planted: Samples, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """24 images, and one that is broken: a fifth would be 5, 10 % takes 9, all of which can be read."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(tiny_planted.train.paths[0]).read_bytes()[:200])
    row = tiny_planted.train.take([0]).table.with_columns(image=pl.lit(str(broken)))
    data, net = Samples(row).concat(tiny_planted.train), "random/resnet10t@2"
    if trained == "detector":
        model = kizu.detector(
            "simplenet",
            net,
            image_size=64,
            precision="fp32",
            training_precision="fp32",
            iterations=2,
            hidden=8,
            batch_size=4,
        )
    else:
        chosen = kizu.Adaptation(
            "mean_shifted", {"passes": 1, "frozen_level": 0, "training_precision": "fp32"}
        )
        model = kizu.detector("gaussian", net, adaptation=chosen, image_size=64, precision="fp32")
    with caplog.at_level("INFO", logger="kizu.evaluation"):
        fit_calibrated(model, data, false_alarm_rate=0.1, seed=3)
    assert model.decision_ is not None
    assert (len(model.decision_.scores), model.images_seen_) == (9, 15)
    assert [path for path, _ in model.skipped_] == [str(broken)]
    (said,) = (record.message for record in caplog.records if record.name == "kizu.evaluation.calibrated")
    assert said.startswith("Calibrating on 9 of 24 good images, more than a fifth")
    new = model.predict(tiny_planted.test.normal)
    assert torch.equal(new.is_anomalous, new.score > float(max(model.decision_.scores)))
    with pytest.raises(TooFewImages, match="24 good images leave 12"):
        fit_calibrated(model.clone(), data, false_alarm_rate=0.07)


@pytest.mark.parametrize("name", ["gaussian", "padim"])
def test_two_images_are_learned_from_without_a_decision(name: str, tiny_planted: Samples) -> None:
    """Each scored by the other they have one score: no sign of a blind detector."""
    detector = kizu.detector(name, "random/resnet10t@2", image_size=64)
    assert fit_calibrated(detector, tiny_planted.train.normal.take([0, 1])).decision_ is None


def test_too_few_images_because_some_are_held_out(tiny_planted: Samples) -> None:
    detector = kizu.detector("gaussian", "random/resnet10t@2", image_size=64, adaptation="mean_shifted")
    with pytest.raises(TooFewImages, match="Of 2 good images 1 is held out"):
        fit_calibrated(detector, tiny_planted.train.normal.take([0, 1]))


def test_a_refusal_comes_before_any_work(tiny_planted: Samples) -> None:
    detector = kizu.detector("gaussian", "random/resnet10t@2", image_size=64)
    with pytest.raises(TooFewImages):
        fit_calibrated(detector, tiny_planted.train, false_alarm_rate=0.001)
    assert not detector.fitted_
    with pytest.raises(UsageError, match="auto, split, cross, none"):
        fit_calibrated(detector, tiny_planted.train, method="guess")
    with pytest.raises(UsageError, match="no effect without calibration"):
        fit_calibrated(detector, tiny_planted.train, method="none", false_alarm_rate=0.1)
    for call in (
        lambda: fit_calibrated(detector, tiny_planted.train, seed=-1),
        lambda: hold_out(tiny_planted.train, 0.5, seed=-1),
        lambda: folds(10, 2, seed=-1),
    ):
        with pytest.raises(UsageError, match="seed is a whole number from 0 on, got -1"):
            call()
    assert not detector.fitted_


@pytest.mark.parametrize("method", ["split", "cross"])
def test_calibrated_predictions(method: str, tiny_planted: Samples) -> None:
    detector = kizu.detector("padim", "random/resnet10t@1,2", image_size=64, dimensions=16)
    fit_calibrated(detector, tiny_planted.train, false_alarm_rate=0.2, method=method)
    prediction = detector.predict(tiny_planted.test)
    assert detector.decision_.method == method
    assert len(detector.decision_.scores) == (5 if method == "split" else 24)
    assert detector.images_seen_ == (19 if method == "split" else 24)
    assert torch.equal(prediction.is_anomalous, prediction.p_value <= 0.2)
    assert prediction.p_value.min() >= 1 / (len(detector.decision_.scores) + 1)


def test_without_a_rate_the_smallest_that_can_be_backed(tiny_planted: Samples) -> None:
    detector = fit_calibrated(
        kizu.detector("gaussian", "random/resnet10t@2", image_size=64), tiny_planted.train
    )
    assert detector.decision_.false_alarm_rate == pytest.approx(1 / 25)
    alone = fit_calibrated(
        kizu.detector("gaussian", "random/resnet10t@2", image_size=64), tiny_planted.train.take([0])
    )
    assert alone.decision_ is None


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """Features of 240 planted good images under a small network: the detector's scores vary as real ones
    do."""
    samples = planted(
        tmp_path_factory.mktemp("pool") / "data",
        products="metal",
        train=240,
        test_good=1,
        test_defective=1,
        size=48,
    )
    from kizu.loader import batches

    frozen = open_representation("random/resnet10t@3").inference_copy("fp32")
    return torch.cat([frozen(batch.images)[0] for batch in batches(samples.train, image_size=(48, 48))])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["split", "cross"])
def test_the_promise_over_many_seeds(pool: torch.Tensor, method: str) -> None:
    """Wanted 10 %: 60 draws of 60 images to fit and calibrate and 180 new ones; the mean rate of false
    alarms stays at or below."""
    from kizu.calibration import conformal_threshold, folds
    from kizu.nn import density

    def unit(rows: torch.Tensor) -> torch.Tensor:
        pooled, length = density.pool([rows])
        return (pooled / length).double()

    def fit(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, covariance, _ = density.ledoit_wolf(unit(rows))
        return mean, density.whitening(covariance)

    def score(model: tuple[torch.Tensor, torch.Tensor], rows: torch.Tensor) -> np.ndarray:
        return ((unit(rows) - model[0]) @ model[1].T).norm(dim=1).numpy()

    rates = []
    for seed in range(60):
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))
        known, new = pool[order[:60]], pool[order[60:]]
        if method == "split":
            model = fit(known[:30])
            scores = score(model, known[30:])
        else:
            model = fit(known)
            parts = [torch.from_numpy(part) for part in folds(60, 5, seed)]
            scores = np.concatenate(
                [score(fit(known[~torch.isin(torch.arange(60), part)]), known[part]) for part in parts]
            )
        rates.append(np.mean(score(model, new) > conformal_threshold(scores, 0.1)))
    error = np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) <= 0.1 + 3 * error
    if method == "split":
        assert abs(np.mean(rates) - np.floor(31 * 0.1) / 31) < 4 * error, (
            "split conformal is exact, not merely safe"
        )


def test_groups_are_calibrated_together(tiny_planted: Samples, tmp_path: Path) -> None:
    import polars as pl

    table = tiny_planted.train.table.with_columns(group=pl.Series([f"part {row // 8}" for row in range(24)]))
    grouped = Samples(table)
    with pytest.raises(TooFewImages, match="3 groups of good images leave 3"):
        fit_calibrated(
            kizu.detector("gaussian", "random/resnet10t@2", image_size=64), grouped, false_alarm_rate=0.1
        )


def test_what_is_trained_is_not_calibrated_by_folds(tiny_planted: Samples) -> None:
    """Two trainings give two scales of scores: pooled, they were wrong by a factor six."""
    detector = kizu.detector(
        "simplenet", "random/resnet10t@2", image_size=64, iterations=2, hidden=8, batch_size=4
    )
    with pytest.raises(UsageError, match="two scales of scores"):
        fit_calibrated(detector, tiny_planted.train, method="cross", false_alarm_rate=0.2)
    fit_calibrated(detector, tiny_planted.train)
    assert detector.decision_.method == "split"
    assert detector.decision_.false_alarm_rate == pytest.approx(1 / 6)


def test_an_unreadable_calibration_image_is_said(tiny_planted: Samples, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(tiny_planted.train.paths[0]).read_bytes()[:200])
    rows = tiny_planted.train.take([0]).table.with_columns(image=pl.lit(str(broken)))
    held = tiny_planted.test.normal.concat(Samples(rows))
    detector = kizu.detector("gaussian", "random/resnet10t@2", image_size=64).fit(tiny_planted.train)
    calibrate(detector, held, 0.2)
    assert [path for path, _ in detector.skipped_] == [str(broken)]
    assert len(detector.decision_.scores) == 12


def test_what_a_fit_says_of_its_rate() -> None:
    """With 59 parts and all of them below the threshold, 5 % are certain; with the threshold of a promise of
    5 %, two lie above it, and it takes the smaller rate that is named."""
    said = {}
    for rate in (0.05, 1 / 60):
        model = SimpleNamespace(decision_=Decision(range(59), rate))
        said[rate] = promise(model)  # type: ignore[arg-type]
    assert "takes 59 parts to calibrate on, and --false-alarm-rate 0.01667" in said[0.05]
    assert "this model's rate is at most 10.29%" in said[0.05]
    assert "this model's rate is at most 4.95%" in said[1 / 60]
    with pytest.raises(UnknownName, match="guess"):
        Decision(range(59), 0.05, method="guess")


def test_files_of_another_size_than_the_calibration(tiny_planted: Samples, tmp_path: Path) -> None:
    """They are resized, so every score moves: the promise is not about them, and that is said."""
    model = kizu.detector("gaussian", "random/resnet10t@1", image_size=32)
    fit_calibrated(model, tiny_planted.train, false_alarm_rate=0.2)
    path = tiny_planted.train.paths[0]
    with Image.open(path) as opened:
        width, height = opened.size
        opened.resize((width // 2, height // 2)).save(tmp_path / "small.png")
    assert model.decision_ is not None
    assert model.decision_.file_sizes == (height, width, height, width)
    model = kizu.load(model.save(tmp_path / "m.kizu"))
    with pytest.warns(OtherSize, match=f"{height // 2} x {width // 2} pixels.* on {height} x {width}"):
        model.predict([path, tmp_path / "small.png"])
    with Image.open(path) as opened:
        array = np.asarray(opened.convert("RGB"))
    for image in (array[::2, ::2], Image.fromarray(array[::2, ::2]), (tmp_path / "small.png").read_bytes()):
        with pytest.warns(OtherSize, match=f"images of {height // 2} x {width // 2} pixels"):
            model.predict([array, image] if isinstance(image, np.ndarray) else [image])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict([path])
        model.predict(array)
        images = torch.rand(1, 3, 32, 32)
        model.predict(Batch(images, paths=("of no file.png",)))
