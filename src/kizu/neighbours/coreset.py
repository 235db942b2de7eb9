"""The greedy k-centre coreset: rows that cover all others, and how well they do."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kizu.errors import UsageError
from kizu.neighbours._checks import check_count, check_finite, check_rows, to_tensor
from kizu.neighbours._greedy import Progress, lazy_greedy
from kizu.neighbours.index import NearestNeighbours

POOL = 4
"""Rows in the random pool of "approximate" for each pick."""


def greedy_coreset(
    features: Tensor,
    n: int,
    *,
    start: int = 0,
    method: Literal["exact", "approximate"] = "exact",
    pool: int | None = None,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Indices (n,) int64 of n rows of features (N, D) that cover all others: greedy k-centre, in picking
    order.

    The first pick is row `start`; each next pick is the row farthest from its nearest pick. The covering
    radius is at most twice the best possible one. Sources: PatchCore (Roth et al. 2022), Alg. 1; Gonzalez
    (1985).

    Memory beyond the features: n (D + 1) float32 numbers, 40 bytes for each of the N rows and some 20 MB;
    nothing of size N x n.

    Args:
        features: tensor of any floating type on any device, or NumPy array.
        n: rows to pick, 1 to N.
        start: the first pick.
        method: "exact" gives the picks of the plain loop with squared distances by direct difference in
        float64; of
            rows equally far the smallest index is picked, and no row twice. "approximate" is the same loop
            over a random pool of rows, for N far larger than n; rows outside the pool are covered a little
            worse (docs/methods/neighbours.md has the measured loss).
        pool: rows in the pool for each pick, 4 by default; with "approximate" only.
        generator: draws the pool, with "approximate" only, which needs it.
        progress: called as progress(picks so far, n) now and then.

    Raises:
        UsageError: n outside 1..N, `start` outside 0..N-1, an unknown method, a missing generator, a pool
        that has no effect. ShapeError: features are not (N, D). NotFinite: they hold NaN or infinity.

    >>> greedy_coreset(torch.tensor([[0.0], [1.0], [5.0], [9.0]]), 3)
    tensor([0, 3, 2])
    """
    features = to_tensor("features", features)
    check_rows("features", features)
    check_count("n", n, 1, len(features), "rows of features")
    check_count("start", start, 0, len(features) - 1, "last row of features")
    if method not in ("exact", "approximate"):
        raise UsageError(f"method must be 'exact' or 'approximate', got {method!r}.")
    check_finite("features", features)
    if method == "exact":
        for name, value in (("pool", pool), ("generator", generator)):
            if value is not None:
                raise UsageError(f"{name}={value!r} has no effect with method='exact': leave it out.")
        return _exact(features, n, start, progress)
    rows = _pool(features, n, start, POOL if pool is None else pool, generator)
    return rows[_exact(features[rows], n, int((rows == start).nonzero()[0, 0]), progress)]


def covering_radius(features: Tensor, centres: Tensor) -> float:
    """The largest Euclidean distance of a row of features (N, D) to its nearest row of centres (n, D).

    Lower covers better. Raises as `NearestNeighbours` and its `query` do, and UsageError without features.

    >>> covering_radius(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0.0], [4.0]]))
    1.0
    """
    features = to_tensor("features", features)
    check_rows("features", features)
    return float(NearestNeighbours(centres).query(features)[0].amax())


def _exact(features: Tensor, n: int, start: int, progress: Progress | None) -> Tensor:
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        picks = lazy_greedy(features, n, start, progress)
    return torch.as_tensor(picks, device=features.device)


def _pool(features: Tensor, n: int, start: int, pool: int, generator: torch.Generator | None) -> Tensor:
    """Sorted indices of the random pool, `start` among them."""
    if generator is None:
        raise UsageError(
            "method='approximate' draws rows at random: give generator=torch.Generator().manual_seed(...)."
        )
    check_count("pool", pool, 1, len(features), "rows of features")
    order = torch.randperm(len(features), generator=generator, device=generator.device)
    drawn = order[: min(len(features), pool * n)]
    if not bool((drawn == start).any()):
        drawn[0] = start
    return drawn.sort().values.to(features.device)
