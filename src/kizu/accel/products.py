"""Exact nearest neighbours by products with all rows: cheap lower bounds, true distances for the few rows
left.

For every query: (1) the row of least bound gives a distance that the nearest row cannot exceed; (2) every row
whose bound is above it is farther, and is not measured; (3) the others are measured by direct difference. The
first level multiplies in the bank's leading principal directions only; queries that keep too many rows there
(those far from the bank: flaws) go on to the next level, at last to all directions. `kizu.accel.levels` has
the bounds.
"""

from __future__ import annotations

import functools
import threading

import torch
from torch import Tensor

from kizu.accel.directions import SAMPLE, SPREAD, leading_directions, sample
from kizu.accel.frame import Frame
from kizu.accel.levels import GROUP, Level, comparable, extra_columns, product_type
from kizu.accel.pairs import Pairs, direct, nearest_pairs

BANK_ROWS = 16384
"""Bank rows whose bounds are kept at once."""
MAX_CANDIDATES = 32
"""Groups, and rows, left of a query at which a level gives it up: measuring them would cost as much as the
next level."""
FEW = 4
"""Rows left per query up to which a level is tried first."""
WIDTHS = (32, 128)
"""Columns of the narrow levels."""
MAX_NORM = 2.0**25
"""Norm, in the frame, from which a query is left unresolved."""
_SCRATCH = threading.local()


