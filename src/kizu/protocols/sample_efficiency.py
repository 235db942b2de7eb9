"""sample_efficiency: learn from a share of the good training images, test on all test images.

Source: ADPretrain, NeurIPS 2025, section 4.4 and Table 3 (a): 10 % of the good images of each data set. Which
ones the paper does not say, nor how a share is rounded; here they are drawn by the seed in each category,
whole groups only, and the number of groups is rounded to the nearest, one at least. The other training images
are not used."""

from __future__ import annotations

from kizu import checks
from kizu.errors import UsageError
from kizu.protocols.base import Split, hold_out, learn_and_test
from kizu.samples import Samples


def sample_efficiency(
    samples: Samples, *, share: float = 0.1, train_share: float = 0.8, seed: int = 0
) -> Split:
    """Samples -> Split that learns from `share` of what one_class learns from, and is tested on the same.

    share: of the good training images, drawn by `seed`, whole groups only; of one seed, those of a smaller
    share are among those of a larger one. train_share: of the good images on the training side, where there
    is no official split. Raises EmptyData for fewer than two groups to draw from, UsageError for shares that
    are not between 0 and 1.

    >>> import polars as pl
    >>> table = pl.DataFrame({"image": [f"/{n}.png" for n in range(30)], "label": [0] * 25 + [1] * 5})
    >>> split = sample_efficiency(Samples(table), share=0.1)
    >>> len(split.train), len(split.test)
    (2, 10)
    """
    checks.numbers(share=share)
    if not 0 < share < 1:
        raise UsageError(f"share is between 0 and 1, got {share!r}; one_class learns from all.")
    train, _, test, notes = learn_and_test(samples, 0.0, train_share, seed)
    rest, drawn = hold_out(train, share, seed)
    notes += (f"learned from {len(drawn)} of {len(drawn) + len(rest)} good training images, seed {seed}",)
    settings: dict[str, object] = {"share": share, "train_share": train_share}
    return Split(drawn, train.take([]), test, "sample_efficiency", seed, settings, notes)
