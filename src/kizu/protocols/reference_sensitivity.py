"""reference_sensitivity: how far figures depend on which good images an adaptation draws as references.

Source: ADPretrain, NeurIPS 2025, section 4.4 and Table 4: three random sets of 8 reference images, the mean
of the three results and their spread. The detector learns from all good training images each time, as
residuals to the references that were drawn. So the seed of this protocol goes to the adaptation and nowhere
else: the split and the detector's own seed stay the same, where one_class with several seeds would change
them too.

    [[adaptation]]
    name = "residual"
    parameters = { shots = 8 }
    [[protocol]]
    name = "reference_sensitivity"
    seeds = [0, 1, 2]

The table of `kizu bench` gives mean and sample standard deviation; an experiment without an adaptation is
refused, for all its seeds would be one and the same."""

from __future__ import annotations

from kizu import checks
from kizu.protocols.base import Split, learn_and_test
from kizu.samples import Samples

SEEDS_ADAPTATION_ONLY = True
"""The seeds of an experiment are those of the adaptation; the detector keeps its own default, or the one that
is named for it."""
FIXED_SEED = 0
"""Divides the good images where there is no official split, whatever the seed."""


def reference_sensitivity(samples: Samples, *, train_share: float = 0.8, seed: int = 0) -> Split:
    """Samples -> the Split of one_class, the same for every `seed`.

    train_share: of the good images on the training side, where there is no official split. Raises EmptyData
    where there are no good images to learn from, UsageError for a negative seed.

    >>> import polars as pl
    >>> table = pl.DataFrame({"image": [f"/{n}.png" for n in range(12)], "label": [0] * 10 + [1] * 2})
    >>> samples = Samples(table)
    >>> reference_sensitivity(samples, seed=1).train == reference_sensitivity(samples, seed=2).train
    True
    """
    checks.whole_numbers(least=0, seed=seed)
    train, held, test, notes = learn_and_test(samples, 0.0, train_share, FIXED_SEED)
    settings: dict[str, object] = {"train_share": train_share}
    return Split(train, held, test, "reference_sensitivity", seed, settings, notes)
