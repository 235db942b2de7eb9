"""one_class: learn from good images, test on good and flawed ones.

Where the data set has an official split it is used as it stands. Where it has none, 80 % of the good images (whole groups, when
the same part was photographed several times) are for training and everything else is for testing.
"""

from __future__ import annotations

from kizu.datasets._samples import Samples
from kizu.errors import EmptyData
from kizu.protocols._split import Split, hold_out


def one_class(samples: Samples, *, calibration: float = 0.0, train_share: float = 0.8, seed: int = 0) -> Split:
    """Samples -> Split. calibration: share of the good training images held out for the promised false-alarm rate.

    train_share counts only without an official split. Anomalous rows of an official training split are left out. Raises
    EmptyData when there are no good images to learn from, or too few to hold some out.
    """
    notes: tuple[str, ...] = ()
    if len(samples.train):
        train, test = samples.train.normal, samples.test
    else:
        train, held = hold_out(_good(samples), 1.0 - train_share, seed)
        test = held.concat(samples.anomalous)
        notes = (f"no official split: {train_share:.0%} of the good images (whole groups) for training, seed {seed}",)
    train = _good(train)
    kept, calibrating = hold_out(train, calibration, seed) if calibration > 0 else (train, train.take([]))
    return Split(kept, calibrating, test, "one_class", seed, {"calibration": calibration, "train_share": train_share}, notes)


def _good(samples: Samples) -> Samples:
    good = samples.normal
    if not len(good):
        raise EmptyData(f"There are no good images to learn from among {len(samples)} rows; label 0 marks them.")
    return good
