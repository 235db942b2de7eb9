"""Protocols divide fairly: no row on two sides, no group on two sides where that is promised, same seed same
split."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from kizu.errors import EmptyData, UsageError
from kizu.protocols.base import Split, hold_out
from kizu.protocols.few_shot import few_shot
from kizu.protocols.one_class import one_class
from kizu.samples import Samples


def table(good: int, bad: int, *, groups: int | None = None, official: bool = False) -> Samples:
    rows = [
        {
            "image": f"/data/{number}.png",
            "label": int(number >= good),
            "defect": "good" if number < good else "scratch",
            "group": None if groups is None else f"part {number % groups}",
            "split": None if not official else ("train" if number < good // 2 else "test"),
        }
        for number in range(good + bad)
    ]
    return Samples(
        pl.DataFrame(rows, schema_overrides={"label": pl.Int8, "group": pl.String, "split": pl.String})
    )


def no_row_twice(split: Split) -> None:
    sides = [set(side.paths) for side in (split.train, split.calibration, split.test)]
    assert sum(map(len, sides)) == len(set.union(*sides))
    assert not len(split.train.anomalous)
    assert not len(split.calibration.anomalous)


def groups_of(samples: Samples) -> set[str]:
    return set(samples.table["group"].to_list())


@pytest.mark.parametrize("seed", range(5))
def test_one_class_without_an_official_split_keeps_groups_whole(seed: int) -> None:
    split = one_class(table(60, 12, groups=10), calibration=0.25, seed=seed)
    no_row_twice(split)
    assert len(split.test.anomalous) == 12
    assert not groups_of(split.train) & groups_of(split.test.normal)
    assert not groups_of(split.train) & groups_of(split.calibration)
    assert len(split.train) + len(split.calibration) == 48
    assert one_class(table(60, 12, groups=10), calibration=0.25, seed=seed).train == split.train
    assert one_class(table(60, 12, groups=10), calibration=0.25, seed=seed + 1).train != split.train


def test_one_class_takes_the_official_split() -> None:
    samples = table(20, 5, official=True)
    split = one_class(samples)
    assert split.train.paths == samples.train.paths
    assert split.test.paths == samples.test.paths
    assert len(split.calibration) == 0


@pytest.mark.parametrize("leak_safe", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_few_shot(leak_safe: bool, seed: int) -> None:
    samples = table(60, 12, groups=10)
    split = few_shot(samples, shots=5, leak_safe=leak_safe, seed=seed)
    no_row_twice(split)
    assert len(split.train) == 5
    assert few_shot(samples, shots=5, leak_safe=leak_safe, seed=seed).train == split.train
    if leak_safe:
        assert len(groups_of(split.train)) == 5, "five different parts"
        assert not groups_of(split.train) & groups_of(split.test), (
            "no photograph of a training part is tested"
        )
    else:
        assert len(split.test) == 67, "every other image is tested"


@pytest.mark.slow
def test_few_shot_draws_are_uniform() -> None:
    samples = table(10, 1)
    counts = np.zeros(10)
    for seed in range(2000):
        for path in few_shot(samples, shots=3, seed=seed).train.paths:
            counts[int(path.rpartition("/")[2].removesuffix(".png"))] += 1
    assert np.abs(counts - 600).max() < 5 * np.sqrt(2000 * 0.3 * 0.7)


def test_too_few() -> None:
    with pytest.raises(EmptyData, match="9 shots need as many good images; there are 8"):
        few_shot(table(8, 1), shots=9)
    with pytest.raises(EmptyData, match="good groups; there are 2"):
        few_shot(table(8, 1, groups=2), shots=3, leak_safe=True)
    with pytest.raises(UsageError, match="from 1 on"):
        few_shot(table(8, 1), shots=0)
    with pytest.raises(EmptyData, match="no good images"):
        one_class(table(0, 3))
    with pytest.raises(EmptyData, match="at least 2"):
        hold_out(table(6, 0, groups=1), 0.5, 0)
