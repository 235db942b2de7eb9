"""unified: one model for all categories: learn from the good images of all together, test on each category
and average.

The setting of UniAD (You et al., A Unified Model for Multi-class Anomaly Detection, NeurIPS 2022), which
ReContrast's Table 4 takes up: the detector is fitted once and is not told the category, in training or in
test. Figures are per category, and their unweighted mean is the figure of the data set; pooling the scores of
different categories would measure something else."""

from __future__ import annotations

from kizu.errors import EmptyData
from kizu.protocols.base import Split, learn_and_test
from kizu.samples import Samples

ONE_MODEL_FOR_ALL = True
"""One model serves all categories: an experiment runs this protocol once for a data set, and has a row for
each category."""


def unified(samples: Samples, *, calibration: float = 0.0, train_share: float = 0.8, seed: int = 0) -> Split:
    """Samples of several categories -> one Split, each side the categories one after another.

    Each category is divided as by one_class: by its official split, else `train_share` of its good images
    (whole groups) for training. calibration: share of each category's good training images held out for the
    promised false-alarm rate. Raises EmptyData for a category without good images to learn from, or with too
    few to hold some out."""
    names = samples.table["category"].unique(maintain_order=True).to_list()
    if not names:
        raise EmptyData("There are no images to learn from: the table has no rows.")
    divided = [learn_and_test(samples.where(category=name), calibration, train_share, seed) for name in names]
    *sides, said = zip(*divided, strict=True)
    train, held, test = (first.concat(*others) for first, *others in sides)
    notes = tuple(f"{name}: {note}" for name, lines in zip(names, said, strict=True) for note in lines)
    return Split(
        train, held, test, "unified", seed, {"calibration": calibration, "train_share": train_share}, notes
    )
