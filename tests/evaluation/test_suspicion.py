"""Bad pictures among good ones stand out and are left out; good ones mostly do not."""

from __future__ import annotations

import numpy as np
import pytest

import kizu
from kizu.datasets.planted import planted
from kizu.detectors import Decision
from kizu.detectors._appearance import Appearance
from kizu.errors import NotFinite, UsageError
from kizu.evaluation.calibrated import fit_calibrated
from kizu.evaluation.promises import LEVEL, broken_promise, doubts, other_product
from kizu.evaluation.suspicion import Suspicion, outlier_limit, refuse_many, suspicion, without_suspicious
from kizu.samples import Samples


def test_the_limit_is_that_of_a_gumbel_distribution() -> None:
    """Quantiles of a known one: location 3, scale 2; P(any of n above the limit) is 5 %."""
    n = 4001
    shares = (np.arange(n) + 0.5) / n
    scores = 3.0 - 2.0 * np.log(-np.log(shares))
    limit = outlier_limit(scores)
    above = 1.0 - np.exp(-np.exp(-(limit - 3.0) / 2.0))
    assert n * above == pytest.approx(0.05, rel=0.02)
    assert outlier_limit(scores[:11]) == np.inf
    with pytest.raises(NotFinite):
        outlier_limit([1.0, float("nan")] * 10)


def test_five_per_cent_of_flaws_move_it_little_and_good_sets_rarely_pass_it() -> None:
    rng = np.random.default_rng(0)
    cried = 0
    for _ in range(400):
        scores = rng.gumbel(size=90)
        cried += bool((scores > outlier_limit(scores)).any())
        spoiled = np.r_[scores[:85], rng.gumbel(30.0, size=5)]
        assert abs(outlier_limit(spoiled) - outlier_limit(scores)) < 5.0  # by quartiles; by moments 20
        assert (spoiled > outlier_limit(spoiled)).sum() >= 5
    assert cried < 400 * 0.12  # 5 %, and the quartiles' own error


@pytest.fixture(scope="module")
def capsule(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """60 good images to learn from."""
    folder = tmp_path_factory.mktemp("capsule") / "data"
    return planted(folder, products="metal", train=60, test_good=8, test_defective=12, size=64, seed=5)


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_flawed_pictures_stand_out_and_are_left_out(count: int, capsule: Samples) -> None:
    """3 and 5 % of the pictures, with flaws that a clean model sees: all are found, and few others."""
    detector = kizu.detector("patchcore", image_size=64, precision="fp32", coreset=0.02)
    clean = fit_calibrated(detector.clone(), capsule.train.take(range(60 - count)))
    seen = clean.predict(capsule.test.anomalous).score.argsort(descending=True)[:count]
    flawed = capsule.test.anomalous.take(seen.numpy())
    mixed = capsule.train.take(range(60 - count)).concat(flawed.as_good())
    parts: list = []
    spoiled = fit_calibrated(detector.clone(), mixed, collected=parts)
    found = suspicion(parts)
    assert set(flawed.paths) <= set(found.outstanding)
    assert len(found.outstanding) <= count + 1
    assert set(found.outstanding) <= set(found.maps)
    assert spoiled.decision_.threshold > 1.2 * clean.decision_.threshold
    kept, left_out = without_suspicious(detector, mixed)
    assert set(left_out.outstanding) == set(mixed.paths) - set(kept.paths)
    assert not set(kept.paths) & set(flawed.paths)
    robust = fit_calibrated(detector.clone(), kept)
    assert robust.decision_.threshold < 1.1 * clean.decision_.threshold


def test_robust_is_refused_where_it_would_be_wrong(capsule: Samples) -> None:
    trained = kizu.detector("simplenet", "random/resnet10t@2", image_size=64, iterations=1)
    with pytest.raises(UsageError, match="two scales of scores"):
        without_suspicious(trained, capsule.train)
    two_kinds = Suspicion([str(number) for number in range(7)], [9.0] * 7, 1.0, {})
    with pytest.raises(UsageError, match="another kind of good ones"):
        refuse_many(len(two_kinds.outstanding), 60)
    refuse_many(6, 60)


def decision(parts: int, rate: float) -> Decision:
    """On the scores 1 to `parts`, and images that all lie 1 apart."""
    made = Decision(np.arange(1.0, parts + 1), rate)
    rows = np.zeros((parts, 320), np.float32)
    rows[:, 0] = np.arange(parts)
    made.appearance = Appearance(rows, np.arange(parts))
    return made


def test_a_broken_promise_is_said_and_a_kept_one_is_not() -> None:
    """8 of 18 good parts against 2 %: said. Over drawn batches of good parts: as rarely as stated."""
    promised = decision(49, 0.02)
    said = broken_promise(8, 18, promised, good=True)
    assert said is not None
    assert "8 of 18 good parts" in said
    assert "2.00% were promised" in said
    assert "flawed, or the" in str(broken_promise(8, 18, promised, good=False))
    assert broken_promise(1, 18, promised, good=True) is None
    assert broken_promise(8, 18, None, good=True) is None
    assert "expected" in str(broken_promise(8, 18, Decision(range(49), 0.02, method="cross"), good=True))
    rng, cried = np.random.default_rng(1), 0
    for _ in range(3000):
        scores = rng.gamma(2.0, size=49 + 40)
        one = Decision(scores[:49], 0.1)
        cried += broken_promise(int((scores[49:] > one.threshold).sum()), 40, one, good=True) is not None
    assert cried / 3000 < LEVEL + 3 * np.sqrt(LEVEL / 3000)


def test_another_product_is_said_from_half_of_the_batch_on() -> None:
    known = decision(60, 0.05)
    assert "20 of 20 images" in str(other_product(20, 20, known))
    assert other_product(9, 20, known) is None
    assert other_product(1, 1, known) is None  # one image of 60 lies as far
    assert other_product(20, 20, None) is None
    flags = np.ones(20, bool)
    assert len(doubts(known, flags, flags, flags)) == 2
    assert doubts(known, flags, ~flags, ~flags) == []
    assert doubts(None, flags, None, None) == []


@pytest.mark.slow
def test_no_false_cry_on_good_batches(tmp_path) -> None:
    """20 draws of a product, 40 good images to calibrate on and batches of 30; another product is always
    said."""
    for seed in range(20):
        two = planted(
            tmp_path / str(seed),
            products=("capsule", "metal"),
            train=40,
            test_good=30,
            test_defective=10,
            size=32,
            seed=seed,
        )
        own, other = two.where(category="capsule"), two.where(category="metal")
        model = kizu.detector("gaussian", "random/resnet10t@2", image_size=32, precision="fp32")
        fit_calibrated(model, own.train)
        for batch, expected in ((own.test.normal, False), (own.test, False), (other.test.normal, True)):
            unlike = model.predict(batch).unlike
            said = other_product(int(unlike.sum()), len(batch), model.decision_)
            assert (said is not None) == expected, (seed, expected)
        called = int(model.predict(own.test.normal).is_anomalous.sum())
        assert broken_promise(called, 30, model.decision_, good=True) is None, seed
