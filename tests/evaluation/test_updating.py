"""Learning on: exactly a fit on all where sums say so, a bank that covers all, and a promise that holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import kizu
from kizu.datasets.planted import planted
from kizu.detectors.base import Detector
from kizu.errors import EmptyData, NotFitted, TooFewImages, UsageError
from kizu.evaluation.calibrated import fit_calibrated
from kizu.evaluation.updating import update_calibrated
from kizu.neighbours.coreset import covering_radius
from kizu.samples import Samples

NET = "random/resnet10t@2,3"


def tiny(name: str, **parameters: object) -> Detector:
    """A detector for 64 pixels."""
    return kizu.detector(name, NET, image_size=64, precision="fp32", **parameters)


@pytest.mark.parametrize("accel", ["0", "1"])
@pytest.mark.parametrize("count", [3, 9])
def test_padim_learns_on_to_a_fit_on_all(
    accel: str, count: int, tiny_planted: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the file, with few images (singular without eps) and more: scores of a fit on all by the other
    path, which keeps no sums."""
    monkeypatch.setenv("KIZU_ACCEL", accel)
    good, test = tiny_planted.train.normal, tiny_planted.test
    model = tiny("padim", dimensions=24, updatable=True).fit(good.take(range(count)))
    model = kizu.load(model.save(tmp_path / "model.kizu"))
    model.update(good.take(range(count, 12)))
    whole = tiny("padim", dimensions=24).fit(good.take(range(12)))
    assert model.images_seen_ == 12
    torch.testing.assert_close(model.predict(test).score, whole.predict(test).score, rtol=2e-3, atol=1e-3)
    again = kizu.load(model.save(tmp_path / "again.kizu"))
    assert torch.equal(again.predict(test).score, model.predict(test).score)
    some = tiny("padim", dimensions=24).fit(good.take(range(count))).predict(test).score
    assert not torch.allclose(some, whole.predict(test).score, rtol=2e-2)


