"""unified: one model for all categories: learn from the good images of all together, test on each category.

The setting of UniAD (You et al., A Unified Model for Multi-class Anomaly Detection, NeurIPS 2022), also that
of ReContrast's Table 4: the detector is fitted once and is not given the category, in training or in test.
Figures are per category, and their unweighted mean is the figure of the data set. Pooling the scores of
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
    (whole groups)
    for training. calibration: share of each category's good training images held out for the promised
    false-alarm rate.
    Raises EmptyData for a category without good images to learn from, or with too few to hold some out.

    >>> import polars as pl
    >>> names, labels = ["nut"] * 6 + ["screw"] * 6, [0, 0, 0, 0, 0, 1] * 2
    >>> images = [f"/{n}.png" for n in range(12)]
    >>> split = unified(Samples(pl.DataFrame({"image": images, "category": names, "label": labels})))
    >>> len(split.train), len(split.test)
    (8, 4)
    """
    names = samples.table["category"].unique(maintain_order=True).to_list()
    if not names:
        raise EmptyData("There are no images to learn from: the table has no rows.")
    divided = [learn_and_test(samples.where(category=name), calibration, train_share, seed) for name in names]
    *sides, category_notes = zip(*divided, strict=True)
    train, held, test = (first.concat(*others) for first, *others in sides)
    notes = tuple(
        f"{name}: {note}" for name, lines in zip(names, category_notes, strict=True) for note in lines
    )
    return Split(
        train, held, test, "unified", seed, {"calibration": calibration, "train_share": train_share}, notes
    )
