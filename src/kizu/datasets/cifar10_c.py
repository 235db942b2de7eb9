"""CIFAR-10-C: test pictures of CIFAR-10 under common corruptions; clean pictures of a class are good,
corrupted ones of it anomalous."""

from __future__ import annotations

from pathlib import Path

from kizu.datasets import _cifar, _cifar_c
from kizu.masks import MaskRule
from kizu.samples import Samples, Wanted

LICENCE = _cifar_c.LICENCE
CITATION = _cifar_c.CITATION
HOMEPAGE = "https://zenodo.org/records/2535967"
MASK_RULE: MaskRule = "half"
"""There are no masks: image metrics only."""
CATEGORY_KEYWORD = "category"
"""What `--category` of the command line is to this data set."""

NINE = _cifar_c.NINE
"""The corruptions that are taken where none are named; `_cifar_c` says why these."""
TRAIN, TEST = 5000, 1000
"""Published numbers of clean pictures of each class; each corruption has as many as TEST at each level."""


def cifar10_c(
    path: Path | str,
    *,
    category: Wanted = None,
    corruptions: Wanted = None,
    level: int = 2,
    source: _cifar_c.Source = "official",
    seed: int = 0,
    split: Wanted = None,
    copies: Path | str | None = None,
) -> Samples:
    """The task of few-shot contrastive fine-tuning (Table 3), for each class: clean training pictures are
    train; clean test pictures (good) and the same ones corrupted (anomalous) are test.

    path: a folder with both CIFAR-10-C/ (labels.npy, <corruption>.npy) and cifar-10-batches-bin/ (the binary
    version of the clean pictures). category: the class. corruptions: names of files; by default NINE, for
    the paper does not say which nine it took. level: 1 to 5. `defect` is the corruption, `group` the test
    picture. The paper speaks of 5,000 clean test pictures of a class; there are 1,000.
    source: "generated" makes the NINE at level 2 from the clean pictures alone, drawn by `seed`, at the
    strength of the archive but not its draws: such figures are not those of CIFAR-10-C. A pack of JPEG files
    (cifar10_train.npz, cifar10_test.npz) serves there as well.
    The pictures are written once as PNG into `copies`, by default kizu_copies in `path`: 15,000 a class.

    Raises UnknownName, UsageError, EmptyData; LayoutError for what is missing, damaged or does not belong
    together, and for the version for Python, which is a pickle."""
    asked = _cifar_c.task("cifar10", corruptions, level, source, seed)
    return _cifar_c.samples_of(path, "cifar10_c", asked, category, split, copies)


def expected_counts() -> dict[tuple[str, str | None, int], int]:
    """(category, split, label) -> published number of pictures, with nine corruptions."""
    sides: tuple[tuple[str, int, int], ...] = (
        *(("train", 0, TRAIN), ("test", 0, TEST), ("test", 1, len(NINE) * TEST)),
    )
    return {(name, split, label): count for name in _cifar.CLASSES for split, label, count in sides}
