"""noisy: anomalous test images among the images to learn from, taken as good.

Source: SoftPatch (Jiang et al., NeurIPS 2022), whose setting "overlap" ADPretrain takes for its Table 3 (b),
ratio 0.1. `ratio` times the number of good training images are added, rounded down, so that a ratio of 0.1 is
9.1 % of what is learned from. With overlap they stay in the test set as well; without, they leave it, and
with them the other images of their parts. A ratio that wants more anomalous images than there are is an
error: which images the paper took for product 03 of BTAD (1,000 good training images, 41 anomalous ones in
all) it does not say.

A detector that learns from good images refuses those that are labelled anomalous. The added ones get past it
in one place, here: `Samples.as_good` labels them good and takes their masks away."""

from __future__ import annotations

import numpy as np

from kizu import checks
from kizu.errors import EmptyData
from kizu.protocols.base import Split, draw_units, learn_and_test, units
from kizu.samples import Samples

ROUNDING = 1e-9
"""0.29 * 100 is 28.999...: a number of images that is whole but for floating point is that number."""


def noisy(
    samples: Samples,
    *,
    ratio: float = 0.1,
    overlap: bool = True,
    train_share: float = 0.8,
    seed: int = 0,
) -> Split:
    """Samples -> Split of one_class, with anomalous test images among the training images, labelled good.

    ratio: how many, of the number of good training images, above 0 and at most 1; drawn by `seed`, those of
    one group after another. overlap: they stay test images (`Split.overlap` has their paths); False takes
    every image of their groups out of the test. train_share: of the good images on the training side, where
    there is no official split. Raises EmptyData where the ratio is less than one image, or more than there
    are, or leaves no anomalous image to test on; UsageError for values out of range.

    >>> import polars as pl
    >>> table = pl.DataFrame({"image": [f"/{n}.png" for n in range(30)], "label": [0] * 25 + [1] * 5})
    >>> split = noisy(Samples(table), ratio=0.1)
    >>> len(split.train), len(split.train.anomalous), len(split.test.anomalous)
    (22, 0, 5)
    """
    checks.numbers(least=0, above=True, most=1, ratio=ratio)
    checks.switches(overlap=overlap)
    train, _, test, notes = learn_and_test(samples, 0.0, train_share, seed)
    count = int(ratio * len(train) + ROUNDING)
    bad = np.flatnonzero(test.labels == 1)
    _check_count(count, len(bad), ratio, len(train))
    of_row = units(test)
    drawn = draw_units(bad, of_row, count, seed)
    added = test.take(drawn)
    left = test if overlap else test.take(np.flatnonzero(~np.isin(of_row, of_row[drawn])))
    if not len(left.anomalous):
        raise EmptyData(
            f"Without overlap, a ratio of {ratio} leaves none of the {len(bad)} anomalous images to test on. "
            "Ask for a smaller ratio, or for overlap."
        )
    notes += (f"{count} anomalous images are learned from as good, seed {seed}",)
    settings: dict[str, object] = {"ratio": ratio, "overlap": overlap, "train_share": train_share}
    meant = tuple(added.paths) if overlap else ()
    learned = train.concat(added.as_good())
    return Split(learned, train.take([]), left, "noisy", seed, settings, notes, meant)


def _check_count(count: int, available: int, ratio: float, train: int) -> None:
    if count < 1:
        raise EmptyData(
            f"A ratio of {ratio} of {train} good training images is less than one image. Ask for "
            f"{1 / train:.2g} or more."
        )
    if count > available:
        raise EmptyData(
            f"A ratio of {ratio} of {train} good training images is {count} anomalous test images; there are "
            f"{available}. Ask for a smaller ratio."
        )
