"""one_class: learn from good images, test on good and flawed ones.

Where the data set has an official split it is used as it stands. Where it has none, 80 % of the good images
(whole groups, when the same part was photographed several times) are for training and everything else is for
testing."""

from __future__ import annotations

from kizu.protocols.base import Split, learn_and_test
from kizu.samples import Samples


def one_class(
    samples: Samples, *, calibration: float = 0.0, train_share: float = 0.8, seed: int = 0
) -> Split:
    """Samples -> Split. calibration: share of the good training images held out for the promised false-alarm
    rate.

    train_share: of the good images, where there is no official split. Anomalous rows of an official training
    split are left out. Raises EmptyData when there are no good images to learn from, or too few to hold some
    out.

    >>> import polars as pl
    >>> images = [f"/{n}.png" for n in range(12)]
    >>> samples = Samples(pl.DataFrame({"image": images, "label": [0] * 10 + [1] * 2}))
    >>> split = one_class(samples, calibration=0.25)
    >>> len(split.train), len(split.calibration), len(split.test)
    (6, 2, 4)
    """
    train, held, test, notes = learn_and_test(samples, calibration, train_share, seed)
    return Split(
        train, held, test, "one_class", seed, {"calibration": calibration, "train_share": train_share}, notes
    )
