"""CIFAR-100-C: test pictures of CIFAR-100 under common corruptions; clean pictures of a class are good,
corrupted ones of it anomalous."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from kizu.datasets import _cifar_c
from kizu.errors import UnknownName
from kizu.masks import MaskRule
from kizu.samples import Samples, Wanted

LICENCE = _cifar_c.LICENCE
CITATION = _cifar_c.CITATION
HOMEPAGE = "https://zenodo.org/records/3555552"
MASK_RULE: MaskRule = "half"
"""There are no masks: image metrics only."""
CATEGORY_KEYWORD = "category"
"""What `--category` of the command line is to this data set."""

NINE = _cifar_c.NINE
"""The corruptions that are taken where none are named; `_cifar_c` says why these."""
SUPERCLASSES = (
    *("aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables"),
    *("household_electrical_devices", "household_furniture", "insects", "large_carnivores"),
    *("large_man-made_outdoor_things", "large_natural_outdoor_scenes", "large_omnivores_and_herbivores"),
    *("medium_mammals", "non-insect_invertebrates", "people", "reptiles", "small_mammals", "trees"),
    *("vehicles_1", "vehicles_2"),
)
"""In the order of their labels 0 to 19. Table 4 of few-shot contrastive fine-tuning numbers them, and is
taken to follow that order."""
TRAIN, TEST = 2500, 500
"""Published numbers of clean pictures of each superclass (of a class: a fifth)."""


def cifar100_c(
    path: Path | str,
    *,
    category: Wanted = None,
    classes: Literal["super", "fine"] = "super",
    corruptions: Wanted = None,
    level: int = 2,
    source: _cifar_c.Source = "official",
    seed: int = 0,
    split: Wanted = None,
    copies: Path | str | None = None,
) -> Samples:
    """The task of few-shot contrastive fine-tuning (Table 4), for each of the 20 superclasses: clean training
    pictures are train; clean test pictures (good) and the same ones corrupted (anomalous) are test.

    path: a folder with both CIFAR-100-C/ (labels.npy, <corruption>.npy) and cifar-100-binary/ (the binary
    version of the clean pictures). classes: "fine" takes the 100 classes one by one. category: the class.
    corruptions: names of files; by default NINE, for the paper does not say which nine it took. level: 1
    to 5. `defect` is the corruption, `group` the test picture. The paper speaks of 5,000 clean test pictures
    of a class; a superclass has 500. source: "generated" makes the NINE at level 2 from the clean pictures
    alone, drawn by `seed`: such figures are not those of CIFAR-100-C. The pictures are written once as PNG
    into `copies`, by default kizu_copies in `path`: 7,500 a superclass.

    Raises UnknownName, UsageError, EmptyData; LayoutError for what is missing, damaged or does not belong
    together, and for the version for Python, which is a pickle."""
    if classes not in ("super", "fine"):
        raise UnknownName("kind of class", str(classes), ("super", "fine"))
    asked = _cifar_c.task("cifar100", corruptions, level, source, seed, coarse=classes == "super")
    return _cifar_c.samples_of(path, "cifar100_c", asked, category, split, copies)


def expected_counts() -> dict[tuple[str, str | None, int], int]:
    """(category, split, label) -> published number of pictures of the superclasses, with nine corruptions."""
    sides: tuple[tuple[str, int, int], ...] = (
        *(("train", 0, TRAIN), ("test", 0, TEST), ("test", 1, len(NINE) * TEST)),
    )
    return {(name, split, label): count for name in SUPERCLASSES for split, label, count in sides}
