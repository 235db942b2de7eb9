"""Reference images of residual features: which of the good ones, and their features."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kizu.errors import TooFewImages
from kizu.nn.patches import finest_level, to_rows
from kizu.nn.semantic_alignment import cells, fit_centres, histograms
from kizu.representations.aligned_residual import AlignedResidual, References, identity
from kizu.representations.base import Representation
from kizu.representations.residual import Residual
from kizu.training import SampleStore

BATCH = 16
"""Images a forward pass."""


def fixed(
    base: Representation,
    good: SampleStore,
    *,
    shots: int,
    selection: str,
    matching: str,
    generator: torch.Generator,
) -> Residual:
    """Residuals to `shots` of the good images. Of a random order that `generator` decides, they are the
    first; so fewer shots are some of the same images."""
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


def aligned(
    base: Representation,
    good: SampleStore,
    *,
    shots: int,
    matching: str,
    matcher: Representation | None,
    grid: int,
    centres: int,
    seed: int,
) -> AlignedResidual:
    """Residuals to those of the good images that are most like each image. Raises TooFewImages."""
    if len(good) <= shots:
        raise TooFewImages(
            f"Aligned references are {shots} of the good images besides the image itself, so more than "
            f"{shots} are needed; there are {len(good)}. Take fewer shots, or references='fixed'."
        )
    banks: list[list[Tensor]] = [[] for _ in base.channels]
    rows, identities, positions = [], [], (0, 0)
    extract = base.inference_copy("fp32", "cpu")
    match = None if matcher is None else matcher.inference_copy("fp32", "cpu")
    for number in range(len(good)):
        image = good.take([number]).require_images()
        levels = extract(image)
        for bank, level in zip(banks, levels, strict=True):
            bank.append(to_rows(level))
        maps = levels if match is None else match(image)
        level = maps[finest_level(maps)]
        positions = (int(level.shape[2]), int(level.shape[3]))
        rows.append(to_rows(level))
        identities.append(identity(image[0]))
    features = torch.stack(rows)
    codebook = fit_centres(features, cells(*positions, grid), centres=centres, seed=seed)
    references = References(
        [torch.stack(bank) for bank in banks],
        histograms(features, codebook),
        codebook,
        torch.tensor(identities),
    )
    return AlignedResidual(
        base,
        references,
        positions=positions,
        grid=grid,
        shots=shots,
        matching=matching,
        matcher=matcher,
    )


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