def test_the_sums_of_padim_are_those_of_all_images(tiny_planted: Samples) -> None:
    good = tiny_planted.train.normal
    model = tiny("padim", dimensions=12, updatable=True).fit(good.take(range(5)))
    for rows in (range(5, 9), range(9, 20)):
        model.update(good.take(rows))
    whole = tiny("padim", dimensions=12, updatable=True).fit(good.take(range(20)))
    for name, tensor in whole._state().items():
        if name.startswith("sum_"):
            torch.testing.assert_close(model._state()[name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parameters", [{}, {"copies": 3}, {"covariance": "ridge", "ridge": 0.1}])
def test_gaussian_learns_on_to_a_fit_on_all(
    parameters: dict[str, object], tiny_planted: Samples, tmp_path: Path
) -> None:
    good, test = tiny_planted.train.normal, tiny_planted.test
    model = tiny("gaussian", **parameters).fit(good.take(range(7)))
    model = kizu.load(model.save(tmp_path / "model.kizu")).update(good.take(range(7, 20)))
    whole = tiny("gaussian", **parameters).fit(good.take(range(20)))
    torch.testing.assert_close(model.predict(test).score, whole.predict(test).score, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.predict(test).map, whole.predict(test).map, rtol=1e-2, atol=1e-3)


def test_the_bank_covers_old_and_new_patches_and_keeps_its_share(tiny_planted: Samples) -> None:
    """Covering radius of all patches: at most that of the old bank plus that of the new selection."""
    good, all_of = tiny_planted.train.normal, {"coreset": 1.0}
    old = tiny("patchcore", **all_of).fit(good.take(range(4))).bank_
    new = tiny("patchcore", **all_of).fit(good.take(range(4, 12))).bank_
    model = tiny("patchcore", coreset=0.2).fit(good.take(range(4)))
    before = model.bank_
    model.update(good.take(range(4, 12)))
    assert abs(len(model.bank_) - 0.2 * (len(old) + len(new))) <= 1
    joined = torch.cat([before, new])
    bound = covering_radius(old, before) + covering_radius(joined, model.bank_)
    assert covering_radius(torch.cat([old, new]), model.bank_) <= bound + 1e-5
    assert covering_radius(new, model.bank_) < covering_radius(new, before)


def test_history_and_images_seen_before(tiny_planted: Samples, tmp_path: Path) -> None:
    good = tiny_planted.train.normal
    model = tiny("patchcore").fit(good.take(range(10)))
    model.update(good.take(range(5, 12)))
    assert (model.images_seen_, model.history_[0]["images"], model.history_[0]["left_out"]) == (12, 2, 5)
    loaded = kizu.load(model.save(tmp_path / "model.kizu"))
    assert loaded.history_ == model.history_
    assert set(model.history_[0]["digests"]) == set(model.seen_["fitted"][10:])
    with pytest.raises(EmptyData, match="all 7 were learned from before"):
        model.update(good.take(range(5, 12)))
    assert len(model.history_) == 1
    assert model.predict(good.take([0])).score.isfinite().all()


def failing(done: int, what: str) -> None:
    """A progress that ends the work in its middle."""
    if what.startswith("building"):
        raise RuntimeError("the disk is full")


def test_what_is_refused_leaves_the_model_as_it_was(tiny_planted: Samples) -> None:
    good = tiny_planted.train.normal
    with pytest.raises(NotFitted):
        tiny("patchcore").update(good)
    with pytest.raises(UsageError, match=r"cannot learn on.*fit it again"):
        tiny("simplenet", iterations=1, hidden=8, batch_size=4).fit(good.take(range(4))).update(good)
    with pytest.raises(UsageError, match="updatable=True"):
        tiny("padim").fit(good.take(range(4))).update(good)
    model = fit_calibrated(tiny("patchcore"), good.take(range(10)))
    before = model.predict(tiny_planted.test)
    with pytest.raises(UsageError, match="are labelled anomalous"):
        update_calibrated(model, good.concat(tiny_planted.test.anomalous))
    with pytest.raises(UsageError, match="anomalous"):
        model.update(good.concat(tiny_planted.test.anomalous))
    with pytest.raises(RuntimeError, match="the disk is full"):
        model.update(tiny_planted.test.normal, options=kizu.FitOptions(progress=failing))
    with pytest.raises(TooFewImages, match="old calibration"):
        update_calibrated(model, good, false_alarm_rate=0.01, method="split")
    after = model.predict(tiny_planted.test)
    assert torch.equal(before.score, after.score)
    assert torch.equal(before.p_value, after.p_value)
    assert not model.history_


def test_split_scores_the_images_of_the_old_calibration_again(tiny_planted: Samples) -> None:
    """24 images, 10 % promised: nine were held out. With the whole folder and 12 new ones the promise stays,
    on none that was learned from."""
    good, new = tiny_planted.train.normal, tiny_planted.test.normal
    model = fit_calibrated(tiny("patchcore"), good, false_alarm_rate=0.1, method="split")
    held = set(model.seen_["calibrated"])
    assert len(held) == 9
    update_calibrated(model, good.concat(new))
    assert model.decision_ is not None
    assert model.decision_.method == "split"
    assert model.decision_.false_alarm_rate == 0.1
    assert held < set(model.seen_["calibrated"])
    assert not set(model.seen_["calibrated"]) & set(model.seen_["fitted"])
    assert model.history_[-1]["left_out"] == 15
    assert len(model.decision_.scores) == 9 + 2
    fresh = model.predict(good.take([row for row, path in enumerate(good.paths)]))
    assert set(np.float32(model.decision_.scores)) & set(fresh.score.numpy())


def test_cross_joins_new_scores_with_the_old_ones(tiny_planted: Samples) -> None:
    good, new = tiny_planted.train.normal, tiny_planted.test.normal
    model = fit_calibrated(tiny("patchcore"), good, false_alarm_rate=0.05)
    old = model.decision_.scores
    update_calibrated(model, new)
    assert model.decision_.method == "cross"
    assert np.array_equal(model.decision_.scores[:24], old)
    assert (model.decision_.parts, model.images_seen_) == (36, 36)
    own = model.predict(new).score.numpy()
    assert model.decision_.scores[24:].mean() > own.mean()  # scored by models that had not seen them


def test_a_named_threshold_stays(tiny_planted: Samples) -> None:
    model = fit_calibrated(tiny("patchcore"), tiny_planted.train.normal)
    model.recalibrate(threshold=3.5)
    update_calibrated(model, tiny_planted.test.normal)
    assert model.decision_.fixed
    assert model.decision_.threshold == 3.5


@pytest.mark.slow
@pytest.mark.parametrize("method", ["split", "auto"])
def test_the_promise_holds_after_an_update_with_20_images(method: str, tmp_path: Path) -> None:
    """30 good images and then 20 more, over draws of all of them: the mean rate of false alarms of 40 new
    ones is at most what is promised, but for three standard errors."""
    rates, promised = [], []
    for seed in range(12):
        table = planted(
            tmp_path / str(seed),
            products="capsule",
            train=50,
            test_good=40,
            test_defective=0,
            size=32,
            seed=seed,
        )
        model = kizu.detector("gaussian", NET, image_size=32, precision="fp32")
        fit_calibrated(model, table.train.take(range(30)), false_alarm_rate=0.1)
        update_calibrated(model, table.train.take(range(30, 50)), method=method)
        rates.append(float(model.predict(table.test).is_anomalous.float().mean()))
        promised.append(model.decision_.false_alarm_rate)
        assert model.images_seen_ == (50 if method == "auto" else 41)
    error = np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) <= np.mean(promised) + 3 * error
    assert np.mean(rates) > 0.01  # and it is no empty one
