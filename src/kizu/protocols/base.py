"""What a protocol yields, and fair ways to divide rows: by group, never a part photographed twice on both
sides."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kizu import checks
from kizu.calibration import group_numbers
from kizu.errors import EmptyData, counted
from kizu.samples import Samples


@dataclass(frozen=True)
class Split:
    """Who trains on what.

    train: images to learn from, good ones; of two_class, good and anomalous ones. calibration: good images
    held out for the promise (may be empty). test: the rest, labelled. protocol, seed and settings name the
    split in the run folder; notes say what a reader of the numbers should know."""

    train: Samples
    calibration: Samples
    test: Samples
    protocol: str
    seed: int
    settings: dict[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def units(samples: Samples) -> np.ndarray:
    """(n,) int64: number of the unit of each row, its group, or the image itself where no group is known.

    >>> import polars as pl
    >>> units(Samples(pl.DataFrame({"image": ["/a", "/b", "/c"], "group": ["x", "x", None]}))).tolist()
    [0, 0, 1]
    """
    return group_numbers(len(samples), samples.table["group"].to_list())


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
    few to hold some out."""
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
