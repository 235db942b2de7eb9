"""What a protocol yields, and fair ways to divide rows: by group, never a part photographed twice on both
sides."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kizu import checks, registry
from kizu.calibration import group_numbers
from kizu.errors import EmptyData, UsageError, counted
from kizu.samples import Samples


@dataclass(frozen=True)
class Split:
    """Who trains on what.

    train: images to learn from, good ones; of two_class, good and anomalous ones. calibration: good images
    held out for the promise (may be empty). test: the rest, labelled. protocol, seed and settings name the
    split in the run folder; notes say what a reader of the numbers should know. overlap: paths of test images
    that are learned from on purpose; they are measured all the same, where others that the model has seen are
    left out."""

    train: Samples
    calibration: Samples
    test: Samples
    protocol: str
    seed: int
    settings: dict[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    overlap: tuple[str, ...] = ()


def one_model_for_all(protocol: str) -> bool:
    """Whether a protocol trains one model for all categories of a data set.

    >>> one_model_for_all("unified"), one_model_for_all("one_class")
    (True, False)
    """
    return getattr(registry.module("protocols", protocol), "ONE_MODEL_FOR_ALL", False)


def seeds_adaptation_only(protocol: str) -> bool:
    """Whether the seeds of a protocol are those of the adaptation alone: split and detector stay the same.

    >>> seeds_adaptation_only("reference_sensitivity"), seeds_adaptation_only("few_shot")
    (True, False)
    """
    return getattr(registry.module("protocols", protocol), "SEEDS_ADAPTATION_ONLY", False)


def units(samples: Samples) -> np.ndarray:
    """(n,) int64: number of the unit of each row, its group, or the image itself where no group is known.

    >>> import polars as pl
    >>> units(Samples(pl.DataFrame({"image": ["/a", "/b", "/c"], "group": ["x", "x", None]}))).tolist()
    [0, 0, 1]
    """
    return group_numbers(len(samples), samples.table["group"].to_list())


def draw_units(rows: np.ndarray, of_row: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` of the rows, in row order: all of one unit after another in random order, of the last one some.

    rows: (n,) row numbers, `count` at least. of_row: the unit of each row of the table, see `units`.

    >>> draw_units(np.array([1, 2, 3]), np.array([0, 1, 1, 2]), 2, seed=0).tolist()
    [1, 2]
    """
    order = np.random.default_rng(seed).permutation(int(of_row.max()) + 1)
    return np.sort(rows[np.argsort(order[of_row[rows]], kind="stable")][:count])


def hold_out(samples: Samples, share: float, seed: int) -> tuple[Samples, Samples]:
    """(kept, held out): about `share` of the units held out; whole units only, at least one on each side.

    Raises EmptyData when there are not two units to divide, UsageError for a negative seed.

    >>> import polars as pl
    >>> kept, held = hold_out(Samples(pl.DataFrame({"image": ["/a", "/b", "/c", "/d"]})), 0.25, seed=0)
    >>> len(kept), len(held)
    (3, 1)
    """
    checks.whole_numbers(least=0, seed=seed)
    of_row = units(samples)
    count = int(of_row.max()) + 1 if len(of_row) else 0
    if count < 2:
        raise EmptyData(
            f"{count} image (or group) of good parts cannot be divided: at least 2 are needed to hold some "
            "out."
        )
    held = min(max(round(count * share), 1), count - 1)
    chosen = np.random.default_rng(seed).permutation(count)[:held]
    is_held = np.isin(of_row, chosen)
    return samples.take(np.flatnonzero(~is_held)), samples.take(np.flatnonzero(is_held))


def learn_and_test(
    samples: Samples, calibration: float, train_share: float, seed: int
) -> tuple[Samples, Samples, Samples, tuple[str, ...]]:
    """(train, calibration, test, notes) of one category.

    Its official split, else `train_share` of its good images (whole groups) for training. calibration: share
    of the good training images held out. Raises EmptyData when there are no good images to learn from, or too
    few to hold some out; UsageError for a share out of range."""
    checks.numbers(calibration=calibration, train_share=train_share)
    if not 0 < train_share < 1:
        raise UsageError(f"train_share is a share between 0 and 1, got {train_share!r}.")
    if not 0 <= calibration < 1:
        raise UsageError(f"calibration is a share from 0 to below 1, got {calibration!r}.")
    notes: tuple[str, ...] = ()
    if len(samples.train) or len(samples.test):
        train, test = samples.train.normal, samples.test
    else:
        train, held = hold_out(_good(samples), 1.0 - train_share, seed)
        test = held.concat(samples.anomalous)
        notes = (
            f"no official split: {train_share:.0%} of the good images (whole groups) for training, seed "
            f"{seed}",
        )
    train = _good(train)
    kept, calibrating = hold_out(train, calibration, seed) if calibration > 0 else (train, train.take([]))
    return kept, calibrating, test, notes


def _good(samples: Samples) -> Samples:
    good = samples.normal
    if not len(good):
        raise EmptyData(
            f"There are no good images to learn from among {counted(len(samples), 'row')}; label 0 marks "
            "them."
        )
    return good
