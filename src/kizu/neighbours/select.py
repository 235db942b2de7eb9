"""The coreset as it is called: greedy_coreset and covering_radius."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kizu.errors import UsageError
from kizu.neighbours._checks import check_count, check_finite, check_rows, to_tensor
from kizu.neighbours._coreset import Progress, exact_greedy
from kizu.neighbours.index import NearestNeighbours


def greedy_coreset(
    features: Tensor,
    n: int,
    *,
    start: int = 0,
    method: Literal["exact", "approximate"] = "exact",
    pool: int = 4,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Indices (n,) int64 of n rows of features (N, D) that cover all others: greedy k-centre, in the order of
    picking.

    The first pick is row `start`; each next one is the row farthest from its nearest pick. Source: PatchCore
    (Roth et al. 2022), Alg. 1; Gonzalez (1985): the covering radius is at most twice the best possible one.

    method "exact": the very picks of the plain loop with squared distances by direct difference in float64;
    of rows equally far the smallest index is picked, and no row twice. "approximate": the same loop over a
    random pool of `pool` rows per pick (drawn with `generator`, which must be given), for when N is far
    larger than n; rows outside the pool are covered a little worse (docs/methods/neighbours.md has the
    measured loss). `progress(done, n)` is called now and then.

    features: tensor (any floating type, any device) or array. Memory beyond the features: n (D + 1) float32
    numbers, 40 bytes a row of N and some 20 MB; nothing of size N x n. An interrupt leaves nothing behind.

    Raises UsageError for n outside 1..N, `start` outside 0..N-1, an unknown method or a missing generator,
    ShapeError unless (N, D), NotFinite for NaN or infinity."""
    features = to_tensor("features", features)
    check_rows("features", features)
    check_count("n", n, 1, len(features), "rows of features")
    check_count("start", start, 0, len(features) - 1, "last row of features")
    if method not in ("exact", "approximate"):
        raise UsageError(f"method must be 'exact' or 'approximate', got {method!r}.")
    check_finite("features", features)
    if method == "exact":
        return _exact(features, n, start, progress)
    rows = _pool(features, n, start, pool, generator)
    return rows[_exact(features[rows], n, int((rows == start).nonzero()[0, 0]), progress)]


def covering_radius(features: Tensor, centres: Tensor) -> float:
    """The largest Euclidean distance of a row of features (N, D) to its nearest row of centres (n, D). Lower
    covers better.

    Raises as `NearestNeighbours` and its `query` do, and UsageError when there are no features.
    """
    features = to_tensor("features", features)
    check_rows("features", features)
    return float(NearestNeighbours(centres).query(features)[0].amax())


def _exact(features: Tensor, n: int, start: int, progress: Progress | None) -> Tensor:
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        picks = exact_greedy(features, n, start, progress)
    return torch.as_tensor(picks, device=features.device)


def _pool(features: Tensor, n: int, start: int, pool: int, generator: torch.Generator | None) -> Tensor:
    """Sorted indices of the random pool, `start` among them."""
    if generator is None:
        raise UsageError(
            "method='approximate' draws rows at random: give generator=torch.Generator().manual_seed(...)."
        )
    check_count("pool", pool, 1, len(features), "rows of features")
    drawn = torch.randperm(len(features), generator=generator, device=generator.device)[
        : min(len(features), pool * n)
    ]
    if not bool((drawn == start).any()):
        drawn[0] = start
    return drawn.sort().values.to(features.device)
