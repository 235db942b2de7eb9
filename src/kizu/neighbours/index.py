"""Exact nearest neighbours: cheap lower bounds, true distances for the few rows that the bounds leave.

On a CPU the bank stands in a tree (_tree), and machine code walks it for each query. What the tree leaves
open (queries that would have to look into too many leaves), more than one neighbour, and banks elsewhere go
through products with all rows:

For every query: (1) the row of least bound gives a distance that the nearest row cannot exceed; (2) every row
whose bound is above it is farther, and is not looked at; (3) the others are measured by direct difference.
The first level multiplies in the bank's leading principal directions only; queries that keep too many rows
there (those far from the bank: flaws) go on to the next level, at last to all directions."""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kizu.neighbours._checks import check_finite, check_rows, check_width, to_tensor
from kizu.neighbours._filter import VAST, Frame
from kizu.neighbours._level import GROUP, Level, comparable, extra_columns, product_type
from kizu.neighbours._settle import Found, direct, measure, settle

if TYPE_CHECKING:
    from kizu.accel.tree import Tree

QUERIES = 1024
MANY = 2048
"""Bank rows from which a tree is grown."""
BANK_ROWS = 16384
"""Bank rows whose bounds are kept at once."""
CROWD = 32
"""Groups, and rows, left of a query at which a level gives it up: looking at them would cost as much as the
next level."""
FEW = 4
"""Rows left per query up to which a level is tried first."""
WIDTHS = (32, 128)
"""Columns of the narrow levels."""
SAMPLE, SPREAD = 64, 4096
"""Rows that judge a level; rows that it is judged against and that the principal directions are taken from.
"""
EIGEN = 512
"""Up to this size all eigenvectors are computed."""
_KEPT = threading.local()


