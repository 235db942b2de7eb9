"""Distances of chosen pairs by direct difference, and which of the pairs are the nearest."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TIE = 2.0**-16
"""Relative gap of squared distances below which float32 does not decide: its sums are good to about 30
roundings of 2^-24."""
PIECE = 2**18
"""Numbers in one piece of differences: 1 MiB stays in the cache of a core."""


class Pairs(NamedTuple):
    """Measured pairs: query (M,), row (M,) and squared distance (M,) in units of the frame."""

    query: Tensor
    row: Tensor
    squared: Tensor


def direct(
    queries: Tensor, bank: Tensor, query: Tensor | None, row: Tensor, scale: float, *, double: bool = False
) -> Tensor:
    """Squared distances (M,) of pairs by direct difference, times scale^2.

    query None: the i-th query to the i-th of `row`. float32; float64 for a float64 bank or with `double`.
    """
    step = max(1, PIECE // bank.shape[1])
    working = torch.float64 if double else torch.promote_types(bank.dtype, torch.float32)
    parts = []
    for start in range(0, len(row), step):
        piece = slice(start, start + step)
        left = queries[piece] if query is None else queries.index_select(0, query[piece])
        difference = bank.index_select(0, row[piece]).to(working).sub_(left.to(working))
        parts.append((difference.mul_(scale) if scale != 1.0 else difference).square_().sum(1))
    return torch.cat(parts) if parts else torch.empty(0, dtype=working, device=bank.device)


def nearest_pairs(
    measured: list[Pairs], queries: Tensor, bank: Tensor, k: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Distances (Q, k) and indices (Q, k) of the nearest among measured pairs, at least k for each query.

    Near ties are decided by float64 distances, then by index.
    """
    query, row, squared = (torch.cat(parts) for parts in zip(*measured, strict=True))
    if k > 1:
        return _ranked(query, row, queries, bank, k, scale)
    best = squared.new_full((len(queries),), torch.inf).scatter_reduce_(0, query, squared, "amin")
    close = (squared <= best[query] * (1.0 + TIE)).nonzero()[:, 0]
    query, row = query[close], row[close]
    index = torch.empty(len(queries), dtype=torch.int64, device=bank.device).scatter_(0, query, row)
    if len(close) > len(queries):
        tied = torch.bincount(query, minlength=len(queries)) > 1
        names, again = tied.nonzero()[:, 0], tied[query].nonzero()[:, 0]
        position = torch.cumsum(tied, 0) - 1
        distance, winner = _ranked(position[query[again]], row[again], queries[names], bank, 1, scale)
        index[names] = winner[:, 0]
        best[names] = (distance[:, 0].double() * scale).square().to(best.dtype)
    return (best.sqrt() / scale)[:, None], index[:, None]


def _ranked(
    query: Tensor, row: Tensor, queries: Tensor, bank: Tensor, k: int, scale: float
) -> tuple[Tensor, Tensor]:
    """The first k pairs of every query by (float64 distance, index): distances (Q, k), indices (Q, k)."""
    squared = direct(queries, bank, query, row, scale, double=True)
    order = row.argsort()
    order = order[squared[order].argsort(stable=True)]
    order = order[query[order].argsort(stable=True)]
    pairs = torch.bincount(query, minlength=len(queries))
    first = pairs.cumsum(0) - pairs
    chosen = order[first[:, None] + torch.arange(k, device=order.device)]
    working = torch.promote_types(bank.dtype, torch.float32)
    return (squared[chosen].sqrt() / scale).to(working), row[chosen]
