"""imbalanced: few anomalous test images beside many good ones, with k-shot training or all good images.

Source: few-shot contrastive fine-tuning, section A.7 and Table 8: 500 good test images stay the same, and 5,
10, 20 or 50 anomalous ones are drawn to join them. AUROC does not depend on the share in expectation, but
from few images it scatters: draw with several seeds. The paper names neither the number of shots nor that of
draws. Here the good test images are the same for every seed, every number of shots and of anomalous images;
anomalous ones of one seed are drawn in one order, so that the 5 are among the 10. No group is on both
sides."""

from __future__ import annotations

import numpy as np

from kizu import checks
from kizu.errors import EmptyData
from kizu.protocols.base import Split, draw_units, units
from kizu.samples import Samples

FIXED_SEED = 0
"""Draws the good test images, whatever the seed of the split."""
_SHOTS, _ANOMALIES = 1, 2


def imbalanced(
    samples: Samples,
    *,
    anomalies: int = 5,
    normals: int = 500,
    shots: int | None = 5,
    seed: int = 0,
) -> Split:
    """Samples -> Split that is tested on `normals` good and `anomalies` anomalous images.

    normals: taken group by group, in a random order that is the same for every seed. shots: good training
    images of as many groups, drawn by `seed`; None takes all. They come from the official training split, or
    where there is none from the good images of groups that are not tested. anomalies: drawn by `seed` from
    the test split (or all images), none of a group that is learned from; rows that are neither stay unused.
    Raises EmptyData when there are too few images, UsageError for numbers out of range.

    >>> import polars as pl
    >>> table = pl.DataFrame({"image": [f"/{n}.png" for n in range(30)], "label": [0] * 20 + [1] * 10})
    >>> split = imbalanced(Samples(table), anomalies=3, normals=12, shots=2)
    >>> len(split.train), len(split.test.normal), len(split.test.anomalous)
    (2, 12, 3)
    """
    checks.whole_numbers(anomalies=anomalies, normals=normals)
    checks.whole_numbers(none=True, shots=shots)
    checks.whole_numbers(least=0, seed=seed)
    official = len(samples.train) + len(samples.test) > 0
    of_row, labels = units(samples), samples.labels
    split = samples.table["split"].fill_null("").to_numpy()
    tests = split == "test" if official else np.ones(len(samples), dtype=bool)
    tested = _whole_units(np.flatnonzero(tests & (labels == 0)), of_row, normals)
    learned = (split == "train" if official else tests) & (labels == 0) & ~np.isin(of_row, of_row[tested])
    train = _shots(np.flatnonzero(learned), of_row, shots, seed)
    bad = np.flatnonzero(tests & (labels == 1) & ~np.isin(of_row, of_row[train]))
    if len(bad) < anomalies:
        raise EmptyData(
            f"{anomalies} anomalous test images are wanted; there are {len(bad)} outside the groups that are "
            "learned from. Ask for fewer."
        )
    drawn = np.random.default_rng([seed, _ANOMALIES]).permutation(bad)[:anomalies]
    settings: dict[str, object] = {"anomalies": anomalies, "normals": normals, "shots": shots}
    test = samples.take(np.sort(np.concatenate([tested, drawn])))
    return Split(samples.take(train), samples.take([]), test, "imbalanced", seed, settings)


def _whole_units(rows: np.ndarray, of_row: np.ndarray, count: int) -> np.ndarray:
    """`count` of the rows, the same for every seed. Raises EmptyData for fewer."""
    if len(rows) < count:
        raise EmptyData(f"{count} good test images are wanted; there are {len(rows)}. Ask for fewer.")
    return draw_units(rows, of_row, count, FIXED_SEED)


def _shots(rows: np.ndarray, of_row: np.ndarray, shots: int | None, seed: int) -> np.ndarray:
    """All rows, or one of each of `shots` units, in row order."""
    available = len(np.unique(of_row[rows]))
    if available < (shots or 1):
        raise EmptyData(
            f"{shots or 1} good training images of as many groups are wanted, none of a tested group; there "
            f"are {available}. Ask for fewer shots or normals."
        )
    if shots is None:
        return rows
    drawn = np.random.default_rng([seed, _SHOTS]).permutation(rows)
    first = np.sort(np.unique(of_row[drawn], return_index=True)[1])
    return np.sort(drawn[first[:shots]])
