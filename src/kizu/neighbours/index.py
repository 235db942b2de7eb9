"""Exact nearest neighbours: a blocked matrix product, then direct differences where rounding could decide.

All squared distances between queries q and bank rows b come from one matrix product,

    |q - b|^2 = |q|^2 + |b|^2 - 2 q.b,

in float64 and about the bank's mean, some queries at a time. With unit roundoff u = 2^-53 and D features,
each is off by at most e = 2 (D + 16) u (|q|^2 + max |b|^2) (N. Higham, Accuracy and stability of numerical
algorithms, section 3.1). So every row that may be among the k nearest has a computed value within 2 e of the
k-th smallest. These candidates, hardly ever more than k, are measured again by direct difference, sum (q -
b)^2 in float64, and ordered by (distance, index).

`NearestNeighbours.query` is the one place where the faster twin, `kizu.accel.search`, is chosen instead.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from kizu import accel
from kizu.errors import UsageError
from kizu.neighbours._checks import check_finite, check_queries, check_rows, to_tensor

if TYPE_CHECKING:
    from kizu.accel.search import FastSearch

BLOCK = 2**22
"""Squared distances computed at once (32 MiB)."""
PAIRS = 2**18
"""Numbers of one piece of direct differences (2 MiB)."""
UNIT64 = 2.0**-53
MANY_QUERIES = 4096
"""Queries of one call of `nearest` from which it pays to prepare the bank."""


def nearest(
    queries: Tensor, bank: Tensor, k: int = 1, *, backend: Literal["torch", "faiss"] = "torch"
) -> tuple[Tensor, Tensor]:
    """The k nearest rows of bank (N, D) for each of queries (Q, D), Euclidean.

    For many searches of one bank use `NearestNeighbours`, which prepares the bank once.

    Args:
        queries, bank: tensors of any floating type or NumPy arrays; the bank's device does the work.
        k: neighbours of each query, 1 to N.
        backend: "torch" is exact, see `NearestNeighbours.query`. "faiss" is IndexFlatL2 of the package faiss
        (extra
            "faiss"), on the CPU in float32: its products may confuse rows that are almost equally near.

    Returns:
        Distances (Q, k), ascending, and int64 indices (Q, k).

    Raises:
        UsageError: an empty bank, k outside 1..N, an unknown backend. ShapeError: other shapes. NotFinite:
        NaN or infinity. MissingExtra: "faiss" is asked for and not installed.

    >>> bank = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
    >>> nearest(torch.tensor([[0.0, 1.0]]), bank, k=2)
    (tensor([[1.0000, 4.2426]]), tensor([[0, 1]]))
    """
    if backend not in ("torch", "faiss"):
        raise UsageError(f"backend must be 'torch' or 'faiss', got {backend!r}.")
    if backend == "torch":
        return NearestNeighbours(bank, many_queries=len(queries) >= MANY_QUERIES).query(queries, k)
    from kizu.neighbours._faiss import search_flat

    return search_flat(queries, bank, k)


class NearestNeighbours:
    """A bank (N, D) that answers nearest-neighbour queries exactly.

    Args:
        bank: tensor of any floating type or NumPy array; kept as given, not copied. Its device does the work.
        many_queries: whether more than some hundreds of queries will come, for which it pays to prepare the
        bank
            (a second, or less). The answers are the same.

    Raises:
        UsageError: the bank is empty. ShapeError: it is not (N, D). NotFinite: it holds NaN or infinity.

    >>> index = NearestNeighbours(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    >>> distances, rows = index.query(torch.tensor([[3.0, 3.0]]))
    >>> float(distances), int(rows)
    (1.0, 1)
    """

    def __init__(self, bank: Tensor, *, many_queries: bool = True) -> None:
        bank = to_tensor("bank", bank)
        check_rows("bank", bank)
        check_finite("bank", bank)
        self.bank = bank
        self._twin: FastSearch | None = None
        if accel.enabled():
            from kizu.accel.search import FastSearch

            self._twin = FastSearch(bank, many_queries=many_queries)

    def query(self, queries: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """The k nearest rows of each of queries (Q, D): distances (Q, k), ascending, and int64 indices (Q,
        k).

        Distances are Euclidean, those of direct differences (relative error about 1e-7; float32, or float64
        for a float64 bank). The rows are the true nearest ones; of rows equally near (in float64) the
        smallest index is returned.

        Raises:
            ShapeError: another D than the bank's. UsageError: k outside 1..N. NotFinite: NaN or infinity.
        """
        queries = to_tensor("queries", queries).to(self.bank.device)
        check_queries(queries, self.bank, k)
        if self._twin is None or not self._twin.can_serve(queries, k):
            check_finite("queries", queries)
            return exact_search(queries, self.bank, k)
        distances, index, unresolved = self._twin.query(queries, k)
        if bool(unresolved.any()):  # too far away for float32, or not finite
            check_finite("queries", queries)
            distances[unresolved], index[unresolved] = exact_search(queries[unresolved], self.bank, k)
        return distances, index


@torch.no_grad()
def exact_search(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """What `NearestNeighbours.query` returns, for finite queries (Q, D) and bank (N, D)."""
    peak = max(float(values.abs().amax()) if len(values) else 0.0 for values in (queries, bank))
    scale = math.ldexp(1.0, min(1000, -math.frexp(peak)[1]))  # brings `peak` near 1: no square overflows
    rows = bank.double() * scale
    mean = rows.mean(0)
    rows = rows - mean
    norms = rows.square().sum(1)
    answers = []
    for block in queries.split(max(1, BLOCK // len(bank))):
        shifted = block.double() * scale - mean
        size = shifted.square().sum(1, keepdim=True)
        squared = size + norms - 2.0 * (shifted @ rows.T)
        error = 2 * (bank.shape[1] + 16) * UNIT64 * (size + norms.amax())
        kth = squared.topk(k, dim=1, largest=False).values[:, -1:]
        query, row = (squared <= kth + 2 * error).nonzero(as_tuple=True)
        answers.append(_rank(block, bank, query, row, k, scale))
    distances, index = (torch.cat(parts) for parts in zip(*answers, strict=True))
    return distances.to(torch.promote_types(bank.dtype, torch.float32)), index


def _rank(
    queries: Tensor, bank: Tensor, query: Tensor, row: Tensor, k: int, scale: float
) -> tuple[Tensor, Tensor]:
    """The first k candidates of every query by (direct distance, index): distances (Q, k), indices (Q, k).

    Candidates are pairs (query, row), two tensors (M,), ascending; at least k for every query.
    """
    step = max(1, PAIRS // bank.shape[1])
    pieces = zip(query.split(step), row.split(step), strict=True)
    squared = torch.cat(
        [((queries[a].double() - bank[b].double()) * scale).square().sum(1) for a, b in pieces]
    )
    order = squared.argsort(stable=True)  # stable: equal distances stay in the order of their indices
    order = order[query[order].argsort(stable=True)]
    candidates = torch.bincount(query, minlength=len(queries))
    first = candidates.cumsum(0) - candidates
    chosen = order[first[:, None] + torch.arange(k, device=order.device)]
    return squared[chosen].sqrt() / scale, row[chosen]
