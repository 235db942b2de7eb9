"""The fast twin of `kizu.neighbours.index.exact_search`: the same neighbours, in a fraction of the time.

For one neighbour in a float32 bank on the CPU a tree is built (`kizu.accel.tree`), and machine code walks it
for each query. What the tree leaves unresolved (queries that would have to look into too many leaves), more
than one neighbour, and banks on other devices go through products with all rows (`kizu.accel.products`). What
these leave unresolved is the caller's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kizu.accel.directions import SAMPLE, leading_directions, sample
from kizu.accel.frame import Frame
from kizu.accel.products import MAX_NORM, ProductSearch

if TYPE_CHECKING:
    from kizu.accel.tree import Tree

QUERIES = 1024
"""Queries whose bounds are kept at once."""
TREE_ROWS = 64
"""Bank rows from which a tree is built: with fewer it leaves the queries to the products."""


class FastSearch:
    """The search in a finite bank (N, D) of any floating type, on any device.

    many_queries: spend time on a tree and narrow products, worth it for more than some hundreds of queries.
    """

    def __init__(self, bank: Tensor, *, many_queries: bool = True) -> None:
        self.bank = bank
        with _without_gradients(bank.device.type):
            self.frame = Frame.of(bank)
            self.products = ProductSearch(bank, self.frame, narrow=many_queries)
            self.tree = self._build_tree() if many_queries else None

    def can_serve(self, queries: Tensor, k: int) -> bool:
        """Whether `query` answers these: some queries, few neighbours compared with the bank's rows."""
        return len(queries) > 0 and k <= self.products.max_neighbours

    def query(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Distances (Q, k) and indices (Q, k) of the nearest rows, and which queries (Q,) bool are
        unresolved.

        Unresolved are queries that hold NaN or infinity, or are too far away for float32; their rows mean
        nothing.
        """
        with _without_gradients(self.bank.device.type):
            parts = [self._answer(part, k) for part in queries.split(QUERIES)]
        distances, index, unresolved = (torch.cat(values) for values in zip(*parts, strict=True))
        return distances, index, unresolved

    def _answer(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        if self.tree is None or k > 1 or queries.dtype != torch.float32:
            return self.products.query(queries, k)
        *nearest, unresolved = self.tree.query(queries.contiguous())
        distances, index = (values[:, None] for values in nearest)
        if bool(unresolved.any()):
            left = unresolved.nonzero()[:, 0]
            distances[left], index[left], unresolved[left] = self.products.query(queries[left], 1)
        return distances, index, unresolved

    def _build_tree(self) -> Tree | None:
        """The tree, for large float32 banks on the CPU that have directions in which their rows differ."""
        bank = self.bank
        if bank.device.type != "cpu" or bank.dtype != torch.float32 or len(bank) < TREE_ROWS:
            return None
        if self.frame.scale != 1.0 or not self.frame.largest < MAX_NORM**2:
            return None
        from kizu.accel.tree import DIRECTIONS, Tree  # brings numba: a second

        directions = leading_directions(bank, self.frame, min(DIRECTIONS, bank.shape[1]))
        tree = Tree(bank.contiguous(), self.frame.mean, directions)
        *_, unresolved = tree.query(self._points_between(), max_overflows=1)
        return tree if 2 * int(unresolved.sum()) <= len(unresolved) else None

    def _points_between(self) -> Tensor:
        """Some points half way between a row and the row nearest to it: what a query may be like."""
        rows = sample(self.bank)
        some = rows[:: -(-len(rows) // SAMPLE)]
        nearest = torch.cdist(some, rows).topk(2, largest=False).indices[:, 1]
        return (some + rows[nearest]) / 2


@contextlib.contextmanager
def _without_gradients(device: str) -> Iterator[None]:
    """No gradients, and the precision that was given; costs nothing where it is so already."""
    if not torch.is_grad_enabled() and not torch.is_autocast_enabled(device):
        yield
    else:
        with torch.no_grad(), torch.autocast(device, enabled=False):
            yield
