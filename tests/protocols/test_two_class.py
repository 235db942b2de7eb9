"""two_class: VisA's official sides and draws, and the same proportions elsewhere; groups stay whole."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kizu.datasets.visa import COUNTS, read_split
from kizu.errors import EmptyData, UsageError
from kizu.protocols.base import Split
from kizu.protocols.two_class import two_class
from kizu.samples import Samples


def table(
    good: int,
    bad: int,
    *,
    groups: int | None = None,
    split: str = "",
    category: str = "nut",
    defects: int = 1,
) -> Samples:
    """Good rows first. split: the split of the rows by their place, t(rain) or e(val), repeated."""
    rows = [
        {
            "image": f"/data/{category}/{number}.png",
            "label": int(number >= good),
            "category": category,
            "defect": "good" if number < good else f"defect {number % defects}",
            "group": None if groups is None else f"part {number % groups}",
            "split": {"t": "train", "e": "test"}[split[number % len(split)]] if split else None,
        }
        for number in range(good + bad)
    ]
    return Samples(
        pl.DataFrame(rows, schema_overrides={"label": pl.Int8, "group": pl.String, "split": pl.String})
    )


def no_row_twice(split: Split) -> None:
    sides = [set(side.paths) for side in (split.train, split.calibration, split.test)]
    assert sum(map(len, sides)) == len(set.union(*sides))
    groups = [set(side.table["group"].drop_nulls()) for side in (split.train, split.calibration, split.test)]
    assert not groups[0] & groups[2]
    assert not groups[1] & (groups[0] | groups[2])


def counts(samples: Samples) -> tuple[int, int]:
    return len(samples.normal), len(samples.anomalous)


@pytest.mark.parametrize("product", ["candle", "capsules", "chewinggum", "pcb1", "pcb3", "pcb4"])
def test_the_proportions_are_those_of_visas_lists(product: str) -> None:
    """As many rows of either class on either side as the official lists have, from the totals alone."""
    high, low = COUNTS[product]["2cls_highshot"], COUNTS[product]["2cls_fewshot"]
    samples = table(high[0] + high[2], high[1] + high[3])
    split = two_class(samples, seed=3)
    no_row_twice(split)
    assert (*counts(split.train), *counts(split.test)) == high
    pool = two_class(samples, train_share=0.2, seed=3)
    assert (*counts(pool.train), *counts(pool.test)) == low
    few = two_class(samples, shots=5, seed=3)
    assert few.test == pool.test
    assert counts(few.train) == (5, 5)
    assert set(few.train.paths) <= set(pool.train.paths)


@pytest.mark.parametrize("seed", range(8))
def test_every_defect_has_its_share(seed: int) -> None:
    split = two_class(table(40, 70, defects=7), seed=seed)
    assert counts(split.train) == (24, 42)
    of_defect = Counter(split.train.anomalous.table["defect"].to_list())
    assert set(of_defect.values()) == {6}
    uneven = two_class(table(40, 33, defects=6), seed=seed)
    assert counts(uneven.train) == (24, 20)
    of_defect = Counter(uneven.train.anomalous.table["defect"].to_list())
    assert all(2 <= of_defect[f"defect {n}"] <= 4 for n in range(6))  # 0.6 x 5 or 6, give or take one


def test_every_row_is_as_likely() -> None:
    samples = table(10, 5, defects=2)
    draws = 400
    drawn = Counter(path for seed in range(draws) for path in two_class(samples, seed=seed).train.paths)
    assert max(abs(drawn[path] - 0.6 * draws) for path in samples.paths) < 5 * np.sqrt(draws * 0.6 * 0.4)


def test_same_seed_same_split() -> None:
    samples = table(40, 30, groups=20)
    for shots in (None, 2):
        first, again = two_class(samples, shots=shots, seed=1), two_class(samples, shots=shots, seed=1)
        assert (first.train, first.test) == (again.train, again.test)
        assert two_class(samples, shots=shots, seed=2).train != first.train


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole(seed: int) -> None:
    samples = table(60, 20, groups=30)  # parts 0 to 19 have an anomalous image, all have two good ones
    split = two_class(samples, calibration=0.3, seed=seed)
    no_row_twice(split)
    assert len(split.train) + len(split.calibration) + len(split.test) == 80
    assert len(split.train.anomalous) == 12
    assert len(split.calibration) > 0
    assert not len(split.calibration.anomalous)
    few = two_class(samples, shots=3, seed=seed)
    for side in (few.train.normal, few.train.anomalous):
        assert side.table["group"].n_unique() == 3, "three different parts"
    no_row_twice(few)


def test_official_sides_are_taken_as_they_stand() -> None:
    samples = table(30, 20, split="tte")
    split = two_class(samples)
    assert split.train == samples.train
    assert split.test == samples.test
    assert split.notes == ()
    draws = [two_class(samples, shots=5, seed=seed) for seed in range(5)]
    assert len({tuple(draw.train.paths) for draw in draws}) == 5
    for draw in draws:
        assert draw.test == samples.test
        assert counts(draw.train) == (5, 5)
        assert set(draw.train.paths) <= set(samples.train.paths)
    with pytest.raises(UsageError, match="train_share has no effect"):
        two_class(samples, train_share=0.5)


def test_an_official_one_class_split_is_divided_anew() -> None:
    one_class = table(30, 0, split="t").concat(table(10, 20, split="e", category="nut"))
    rows = one_class.table.with_columns(image=pl.format("/data/{}.png", pl.int_range(pl.len())))
    split = two_class(Samples(rows), seed=0)
    assert counts(split.train) == (24, 12)
    assert "no official two-class split" in split.notes[0]


def test_each_category_has_its_share() -> None:
    samples = table(20, 10).concat(table(40, 10, category="bolt"))
    split = two_class(samples, seed=0)
    for category, good in (("nut", 12), ("bolt", 24)):
        assert counts(split.train.where(category=category)) == (good, 6)


def test_rows_without_a_label_are_left_out() -> None:
    rows = table(20, 10).table
    unknown = pl.int_range(pl.len()) % 10 == 0
    rows = rows.with_columns(
        label=pl.when(unknown).then(None).otherwise(pl.col("label")).cast(pl.Int8),
        defect=pl.when(unknown).then(pl.lit("unknown")).otherwise(pl.col("defect")),
    )
    split = two_class(Samples(rows), seed=0)
    assert len(split.train) + len(split.test) == 27
    assert "left out: 3 rows without a label" in split.notes


def test_too_few() -> None:
    for few in (table(20, 1), table(1, 20), table(20, 0), table(20, 20, groups=1)):
        with pytest.raises(EmptyData, match="at least 2 good and 2 anomalous"):
            two_class(few)
    with pytest.raises(EmptyData, match=r"5 shots need as many anomalous images.*there are 4"):
        two_class(table(100, 20), shots=5)
    with pytest.raises(EmptyData, match="3 shots need as many good"):
        two_class(table(6, 20, split="eet"), shots=3)


def test_misuse() -> None:
    samples = table(20, 20)
    for shots in (0, -1, 2.5, True):
        with pytest.raises(UsageError, match="shots"):
            two_class(samples, shots=shots)  # type: ignore[arg-type]
    for share in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(UsageError, match="train_share"):
            two_class(samples, train_share=share)
    for share in (1.0, -0.1, float("nan")):
        with pytest.raises(UsageError, match="calibration"):
            two_class(samples, calibration=share)
    with pytest.raises(UsageError, match="calibration has no effect with shots"):
        two_class(samples, shots=2, calibration=0.2)


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("KIZU_DATA"), reason="KIZU_DATA is not set")
def test_visas_official_lists() -> None:
    """The sides of the published lists, and five draws of 5 and 10 from the pool of each product."""

    def samples(name: str) -> Samples:
        rows = read_split(Path(os.environ["KIZU_DATA"]) / "visa-splits" / f"{name}.csv")
        return Samples(
            rows.select(
                pl.format("/{}", "image").alias("image"),
                pl.col("label"),
                pl.col("category"),
                pl.col("split"),
                pl.when(pl.col("label") == 1)
                .then(pl.lit("anomaly"))
                .otherwise(pl.lit("good"))
                .alias("defect"),
            )
        )

    high, low = samples("2cls_highshot"), samples("2cls_fewshot")
    assert counts(two_class(high).train) == (5773, 720)
    assert counts(two_class(high).test) == (3848, 480)
    for product, lists in COUNTS.items():
        split = two_class(high.where(category=product))
        assert (*counts(split.train), *counts(split.test)) == lists["2cls_highshot"]
        for shots in (5, 10):
            draws = [two_class(low.where(category=product), shots=shots, seed=seed) for seed in range(5)]
            assert len({tuple(draw.train.paths) for draw in draws}) == 5
            for draw in draws:
                assert counts(draw.train) == (shots, shots)
                assert counts(draw.test) == lists["2cls_fewshot"][2:]
                assert not set(draw.train.paths) & set(draw.test.paths)
