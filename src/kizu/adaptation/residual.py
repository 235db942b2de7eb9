"""Residual: features become differences to the nearest features of a few good images of the product.

Card. Paper: ADPretrain, NeurIPS 2025, section 3.1, with 8 reference images (App. B); without the projector
here. Official code: xcyao00/ADPretrain (MIT); nothing of it is used. Paper and code disagree on the matching,
see representations/residual.py. Selection: the paper draws at random; "kmeans" spreads the references over
what the good images show: one image, the nearest to its centre, of each of `shots` clusters of pooled
features. The reference images are learned from as well: their own residuals are zero."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kizu import checks
from kizu.errors import TooFewImages, UnknownName
from kizu.nn.patches import to_rows
from kizu.representations.base import Representation
from kizu.representations.residual import MATCHINGS, Residual
from kizu.training import FitOptions, SampleStore

SELECTIONS = ("random", "kmeans")
BATCH = 16
"""Images a forward pass."""


def check_parameters(*, shots: int, selection: str, matching: str) -> None:
    """Raise UsageError, UnknownName for values out of range."""
    checks.whole_numbers(shots=shots)
    for name, value, known in (("selection", selection, SELECTIONS), ("matching", matching, MATCHINGS)):
        if value not in known:
            raise UnknownName(name, str(value), known)


def residual(
    base: Representation,
    good: SampleStore,
    *,
    shots: int = 8,
    selection: str = "random",
    matching: str = "l2",
    generator: torch.Generator,
    options: FitOptions,
) -> Residual:
    """A Residual representation around `base` whose references are `shots` of the good images (all, if
    fewer).

    shots: K, how many images. selection: "random", or "kmeans", spread over the images' pooled features.
    matching: nearest reference by "l2" distance or "cosine" similarity. Raises what `check_parameters`
    raises, and TooFewImages when K-means has fewer images than shots."""
    check_parameters(shots=shots, selection=selection, matching=matching)
    if options.progress:
        options.progress(0, f"choosing {shots} reference images")
    if selection == "random":
        chosen = torch.randperm(len(good), generator=generator)[:shots].sort().values.tolist()
    else:
        chosen = spread(_pooled(base, good), shots, int(torch.randint(2**31, (), generator=generator)))
    banks: list[list[Tensor]] = [[] for _ in base.channels]
    extract = base.inference_copy("fp32", "cpu")
    for number in chosen:
        for bank, level in zip(banks, extract(good.take([number]).require_images()), strict=True):
            bank.append(to_rows(level).clone())
    card = {"shots": len(chosen), "selection": selection}
    return Residual(base, [torch.cat(bank) for bank in banks], matching=matching, card=card)


def spread(pooled: np.ndarray, count: int, seed: int) -> list[int]:
    """Rows of pooled (n, D), one for each of `count` K-means clusters: the nearest to its centre. Rising.

    Raises TooFewImages for fewer rows than clusters.
    """
    from sklearn.cluster import KMeans

    if len(pooled) < count:
        raise TooFewImages(
            f"K-means takes at least as many good images as shots, {count}; there are {len(pooled)}. "
            "Give more images or fewer shots, or selection='random'."
        )
    clusters = KMeans(count, n_init=4, random_state=seed).fit(pooled)
    distances = np.linalg.norm(pooled - clusters.cluster_centers_[clusters.labels_], axis=1)
    members = [np.flatnonzero(clusters.labels_ == cluster) for cluster in range(count)]
    return sorted(int(rows[distances[rows].argmin()]) for rows in members if len(rows))


def _pooled(base: Representation, good: SampleStore) -> np.ndarray:
    """(n, sum C_l): features of each image, averaged over positions."""
    extract = base.inference_copy()
    pooled = [
        torch.cat([level.mean((2, 3)).cpu() for level in extract(batch.require_images())], dim=1)
        for batch in good.batches(BATCH)
    ]
    return torch.cat(pooled).double().numpy()