class ProductSearch:
    """The search in a bank (N, D) with its frame. narrow: prepare the narrow levels as well."""

    def __init__(self, bank: Tensor, frame: Frame, *, narrow: bool) -> None:
        self.bank, self.frame, self.narrow = bank, frame, narrow
        self.dtype = product_type(bank.device)
        self._levels: dict[int, Level] = {}

    @property
    def max_neighbours(self) -> int:
        """Neighbours that can be asked for: each comes from another group of rows."""
        return min(len(self.bank), BANK_ROWS) // GROUP

    def query(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Distances (Q, k) and indices (Q, k) of the nearest rows, and which queries (Q,) bool are
        unresolved.

        queries (Q, D); k at most `max_neighbours`. Unresolved: those too large for float32, or not finite.
        """
        rows = self.frame.shift(queries)
        norms = rows.norm(dim=1)
        unresolved = ~(norms < MAX_NORM)
        if not bool(unresolved.any()):
            return *self._resolve(queries, rows, norms, k), unresolved
        working = torch.promote_types(self.bank.dtype, torch.float32)
        distances = torch.zeros(len(queries), k, dtype=working, device=rows.device)
        index = torch.zeros(len(queries), k, dtype=torch.int64, device=rows.device)
        fine = (~unresolved).nonzero()[:, 0]
        if len(fine):
            distances[fine], index[fine] = self._resolve(queries[fine], rows[fine], norms[fine], k)
        return distances, index, unresolved

    def _resolve(self, queries: Tensor, rows: Tensor, norms: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Distances (Q, k) and indices (Q, k), level by level.

        rows (Q, D) and norms (Q,): the queries and their norms in the frame.
        """
        names = torch.arange(len(queries), device=queries.device)
        measured: list[Pairs] = []
        levels = len(self.bases) + 1
        for number in range(self.first_level, levels):
            every = len(names) == len(queries)
            asked = (queries, rows, norms) if every else (queries[names], rows[names], norms[names])
            most = None if number == levels - 1 else MAX_CANDIDATES * k
            parts, overfull = self.search_level(self.level(number), *asked, k, most)
            measured += (
                parts if every else [Pairs(names[part.query], part.row, part.squared) for part in parts]
            )
            names = names[overfull]
            if not len(names):
                break
        return nearest_pairs(measured, queries, self.bank, k, self.frame.scale)

    def search_level(
        self, level: Level, queries: Tensor, rows: Tensor, norms: Tensor, k: int, most: int | None
    ) -> tuple[list[Pairs], Tensor]:
        """Rows that may be nearest, measured, and which queries (Q,) bool keep more than `most` rows (left
        out).

        queries (Q, D) as they came; rows (Q, D) and norms (Q,): they and their norms in the frame.
        """
        scale = self.frame.scale
        side, rounding, error = level.query_side(rows, norms)
        reach = torch.full((len(rows),), torch.inf, device=rows.device)
        overfull = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        measured: list[Pairs] = []
        for start in range(0, len(level.columns), BANK_ROWS):
            bounds, least = group_bounds(level, side, start, min(start + BANK_ROWS, len(level.columns)))
            first = _leaders(bounds, least, min(k, len(least)))
            leaders = self._measure_leaders(queries, first, start)
            if first.shape[1] == k:
                reach = torch.minimum(reach, leaders.squared.view(-1, k).amax(1).sqrt().float())
            limits = level.limits(reach, rounding, error)
            query, row = _candidates(bounds, least, limits, first, overfull, most)
            measured.append(leaders)
            measured.append(Pairs(query, row + start, direct(queries, self.bank, query, row + start, scale)))
        if bool(overfull.any()):
            kept = [~overfull[part.query] for part in measured]
            measured = [
                Pairs(*(values[keep] for values in part)) for part, keep in zip(measured, kept, strict=True)
            ]
        return measured, overfull

    def _measure_leaders(self, queries: Tensor, first: Tensor, start: int) -> Pairs:
        """Measured pairs of each query with its rows `first` (Q, k) of the bank from `start` on."""
        count, k = first.shape
        query, row = torch.arange(count, device=first.device), first.reshape(-1) + start
        if k == 1:
            return Pairs(query, row, direct(queries, self.bank, None, row, self.frame.scale))
        query = query.repeat_interleave(k)
        return Pairs(query, row, direct(queries, self.bank, query, row, self.frame.scale))

    def level(self, number: int) -> Level:
        """The level of that number, built at its first use."""
        if number not in self._levels:
            basis = self.bases[number] if number < len(self.bases) else None
            self._levels[number] = Level.of(self.frame.shift(self.bank), basis, self.dtype)
        return self._levels[number]

    @functools.cached_property
    def bases(self) -> list[Tensor]:
        """Orthonormal leading directions (D, K) for every narrow level that is much narrower than D."""
        widths = [width for width in WIDTHS if 2 * width <= self.bank.shape[1]] if self.narrow else []
        if not widths:
            return []
        basis = leading_directions(self.bank, self.frame, max(widths)).float()
        return [basis[:, : width - extra_columns(self.dtype)].contiguous() for width in widths]

    @functools.cached_property
    def first_level(self) -> int:
        """The first level that leaves few rows, measured on rows of the bank against all others."""
        if not self.bases:
            return 0
        rows = self.frame.shift(sample(self.bank))
        step = -(-len(self.bank) // SPREAD)
        tries = rows[:: -(-len(rows) // SAMPLE)]
        nearest = torch.cdist(tries, rows).topk(min(2, len(rows)), largest=False).values[:, -1:]
        for number, basis in enumerate(self.bases):
            within = float((torch.cdist(tries @ basis, rows @ basis) <= nearest).sum()) / len(tries)
            if 1 + (within - 2) * step <= FEW:  # two of them are the row itself and its nearest
                return number
        return len(self.bases)


def group_bounds(level: Level, side: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Bounds (groups, GROUP, Q) of bank rows start to stop, and the least of each group (groups, Q)."""
    bounds = _allocate_bounds(side, stop - start)
    torch.mm(level.columns[start:stop], side, out=bounds)
    groups = comparable(bounds).view(-1, GROUP, side.shape[1])
    return groups, groups.amin(1)


def _allocate_bounds(side: Tensor, rows: int) -> Tensor:
    """Memory for bounds (rows, Q), kept by each thread: new memory costs more than the product itself."""
    if side.device.type != "cpu":
        return side.new_empty(rows, side.shape[1])
    size = rows * side.shape[1]
    kept: Tensor | None = getattr(_SCRATCH, str(side.dtype), None)
    if kept is None or kept.numel() < size:
        with torch.inference_mode(False):  # what is allocated under it can be written to under it only
            kept = torch.empty(size, dtype=side.dtype)
        setattr(_SCRATCH, str(side.dtype), kept)
    return kept[:size].view(rows, side.shape[1])


def _leaders(bounds: Tensor, least: Tensor, k: int) -> Tensor:
    """The row of least bound in each of the k groups of least bound: (Q, k)."""
    groups = least.argmin(0)[None] if k == 1 else least.topk(k, dim=0, largest=False).indices
    query = torch.arange(least.shape[1], device=least.device)
    inside = bounds[groups, :, query].argmin(-1)
    return (groups * GROUP + inside).T.contiguous()


def _candidates(
    bounds: Tensor, least: Tensor, limits: Tensor, first: Tensor, overfull: Tensor, most: int | None
) -> tuple[Tensor, Tensor]:
    """Pairs (query, row) whose bound is within the query's limit, without the rows `first` (Q, k).

    Queries with more than `most` groups or rows are marked in `overfull` (Q,), and their pairs left out.
    """
    group, query = (least <= limits).nonzero(as_tuple=True)
    group, query = _drop_overfull(group, query, overfull, most)
    pair, inside = (bounds[group, :, query] <= limits[query][:, None]).nonzero(as_tuple=True)
    query, row = query[pair], group[pair] * GROUP + inside
    fresh = (first[query] != row[:, None]).all(1)
    row, query = _drop_overfull(row[fresh], query[fresh], overfull, most)
    return query, row


def _drop_overfull(item: Tensor, query: Tensor, overfull: Tensor, most: int | None) -> tuple[Tensor, Tensor]:
    """The (item, query) pairs of queries that have at most `most`; the others are marked in `overfull`."""
    if most is None:
        return item, query
    overfull |= torch.bincount(query, minlength=len(overfull)) > most
    if not bool(overfull.any()):
        return item, query
    keep = ~overfull[query]
    return item[keep], query[keep]
