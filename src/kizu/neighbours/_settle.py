"""Distances of chosen pairs by direct difference, and the last word on which of them are the nearest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kizu.neighbours._filter import UNIT64, power_of_two, squared_norms

TIE = 2.0**-16
"""Relative gap of squared distances below which float32 does not decide (its sums are good to about 30
roundings of 2^-24)."""
STEP = 2**18
"""Numbers in one piece of differences: 1 MiB stays in the cache of a core."""


class Found(NamedTuple):
    """Measured pairs: query (M,), row (M,) and squared distance (M,) in the frame's units."""

    query: Tensor
    row: Tensor
    squared: Tensor


def direct(queries: Tensor, bank: Tensor, query: Tensor | None, row: Tensor, scale: float) -> Tensor:
    """Squared distances (M,) of pairs by direct difference, times scale^2; query None: the i-th query to the
    i-th row.

    float32, or float64 for float64 features.
    """
    step = max(1, STEP // bank.shape[1])
    working = torch.promote_types(bank.dtype, torch.float32)
    parts = []
    for start in range(0, len(row), step):
        piece = slice(start, start + step)
        left = queries[piece] if query is None else queries.index_select(0, query[piece])
        difference = bank.index_select(0, row[piece]).to(working).sub_(left.to(working))
        parts.append((difference.mul_(scale) if scale != 1.0 else difference).square_().sum(1))
    return torch.cat(parts) if parts else torch.empty(0, dtype=working, device=bank.device)


def settle(found: list[Found], queries: Tensor, bank: Tensor, k: int, scale: float) -> tuple[Tensor, Tensor]:
    """Distances (Q, k) and indices (Q, k) of the nearest among measured pairs; near-ties are decided in
    float64, then by index."""
    query = torch.cat([part.query for part in found])
    row = torch.cat([part.row for part in found])
    squared = torch.cat([part.squared for part in found])
    if k > 1:
        return _sorted(query, row, queries, bank, k, scale)
    best = squared.new_full((len(queries),), torch.inf).scatter_reduce_(0, query, squared, "amin")
    close = (squared <= best[query] * (1.0 + TIE)).nonzero()[:, 0]
    query, row = query[close], row[close]
    index = torch.empty(len(queries), dtype=torch.int64, device=bank.device).scatter_(0, query, row)
    if len(close) > len(queries):
        tied = torch.bincount(query, minlength=len(queries)) > 1
        names, again = tied.nonzero()[:, 0], tied[query].nonzero()[:, 0]
        place = torch.cumsum(tied, 0) - 1
        distance, winner = _sorted(place[query[again]], row[again], queries[names], bank, 1, scale)
        index[names] = winner[:, 0]
        best[names] = (distance[:, 0].double() * scale).square().to(best.dtype)
    return (best.sqrt() / scale)[:, None], index[:, None]


def _sorted(
    query: Tensor, row: Tensor, queries: Tensor, bank: Tensor, k: int, scale: float
) -> tuple[Tensor, Tensor]:
    """The first k pairs of every query by (float64 distance, index)."""
    squared = direct64(queries, bank, query, row, scale)
    left, right, values = (part.cpu().numpy() for part in (query, row, squared))
    order = np.lexsort((right, values, left))
    first = np.searchsorted(left[order], np.arange(len(queries)))
    taken = torch.as_tensor(order[first[:, None] + np.arange(k)], device=bank.device)
    working = torch.promote_types(bank.dtype, torch.float32)
    return (squared[taken].sqrt() / scale).to(working), row[taken]


def direct64(queries: Tensor, bank: Tensor, query: Tensor, row: Tensor, scale: float) -> Tensor:
    """`direct` in float64."""
    step = max(1, STEP // bank.shape[1])
    pieces = zip(query.split(step), row.split(step), strict=True)
    parts = [((bank[b].double() - queries[a].double()) * scale).square_().sum(1) for a, b in pieces]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64, device=bank.device)


def measure(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances (Q, k) and indices (Q, k) by float64 products with every row: for banks of few rows, many
    neighbours, far queries."""
    peak = max(float(queries.abs().amax()), float(bank.abs().amax()))
    scale = power_of_two(peak)
    rows = bank.double() * scale
    mean = rows.mean(0)
    rows -= mean
    norms = squared_norms(rows)
    answers = [
        _measure(part, bank, rows, norms, mean, k, scale)
        for part in queries.split(max(1, 2**23 // len(bank)))
    ]
    return torch.cat([part[0] for part in answers]), torch.cat([part[1] for part in answers])


def _measure(
    queries: Tensor, bank: Tensor, rows: Tensor, norms: Tensor, mean: Tensor, k: int, scale: float
) -> tuple[Tensor, Tensor]:
    left = queries.double() * scale - mean
    own = squared_norms(left)
    squared = own[:, None] + norms - 2.0 * (left @ rows.T)
    error = 2 * (rows.shape[1] + 16) * UNIT64 * (own + norms.amax())
    limit = squared.kthvalue(k, dim=1).values + 2 * error
    query, row = (squared <= limit[:, None]).nonzero(as_tuple=True)
    return _sorted(query, row, queries, bank, k, scale)
