"""Nearest neighbours as they are called: one function, for one search."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kizu.errors import MissingExtra, UsageError
from kizu.neighbours._checks import check_finite, check_rows, check_width, to_tensor
from kizu.neighbours.index import NearestNeighbours

PREPARE_FROM = 4096
"""Queries from which preparing the narrow levels pays within one call."""


def nearest(
    queries: Tensor, bank: Tensor, k: int = 1, *, backend: Literal["torch", "faiss"] = "torch"
) -> tuple[Tensor, Tensor]:
    """The k nearest rows of bank (N, D) for each of queries (Q, D): Euclidean distances (Q, k), ascending,
    and int64 indices (Q, k).

    backend "torch": exact, as `NearestNeighbours` says (of rows equally near the smallest index); the bank's
    device decides where. "faiss": IndexFlatL2 of the package faiss (extra "faiss"), on the CPU in float32: no
    better at near-ties than its products. For many searches of one bank use `NearestNeighbours`, which
    prepares the bank once.

    Raises UsageError for an empty bank, k outside 1..N or an unknown backend, ShapeError for other shapes,
    NotFinite for NaN or infinity, MissingExtra when faiss is asked for and not installed."""
    if backend not in ("torch", "faiss"):
        raise UsageError(f"backend must be 'torch' or 'faiss', got {backend!r}.")
    if backend == "torch":
        return NearestNeighbours(bank, prefix=len(queries) >= PREPARE_FROM).query(queries, k)
    return _faiss(queries, bank, k)


def _faiss(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise MissingExtra("faiss-cpu", "faiss") from error
    bank, queries = to_tensor("bank", bank), to_tensor("queries", queries)
    check_rows("bank", bank)
    check_width(queries, bank, k)
    check_finite("bank", bank)
    check_finite("queries", queries)
    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(bank.float().cpu().contiguous().numpy())
    squared, rows = index.search(queries.float().cpu().contiguous().numpy(), k)
    return torch.from_numpy(squared).clamp_(min=0).sqrt_().to(bank.device), torch.from_numpy(rows).to(
        bank.device
    )
