"""imbalanced: the good test images stay, anomalous ones are nested and drawn evenly, no group is on both
sides."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from kizu.errors import EmptyData, UsageError
from kizu.protocols.imbalanced import imbalanced
from kizu.samples import Samples


def table(good: int = 60, bad: int = 24, *, groups: int | None = None, official: bool = False) -> Samples:
    """Images g0, g1, ... and b0, ...; the first third of the good ones is train where there is a split."""
    rows = [
        {
            "image": f"/{'b' if number >= good else 'g'}{number}",
            "label": int(number >= good),
            "group": None if groups is None else f"part {number % groups}",
            "split": None if not official else ("train" if number < good // 3 else "test"),
        }
        for number in range(good + bad)
    ]
    types = {"label": pl.Int8, "group": pl.String, "split": pl.String}
    return Samples(pl.DataFrame(rows, schema_overrides=types))


def groups_of(samples: Samples) -> set[str]:
    return set(samples.table["group"].drop_nulls())


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("groups", [None, 20])
def test_good_test_images_are_the_same_for_every_draw(official: bool, groups: int | None) -> None:
    samples = table(groups=groups, official=official)
    splits = {
        (anomalies, shots, seed): imbalanced(samples, anomalies=anomalies, normals=20, shots=shots, seed=seed)
        for anomalies in (1, 5)
        for shots in (3, None)
        for seed in range(4)
    }
    assert len({tuple(split.test.normal.paths) for split in splits.values()}) == 1
    for (anomalies, shots, seed), split in splits.items():
        assert (len(split.test.normal), len(split.test.anomalous)) == (20, anomalies)
        assert shots is None or len(split.train) == shots
        assert not set(split.train.paths) & set(split.test.paths)
        assert not groups_of(split.train) & groups_of(split.test)
        assert not len(split.train.anomalous) + len(split.calibration)
        assert split.settings == {"anomalies": anomalies, "normals": 20, "shots": shots}
        if official:
            assert set(split.train.table["split"]) == {"train"}
            assert set(split.test.table["split"]) == {"test"}
        assert set(splits[1, shots, seed].test.paths) < set(splits[5, shots, seed].test.paths), "nested"
    assert len({tuple(splits[5, 3, seed].train.paths) for seed in range(4)}) > 1
    assert len({tuple(splits[5, 3, seed].test.anomalous.paths) for seed in range(4)}) > 1


def test_groups_are_taken_whole_so_that_some_are_left_to_learn_from() -> None:
    """60 good images of 10 parts, 6 each: 20 fill 3 parts and a bit; 6 parts are left for 6 shots."""
    samples = table(groups=10)
    split = imbalanced(samples, anomalies=2, normals=20, shots=6)
    assert len(groups_of(split.test.normal)) == 4
    assert len(groups_of(split.train)) == 6
    with pytest.raises(EmptyData, match="there are 0 outside the groups that are learned from"):
        imbalanced(table(groups=10, bad=0), anomalies=2, normals=20, shots=None)
    with pytest.raises(EmptyData, match=r"7 good training images .* there are 6"):
        imbalanced(samples, anomalies=2, normals=20, shots=7)


def test_anomalous_images_of_groups_that_are_learned_from_are_not_drawn() -> None:
    samples = table(groups=12)
    for seed in range(10):
        split = imbalanced(samples, anomalies=6, normals=30, shots=4, seed=seed)
        assert not groups_of(split.test.anomalous) & groups_of(split.train)
    with pytest.raises(EmptyData, match="21 anomalous test images are wanted; there are 16"):
        imbalanced(samples, anomalies=21, normals=30, shots=4)


@pytest.mark.slow
def test_draws_are_uniform() -> None:
    """Each anomalous image with 5/24, each good one outside the test with 3/40: within five deviations."""
    samples, draws = table(), 1500
    counts = dict.fromkeys(samples.paths, 0)
    for seed in range(draws):
        split = imbalanced(samples, anomalies=5, normals=20, shots=3, seed=seed)
        for path in (*split.test.anomalous.paths, *split.train.paths):
            counts[path] += 1
    tested = set(split.test.normal.paths)
    for share, wanted in ((5 / 24, samples.anomalous.paths), (3 / 40, samples.normal.paths)):
        found = np.array([counts[path] for path in wanted if path not in tested])
        assert np.abs(found - draws * share).max() < 5 * np.sqrt(draws * share * (1 - share))


def test_too_few_and_nonsense() -> None:
    with pytest.raises(EmptyData, match="500 good test images are wanted; there are 60"):
        imbalanced(table())
    with pytest.raises(EmptyData, match="1 good training images"):
        imbalanced(table(), normals=60, shots=None)
    with pytest.raises(EmptyData, match="there are 0 outside"):
        imbalanced(table(bad=0), normals=20)
    for wrong in ({"anomalies": 0}, {"normals": -1}, {"shots": 0}, {"seed": -1}, {"shots": 1.5}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            imbalanced(table(), **wrong)  # type: ignore[arg-type]
