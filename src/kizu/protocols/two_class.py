"""two_class: learn from good and anomalous images, test on others of both.

Source: Zou et al., SPot-the-Difference, ECCV 2022, section 4.2. High-shot: 60 % of the good and of the
anomalous images for training, 40 % for testing. Low-shot: 20 % of both are a pool, 80 % are for testing; k =
5 or 10 images of either class are drawn from the pool, and results are means over 5 draws (seeds 0 to 4). The
rest of the pool is not used. VisA's official lists 2cls_highshot and 2cls_fewshot are these sides for 12
products (kizu.datasets.visa, split_csv=): a table whose training rows hold both classes is taken as it
stands."""

from __future__ import annotations

import numpy as np

from kizu import checks
from kizu.errors import EmptyData, UsageError, counted
from kizu.protocols.base import Split, hold_out, units
from kizu.samples import Samples

HIGH_SHOT, LOW_SHOT = 0.6, 0.2
"""Shares of the images on the training side, without and with `shots`."""


def two_class(
    samples: Samples,
    *,
    shots: int | None = None,
    train_share: float | None = None,
    calibration: float = 0.0,
    seed: int = 0,
) -> Split:
    """Samples -> Split whose training rows are good and anomalous ones.

    shots: draw so many images of each class from the training side, of different groups; None takes all of
    it. train_share: of the images on the training side where no official two-class split says; None is 0.6,
    with shots 0.2. The division is by category, label and defect, whole groups only. calibration: share of
    the good training images held out. Rows without a label are left out. Raises EmptyData when a side cannot
    have both classes, or for more shots than there are; UsageError for values that cannot be meant or have no
    effect."""
    _check(shots, train_share, calibration)
    labelled = samples.take(np.flatnonzero(samples.labels >= 0))
    official = len(labelled.train.normal) > 0 and len(labelled.train.anomalous) > 0
    if official and train_share is not None:
        raise UsageError(
            f"train_share has no effect on a table with an official two-class split, got {train_share!r}. "
            "Leave it away."
        )
    share = train_share or (HIGH_SHOT if shots is None else LOW_SHOT)
    train, test = (labelled.train, labelled.test) if official else _divide(labelled, share, seed)
    notes: tuple[str, ...] = (
        () if official else (f"no official two-class split: {share:.0%} for training, seed {seed}",)
    )
    if len(labelled) < len(samples):
        notes += (f"left out: {counted(len(samples) - len(labelled), 'row')} without a label",)
    held = train.take([])
    if shots is not None:
        train = _draw(train, shots, seed)
    elif calibration > 0:
        train, held = _hold_out_good(train, calibration, seed)
    settings: dict[str, object] = {"shots": shots, "train_share": train_share, "calibration": calibration}
    return Split(train, held, test, "two_class", seed, settings, notes)


def _check(shots: int | None, train_share: float | None, calibration: float) -> None:
    checks.whole_numbers(none=True, shots=shots)
    if train_share is not None and not 0 < train_share < 1:
        raise UsageError(f"train_share is a share between 0 and 1, got {train_share!r}.")
    if not 0 <= calibration < 1:
        raise UsageError(f"calibration is a share from 0 to below 1, got {calibration!r}.")
    if shots is not None:
        checks.without_effect("with shots: all of them are learned from", calibration=(calibration, 0.0))


def _divide(samples: Samples, share: float, seed: int) -> tuple[Samples, Samples]:
    """(train, test) in row order: of each category and label `share` of the groups, of each defect within one
    of it."""
    of_row = units(samples)
    kinds = _kinds(samples, of_row)
    generator = np.random.default_rng(seed)
    training = np.zeros(len(kinds), dtype=bool)
    for category, label in sorted({kind[:2] for kind in kinds}):
        members = [unit for unit in generator.permutation(len(kinds)) if kinds[unit][:2] == (category, label)]
        members.sort(key=lambda unit: kinds[unit][2])  # stable: by defect, in random order within one
        n = len(members)
        count = min(max(int(share * n + 0.5), 1), n - 1)
        start = int(generator.integers(n))
        # every (n / count)-th from a random start: each defect has its share of those chosen
        training[members] = np.diff((np.arange(n + 1) * count + start) // n) > 0
    train, test = (samples.take(np.flatnonzero(side[of_row])) for side in (training, ~training))
    _require_both(samples, train, test)
    return train, test


def _kinds(samples: Samples, of_row: np.ndarray) -> list[tuple[str, int, str]]:
    """(category, label, defect) of each unit; a group with an anomalous image is of that image's kind."""
    kinds: dict[int, tuple[str, int, str]] = {}
    columns = samples.table.select("category", "label", "defect").iter_rows()
    for unit, kind in zip(of_row.tolist(), columns, strict=True):
        if unit not in kinds or kind[1] > kinds[unit][1]:
            kinds[unit] = kind
    return [kinds[unit] for unit in range(len(kinds))]


def _require_both(samples: Samples, train: Samples, test: Samples) -> None:
    if all(len(side.normal) and len(side.anomalous) for side in (train, test)):
        return
    raise EmptyData(
        "Training and testing on both classes takes at least 2 good and 2 anomalous images (or groups); "
        f"there are {len(samples.normal)} good and {len(samples.anomalous)} anomalous images, in "
        f"{len(np.unique(units(samples)))} groups."
    )


def _draw(pool: Samples, shots: int, seed: int) -> Samples:
    """`shots` images of each class, each of another group, in row order."""
    generator = np.random.default_rng(seed)
    of_row, labels = units(pool), pool.labels
    chosen: list[int] = []
    for label, word in ((0, "good"), (1, "anomalous")):
        rows = generator.permutation(np.flatnonzero(labels == label))
        first = np.sort(np.unique(of_row[rows], return_index=True)[1])
        if len(first) < shots:
            raise EmptyData(
                f"{shots} shots need as many {word} images (or groups) on the training side; there are "
                f"{len(first)}."
            )
        chosen += rows[first[:shots]].tolist()
    return pool.take(sorted(chosen))


def _hold_out_good(train: Samples, share: float, seed: int) -> tuple[Samples, Samples]:
    """(train, held out): good images held out, of groups without an anomalous one, which stay to be learned
    from."""
    of_row = units(train)
    free = ~np.isin(of_row, of_row[train.labels == 1])
    kept, held = hold_out(train.take(np.flatnonzero(free)), share, seed)
    kept_rows = set(kept.paths)
    rows = [row for row, path in enumerate(train.paths) if not free[row] or path in kept_rows]
    return train.take(rows), held
