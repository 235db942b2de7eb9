"""few_shot: learn from k good images, test on all others.

Source: few-shot contrastive fine-tuning, section 4.1 and Table 2 (k of the good images, drawn at random;
every other image is a test image). Where the same part was photographed several times, that puts a part on
both sides: leak_safe=True draws k images of k different groups and tests on no image of those groups."""

from __future__ import annotations

import numpy as np

from kizu import checks
from kizu.errors import EmptyData
from kizu.protocols.base import Split, units
from kizu.samples import Samples


def few_shot(samples: Samples, *, shots: int = 5, leak_safe: bool = False, seed: int = 0) -> Split:
    """Samples -> Split with `shots` good training images drawn by `seed`, and no calibration images.

    With an official split the draw is from its training images, and the test images are its test split.
    Raises EmptyData when there are fewer good images (or groups) than shots; UsageError for shots < 1.

    >>> import polars as pl
    >>> images = [f"/{n}.png" for n in range(12)]
    >>> samples = Samples(pl.DataFrame({"image": images, "label": [0] * 10 + [1] * 2}))
    >>> split = few_shot(samples, shots=3)
    >>> len(split.train), len(split.test)
    (3, 9)
    """
    checks.whole_numbers(shots=shots)
    checks.whole_numbers(least=0, seed=seed)
    checks.switches(leak_safe=leak_safe)
    official = len(samples.train) + len(samples.test) > 0
    pool = samples.train.normal if official else samples.normal
    of_row = units(pool) if leak_safe else np.arange(len(pool))
    available = len(np.unique(of_row))
    if available < shots:
        raise EmptyData(
            f"{shots} shots need as many good {'groups' if leak_safe else 'images'}; there are {available}."
        )
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(pool))
    _, first = np.unique(of_row[order], return_index=True)
    chosen = np.sort(order[np.sort(first)[:shots]])
    train = pool.take(chosen)
    test = samples.test if official else _others(samples, train, leak_safe)
    settings: dict[str, object] = {"shots": shots, "leak_safe": leak_safe}
    return Split(train, pool.take([]), test, "few_shot", seed, settings)


def _others(samples: Samples, train: Samples, leak_safe: bool) -> Samples:
    """Every labelled row that is not a training image, nor (leak_safe) of a training image's group."""
    training = set(train.paths)
    groups = set(train.table["group"].drop_nulls().to_list()) if leak_safe else set()
    table = samples.table
    keep = [
        row
        for row, (image, group, label) in enumerate(
            zip(table["image"], table["group"], table["label"], strict=True)
        )
        if image not in training and label is not None and (group is None or group not in groups)
    ]
    return samples.take(keep)