class NearestNeighbours:
    """A bank (N, D), prepared once, that answers nearest-neighbour queries exactly.

    bank: tensor or array of floats; kept as given, not copied. prefix: prepare products in the leading
    principal directions (worth it for more than a few hundred queries); False searches in all directions,
    with next to no preparation.

    `query` returns Euclidean distances. They are those of direct differences (relative error about 1e-7), and
    the neighbours are true nearest rows; of rows equally near (in float64) the smallest index is returned.

    Raises UsageError for an empty bank, ShapeError for a bank that is not (N, D), NotFinite for NaN or
    infinity in it."""

    def __init__(self, bank: Tensor, *, prefix: bool = True) -> None:
        bank = to_tensor("bank", bank)
        check_rows("bank", bank)
        check_finite("bank", bank)
        self.bank = bank
        with _plainly(bank.device.type):
            self._frame = Frame.of(bank)
            self._dtype = product_type(bank.device)
            self._levels: dict[int, Level] = {}
            self._prefix = prefix
            self._tree = self._grow() if prefix else None

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> NearestNeighbours:
        """The index whose `state()` this is; preparing it anew gives the same answers."""
        return cls(state["bank"])

    def state(self) -> dict[str, Tensor]:
        """All that must be saved: {"bank": (N, D)}."""
        return {"bank": self.bank}

    def query(self, queries: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """The k nearest rows of each query: distances (Q, k) Euclidean, ascending, and int64 indices (Q, k).

        queries: (Q, D) tensor or array. Raises ShapeError when D differs, UsageError when k is not in 1..N,
        NotFinite for NaN or infinity in the queries."""
        queries = to_tensor("queries", queries).to(self.bank.device)
        check_width(queries, self.bank, k)
        with _plainly(self.bank.device.type):
            parts = [
                self._answer(part, k, number * QUERIES) for number, part in enumerate(queries.split(QUERIES))
            ]
        distances, index = (torch.cat(values) for values in zip(*parts, strict=True))
        return distances, index

    def _answer(self, queries: Tensor, k: int, before: int) -> tuple[Tensor, Tensor]:
        if not len(queries):
            empty = self.bank.new_empty((0, k))
            return empty.to(torch.promote_types(empty.dtype, torch.float32)), empty.to(torch.int64)
        if self._tree is None or k > 1 or queries.dtype != torch.float32:
            return self._multiply(queries, k, before)
        *found, busy = self._tree.query(queries.contiguous())
        distance, index = (values[:, None] for values in found)
        if bool(busy.any()):
            check_finite("queries", queries, before)
            distance[busy], index[busy] = self._multiply(queries[busy], 1, before)
        return distance, index

    def _multiply(self, queries: Tensor, k: int, before: int) -> tuple[Tensor, Tensor]:
        """Distances (Q, k) and indices (Q, k) by products with all rows: for accelerators, float64, k above 1
        and what is far."""
        rows = self._frame.shift(queries)
        norms = rows.norm(dim=1)
        far = float(norms.amax())
        if not math.isfinite(far):
            check_finite("queries", queries, before)
        if k * GROUP > min(len(self.bank), BANK_ROWS) or not far < VAST:
            return measure(queries, self.bank, k)
        names = torch.arange(len(queries), device=queries.device)
        found: list[Found] = []
        bases = self._bases
        for number in range(self._choice, len(bases) + 1):
            last = number == len(bases)
            whole = len(names) == len(queries)
            asked = (queries, rows, norms) if whole else (queries[names], rows[names], norms[names])
            parts, busy = self._search(self._level(number), *asked, k, None if last else CROWD * k)
            found += parts if whole else [Found(names[part.query], part.row, part.squared) for part in parts]
            names = names[busy]
            if not len(names):
                break
        return settle(found, queries, self.bank, k, self._frame.scale)

    def _search(
        self, level: Level, queries: Tensor, rows: Tensor, norms: Tensor, k: int, crowd: int | None
    ) -> tuple[list[Found], Tensor]:
        """Rows that may be nearest, with their distances; and which queries (Q,) bool are left out, for more
        than `crowd` rows remain.

        queries (Q, D) as they came; rows (Q, D) and norms (Q,): they and their norms in the frame.
        """
        side, lost, error = level.queries(rows, norms)
        reach = torch.full((len(rows),), torch.inf, device=rows.device)
        busy = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        found: list[Found] = []
        for start in range(0, len(level.columns), BANK_ROWS):
            bounds, least = _bounds(level, side, start, min(start + BANK_ROWS, len(level.columns)))
            first = _leaders(bounds, least, min(k, len(least)))
            leaders = self._measure_leaders(queries, first, start)
            if first.shape[1] == k:
                reach = torch.minimum(reach, leaders.squared.view(-1, k).amax(1).sqrt().float())
            query, row = _below(bounds, least, level.limits(reach, lost, error), first, busy, crowd)
            found += [
                leaders,
                Found(query, row + start, direct(queries, self.bank, query, row + start, self._frame.scale)),
            ]
        if bool(busy.any()):
            kept = [~busy[part.query] for part in found]
            found = [
                Found(*(values[keep] for values in part)) for part, keep in zip(found, kept, strict=True)
            ]
        return found, busy

    def _measure_leaders(self, queries: Tensor, first: Tensor, start: int) -> Found:
        """Measured pairs of each query with its rows `first` (Q, k)."""
        count, k = first.shape
        query, row = torch.arange(count, device=first.device), first.reshape(-1) + start
        if k == 1:
            return Found(query, row, direct(queries, self.bank, None, row, self._frame.scale))
        query = query.repeat_interleave(k)
        return Found(query, row, direct(queries, self.bank, query, row, self._frame.scale))

    def _level(self, number: int) -> Level:
        if number not in self._levels:
            basis = self._bases[number] if number < len(self._bases) else None
            self._levels[number] = Level.of(self._frame.shift(self.bank), basis, self._dtype)
        return self._levels[number]

    def _grow(self) -> Tree | None:
        """The tree, for banks on the CPU that are large enough for it to pay and have directions by which it
        can tell rows apart."""
        bank, far = self.bank, self._frame.largest
        if (
            bank.device.type != "cpu"
            or bank.dtype != torch.float32
            or len(bank) < MANY
            or self._frame.scale != 1.0
            or not far < VAST**2
        ):
            return None
        from kizu.accel.tree import DIRECTIONS, Tree

        tree = Tree(bank.contiguous(), self._frame.mean, self._directions(min(DIRECTIONS, bank.shape[1])))
        *_, left_open = tree.query(self._between(), often=1)
        return tree if 2 * int(left_open.sum()) <= len(left_open) else None

    def _between(self) -> Tensor:
        """Some points half way between a row and the row nearest to it: what a query may be like."""
        rows = self.bank[:: -(-len(self.bank) // SPREAD)]
        some = rows[:: -(-len(rows) // SAMPLE)]
        nearest = torch.cdist(some, rows).topk(2, largest=False).indices[:, 1]
        return (some + rows[nearest]) / 2

    def _directions(self, width: int) -> Tensor:
        """Orthonormal (D, width), float64, that spans about the leading principal directions."""
        return _leading(self._frame.shift(self.bank[:: -(-len(self.bank) // SPREAD)]), width)

    @functools.cached_property
    def _bases(self) -> list[Tensor]:
        """Orthonormal leading directions (D, K) for every narrow level that is much narrower than D."""
        widths = [width for width in WIDTHS if 2 * width <= self.bank.shape[1]] if self._prefix else []
        if not widths:
            return []
        basis = self._directions(max(widths)).float()
        return [basis[:, : width - extra_columns(self._dtype)].contiguous() for width in widths]

    @functools.cached_property
    def _choice(self) -> int:
        """The first level that leaves few rows, judged on rows of the bank themselves against all others."""
        if not self._bases:
            return 0
        step = -(-len(self.bank) // SPREAD)
        rows = self._frame.shift(self.bank[::step])
        tries = rows[:: -(-len(rows) // SAMPLE)]
        nearest = torch.cdist(tries, rows).topk(min(2, len(rows)), largest=False).values[:, -1:]
        for number, basis in enumerate(self._bases):
            within = float((torch.cdist(tries @ basis, rows @ basis) <= nearest).sum()) / len(tries)
            if 1 + (within - 2) * step <= FEW:  # two of them are the row itself and its nearest
                return number
        return len(self._bases)


@contextlib.contextmanager
def _plainly(device: str) -> Iterator[None]:
    """Without gradients and in the precision that was given; for nothing where it is so already."""
    if not torch.is_grad_enabled() and not torch.is_autocast_enabled(device):
        yield
    else:
        with torch.no_grad(), torch.autocast(device, enabled=False):
            yield


def _leading(rows: Tensor, width: int) -> Tensor:
    """Orthonormal (D, width) that spans about the leading principal directions of rows (M, D): block power
    iteration, no chance in it.

    Any orthonormal basis gives valid bounds; a better one gives closer bounds.
    """
    covariance = (rows.T @ rows).double()
    values, vectors = torch.linalg.eigh(covariance) if rows.shape[1] <= EIGEN else _power(covariance, width)
    order = values.argsort(descending=True)[:width]
    return torch.linalg.qr(vectors[:, order]).Q


def _power(covariance: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Leading eigenpairs, about, of (D, D): three block iterations from its columns of largest diagonal, then
    Rayleigh-Ritz."""
    start = covariance[:, covariance.diagonal().argsort(descending=True)[: 2 * width]]
    block = torch.linalg.qr(start).Q
    for _ in range(3):
        block = torch.linalg.qr(covariance @ block).Q
    values, small = torch.linalg.eigh(block.T @ covariance @ block)
    return values, block @ small


def _scratch(side: Tensor, rows: int) -> Tensor:
    """Room for bounds (rows, Q), kept by each thread: fresh memory of this size costs more than the product
    that fills it."""
    if side.device.type != "cpu":
        return side.new_empty(rows, side.shape[1])
    size = rows * side.shape[1]
    kept: Tensor | None = getattr(_KEPT, str(side.dtype), None)
    if kept is None or kept.numel() < size:
        with torch.inference_mode(
            False
        ):  # a buffer made under inference mode could not be written to outside of it
            kept = torch.empty(size, dtype=side.dtype)
        setattr(_KEPT, str(side.dtype), kept)
    return kept[:size].view(rows, side.shape[1])


def _bounds(level: Level, side: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Bounds (groups, GROUP, Q) of bank rows start to stop, and the least of each group (groups, Q)."""
    bounds = _scratch(side, stop - start)
    torch.mm(level.columns[start:stop], side, out=bounds)
    groups = comparable(bounds).view(-1, GROUP, side.shape[1])
    return groups, groups.amin(1)


def _leaders(bounds: Tensor, least: Tensor, k: int) -> Tensor:
    """The row of least bound in each of the k groups of least bound: (Q, k)."""
    groups = least.argmin(0)[None] if k == 1 else least.topk(k, dim=0, largest=False).indices
    query = torch.arange(least.shape[1], device=least.device)
    inside = bounds[groups, :, query].argmin(-1)
    return (groups * GROUP + inside).T.contiguous()


def _below(
    bounds: Tensor, least: Tensor, limits: Tensor, first: Tensor, busy: Tensor, crowd: int | None
) -> tuple[Tensor, Tensor]:
    """Pairs (query, row) whose bound is within the query's limit, without the rows `first` (Q, k).

    Queries with more than `crowd` groups or rows are marked in `busy` (Q,), and pairs of busy queries are
    left out."""
    group, query = (least <= limits).nonzero(as_tuple=True)
    group, query = _calm(group, query, busy, crowd)
    pair, inside = (bounds[group, :, query] <= limits[query][:, None]).nonzero(as_tuple=True)
    query, row = query[pair], group[pair] * GROUP + inside
    fresh = (first[query] != row[:, None]).all(1)
    row, query = _calm(row[fresh], query[fresh], busy, crowd)
    return query, row


def _calm(item: Tensor, query: Tensor, busy: Tensor, crowd: int | None) -> tuple[Tensor, Tensor]:
    """The (item, query) pairs of queries that have at most `crowd`; the others are marked in `busy`."""
    if crowd is None:
        return item, query
    busy |= torch.bincount(query, minlength=len(busy)) > crowd
    if not bool(busy.any()):
        return item, query
    keep = ~busy[query]
    return item[keep], query[keep]
