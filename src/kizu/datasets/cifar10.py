"""CIFAR-10: 60,000 colour pictures of 32 x 32 pixels in ten classes; one class (or several) is good, the
others are anomalous."""

from __future__ import annotations

from pathlib import Path

from kizu.datasets import _cifar
from kizu.datasets._copies import folder_of_copies
from kizu.datasets._layout import chosen, root_of, to_samples
from kizu.datasets._masks import Row
from kizu.errors import EmptyData, UsageError
from kizu.masks import MaskRule
from kizu.samples import Samples, Wanted

LICENCE = "none stated by the author (research use, with citation)"
CITATION = _cifar.CITATION
HOMEPAGE = _cifar.HOMEPAGE
MASK_RULE: MaskRule = "half"
"""There are no masks: image metrics only."""
CATEGORY_KEYWORD = "category"
"""What `--category` of the command line is to this data set."""
ONE_AT_A_TIME = True
"""One category is read, never all: each would take the same test pictures."""

TRAIN, TEST = 5000, 1000
"""Published numbers of pictures of each class."""


def cifar10(
    path: Path | str,
    *,
    category: str = "airplane",
    split: Wanted = None,
    copies: Path | str | None = None,
) -> Samples:
    """The one-class task of Deep SVDD, RotNet and CSI: training pictures of the class `category` are train,
    all test pictures are test, those of other classes anomalous, `defect` is their class.

    path: a folder with the binary version (data_batch_1.bin to 5, test_batch.bin), or the folder
    cifar-10-batches-bin in it; or with cifar10_train.npz and cifar10_test.npz, packs of JPEG files. Training
    pictures of other classes are left out. category: the good class, or several that are good together,
    joined by "+" ("cat+dog"); it is the category of all rows. The pictures are written once as PNG into
    `copies`, by default the folder kizu_copies in `path` (5,000 and 10,000 files for one class). split: take
    only this one.

    Raises UnknownName for a class that does not exist, UsageError for a list of them and when all are good,
    LayoutError, EmptyData;
    LayoutError for the version for Python too, which is a pickle."""
    root = root_of(path, "cifar10")
    if not isinstance(category, str):
        raise UsageError(
            f"category is the good class, such as 'cat', or several joined by +, as in 'cat+dog'; got "
            f"{category!r}."
        )
    normal = chosen(category.split("+"), _cifar.CLASSES, "class")
    if len(normal) == len(_cifar.CLASSES):
        raise UsageError("All ten classes are good, so no test picture is anomalous: leave some away.")
    place = folder_of_copies(root, copies) / "cifar10"
    labels = [_cifar.CLASSES.index(name) for name in normal]
    rows = []
    for part, wanted in (("train", labels), ("test", range(len(_cifar.CLASSES)))):
        for label, images in _cifar.clean_copies(place, root, "cifar10", part, wanted).items():
            bad = label not in labels
            defect = _cifar.CLASSES[label] if bad else "good"
            rows += [Row(image, "+".join(normal), defect, int(bad), part) for image in images]
    if not any(row.split == "train" for row in rows):
        raise EmptyData(f"{root} holds no training picture of {' or '.join(normal)}.")
    return to_samples(rows, "cifar10").where(split=split)


def expected_counts() -> dict[tuple[str, str | None, int], int]:
    """(category, split, label) -> published number of pictures, of each single class."""
    counts: dict[tuple[str, str | None, int], int] = {}
    for name in _cifar.CLASSES:
        counts[name, "train", 0], counts[name, "test", 0] = TRAIN, TEST
        counts[name, "test", 1] = (len(_cifar.CLASSES) - 1) * TEST
    return counts
