"""Moving the decision: the same scores at another rate, other images, a named threshold; and what good images
look like as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import beta

import kizu
from kizu.calibration import exceedance_p_value
from kizu.detectors._appearance import Appearance, describe
from kizu.detectors.base import Detector
from kizu.errors import NotFitted, TooFewImages, UsageError
from kizu.evaluation.calibrated import fit_calibrated
from kizu.samples import Samples


@pytest.fixture(scope="module")
def fitted(tiny_planted: Samples) -> Detector:
    """A gaussian on 12 images."""
    detector = kizu.detector("gaussian", "random/resnet10t@2", image_size=64, precision="fp32")
    return detector.fit(tiny_planted.train.normal.take(range(12)))


def test_the_stored_scores_serve_another_rate(
    fitted: Detector, tiny_planted: Samples, tmp_path: Path
) -> None:
    """As if they had been calibrated at that rate in the first place; the map's threshold moves along."""
    rest = tiny_planted.train.normal.take(range(12, 24))
    fitted.recalibrate(rest, false_alarm_rate=0.1)
    moved = kizu.load(fitted.save(tmp_path / "first.kizu")).recalibrate(false_alarm_rate=0.4)
    fresh = fitted.recalibrate(rest, false_alarm_rate=0.4).decision_
    for name in ("threshold", "map_threshold", "false_alarm_rate", "certified_rate", "parts", "file_sizes"):
        assert getattr(moved.decision_, name) == getattr(fresh, name), name
    again = kizu.load(moved.save(tmp_path / "second.kizu"))
    assert again.decision_.facts() == moved.decision_.facts()
    test = tiny_planted.test
    before, after = moved.predict(test), again.predict(test)
    assert torch.equal(before.is_anomalous, after.is_anomalous)
    assert torch.equal(before.unlike, after.unlike)
    assert np.isclose(np.mean(moved.decision_.scores > moved.decision_.threshold), 4 / 12)
    with pytest.raises(TooFewImages, match="takes 99 calibration"):
        moved.recalibrate(false_alarm_rate=0.01)
    assert moved.decision_.false_alarm_rate == 0.4


def test_a_named_threshold_is_certified_and_promises_nothing(
    fitted: Detector, tiny_planted: Samples, tmp_path: Path
) -> None:
    fitted.recalibrate(tiny_planted.train.normal.take(range(12, 24)))
    limit = float(np.sort(fitted.decision_.scores)[-3])
    model = kizu.load(fitted.save(tmp_path / "model.kizu")).recalibrate(threshold=limit)
    decision = kizu.load(model.save(tmp_path / "named.kizu")).decision_
    assert decision.fixed
    assert decision.threshold == limit
    assert decision.false_alarm_rate == pytest.approx(3 / 13)  # two above it, and the new one
    assert decision.certified_rate == pytest.approx(beta.ppf(0.95, 3, 10))
    assert bool(
        (
            model.predict(tiny_planted.test).is_anomalous == (model.predict(tiny_planted.test).score > limit)
        ).all()
    )
    low = model.recalibrate(threshold=-1e6).decision_
    assert low.false_alarm_rate == 1.0
    assert low.map_threshold is not None


def test_what_is_refused(fitted: Detector, tiny_planted: Samples) -> None:
    good = tiny_planted.train.normal
    with pytest.raises(NotFitted):
        fitted.clone().recalibrate(threshold=1.0)
    fitted.recalibrate(good.take(range(12, 24)), false_alarm_rate=0.2)
    before = fitted.decision_
    refused = {
        "name one": {"false_alarm_rate": 0.1, "threshold": 1.0},
        "Nothing is to change": {},
        "learned from 2 of the 4 images": {"good": good.take([10, 11, 12, 13])},
        "anomalous": {"good": tiny_planted.test},
        "between 0 and 1": {"false_alarm_rate": 2.0},
        "finite": {"threshold": float("nan")},
    }
    for match, arguments in refused.items():
        with pytest.raises(UsageError, match=match):
            fitted.recalibrate(**arguments)
        assert fitted.decision_ is before
    bare = fitted.clone().fit(good.take(range(4)))
    with pytest.raises(UsageError, match="holds no scores"):
        bare.recalibrate(false_alarm_rate=0.1)


def test_copies_and_groups_count_once(fitted: Detector, tiny_planted: Samples) -> None:
    rest = tiny_planted.train.normal.take(range(12, 24))
    named = Samples(rest.table.with_columns(group=kizu_series(["a"] * 3 + [None] * 9)))
    assert fitted.recalibrate(named, false_alarm_rate=0.2).decision_.parts == 10
    twice = rest.take([*range(12), 0, 1])
    assert fitted.recalibrate(twice, false_alarm_rate=0.2).decision_.parts == 12


def kizu_series(values: list[str | None]) -> object:
    """A column."""
    import polars as pl

    return pl.Series("group", values, dtype=pl.String)


def test_the_exceedance_p_value_is_that_of_drawn_ranks() -> None:
    """Brute force: ranks of exchangeable numbers; and never below what was drawn."""
    rng = np.random.default_rng(0)
    numbers = rng.random((20_000, 19 + 8))
    known, new = numbers[:, :19], numbers[:, 19:]
    for above_known in (0, 2):
        limit = np.sort(known, axis=1)[:, -1 - above_known, None]
        passed = (new > limit).sum(1)
        for count in range(1, 9):
            expected = exceedance_p_value(count, 8, above_known, 19)
            drawn = (passed >= count).mean()
            assert abs(drawn - expected) < 4 * np.sqrt(expected / 20_000) + 1e-4
    assert exceedance_p_value(0, 8, 2, 19) == 1.0
    assert exceedance_p_value(3, 8, 19, 19) == 1.0
    with pytest.raises(UsageError, match="more than there are"):
        exceedance_p_value(9, 8, 0, 19)


def test_descriptions_are_means_of_cells() -> None:
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    found = describe(images).reshape(2, 5, 8, 8)
    assert torch.allclose(found[1, 2, 3, 4], images[1, 2, 12:16, 24:30].mean(), atol=1e-6)
    grey = images.mean(1)
    steps = (grey[0, :, 1:] - grey[0, :, :-1]).abs()
    assert torch.allclose(found[0, 3, 0, 0], steps[:4, :6].mean(), atol=1e-6)


def test_the_limit_is_between_parts_and_leaves_a_twentieth_out() -> None:
    """40 parts on a line, 1 apart, two images each at 0.1; two parts lie far away: they are the twentieth."""
    places = np.repeat(np.r_[np.arange(38.0), 100.0, 200.0], 2) + np.tile([0.0, 0.1], 40)
    rows = np.zeros((80, 320), np.float32)
    rows[:, 0] = places
    look = Appearance(rows, np.repeat(np.arange(40), 2))
    assert (look.parts, look.above) == (40, 2)
    assert look.limit * look._scale[0] == pytest.approx(1.0, abs=1e-3)
    alone = Appearance(rows[:2], np.array([0, 0]))
    assert alone.limit == np.inf
    assert not bool(alone.unlike(torch.rand(3, 3, 16, 16)).any())


def test_features_without_images_leave_the_look_open(fitted: Detector, tiny_planted: Samples) -> None:
    calibrated = fit_calibrated(fitted.clone(), tiny_planted.train.normal, false_alarm_rate=0.2)
    assert calibrated.decision_.appearance.parts == 5
    assert calibrated.predict(tiny_planted.test).unlike.shape == (24,)
    scores = calibrated.decision_.scores
    assert calibrated.set_calibration(scores, 0.2).predict(tiny_planted.test).unlike is None
