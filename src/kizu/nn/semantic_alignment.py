"""How much two images of a product are alike in what they show where: histograms of distances to the cluster
centres of a grid's cells, and the KL divergence between them.

Card. Paper: ADPretrain, NeurIPS 2025, app. C, equations 8 and 9; its S = 5 and N_c = 5. No code of it was
released. Each position of a feature map is described by its cosine distances to the S^2 N_c centres, which
are N_c of K-means for each cell of an S x S grid; two images are as different as the mean over cells of the
largest divergence in the cell. What the paper leaves open, and how it is here:

- It names the entries of a histogram cosine similarities in one place and distances in two. They are
  distances, 1 - cosine: not negative, as an entry has to be. None is below FLOOR, so that every logarithm is
  finite.
- Maps whose side is no multiple of S: row i of h belongs to row floor(i S / h) of the grid.
- K-means is Lloyd's from one k-means++ start, by one thread so that a seed gives the same centres, on at most
  ROWS features a cell.
- The divergence is KL(reference || query), position by position."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional

from kizu.errors import TooFewImages, UsageError

FLOOR = 1e-6
"""Smallest cosine distance: float32 knows a cosine near 1 no better."""
ROWS = 8192
"""Features of a cell that are clustered: drawn at random where there are more."""


def cells(height: int, width: int, grid: int) -> Tensor:
    """The cell of each position of a map, row by row: (height * width,) int64 in 0 to grid^2 - 1.

    Raises UsageError for a map of fewer rows or columns than the grid.

    >>> cells(2, 4, 2).tolist()
    [0, 0, 1, 1, 2, 2, 3, 3]
    """
    if min(height, width) < grid:
        raise UsageError(
            f"A map of {height} x {width} positions cannot be divided into {grid} x {grid} cells: take a "
            "smaller grid, larger images or a finer level."
        )
    rows, columns = torch.arange(height) * grid // height, torch.arange(width) * grid // width
    return (rows[:, None] * grid + columns).flatten()


def fit_centres(features: Tensor, cell: Tensor, *, centres: int, seed: int) -> Tensor:
    """K-means centres of each cell's features, cell after cell: (cells * centres, C) float32.

    features: (n, P, C) of n images. cell: (P,) as `cells` gives it. Raises TooFewImages where a cell has
    fewer features than centres."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a cell of one colour has fewer clusters
        found = [
            KMeans(centres, n_init=1, random_state=seed).fit(rows).cluster_centers_
            for rows in (_drawn(features[:, cell == number], centres, seed) for number in cell.unique())
        ]
    return torch.from_numpy(np.concatenate(found)).float().to(features.device)


def _drawn(features: Tensor, centres: int, seed: int) -> np.ndarray:
    """At most ROWS features (N, C) float64 of a cell's (n, p, C)."""
    rows = features.flatten(0, 1)
    if len(rows) < centres:
        raise TooFewImages(
            f"A cell of the grid has {len(rows)} features of the good images, fewer than centres={centres}: "
            "take more images, a coarser grid or fewer centres."
        )
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:ROWS]
    return rows[drawn.to(rows.device)].cpu().double().numpy()


def histograms(features: Tensor, centres: Tensor) -> Tensor:
    """Cosine distances of features (..., P, C) to centres (M, C): (..., P, M), each position's sum 1."""
    cosines = functional.normalize(features, dim=-1) @ functional.normalize(centres, dim=-1).T
    return functional.normalize((1 - cosines).clamp_min(FLOOR), p=1, dim=-1)


def self_information(references: Tensor) -> Tensor:
    """sum_m h log h of histograms (n, P, M): (n, P), the part of the divergence that no query changes."""
    return (references * references.log()).sum(-1)


def divergences(query: Tensor, references: Tensor, information: Tensor, cell: Tensor) -> Tensor:
    """D of equation 9 between one image's histograms (P, M) and those (n, P, M) of n others: (n,), smaller is
    more alike.

    information: `self_information(references)`. cell: (P,) as `cells` gives it."""
    by_position = information - torch.einsum("npm,pm->np", references, query.log())
    count = int(cell.max()) + 1
    worst = by_position.new_full((len(references), count), -torch.inf)
    worst.scatter_reduce_(1, cell.expand(len(references), -1), by_position, "amax")
    return worst.mean(1)
