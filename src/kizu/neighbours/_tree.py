"""A bank in leaves of 64 rows that lie together, with boxes and coordinates that bound distances from below.

The bank is cut at medians along its leading principal directions until 64 rows are left. For orthonormal directions V and a shift m the
map x -> (V^T (x - m), |x - m - V V^T (x - m)|) brings no two points farther apart, so distances there are lower bounds: in 15 directions,
in 30, and (without the norm of what is left) in 94. All that rounding may add to a computed bound is allowed for:

    coordinates of a query   (T + P + 6) u sqrt(K) (|x| + |m|) for K of them: P float32 products of T terms, in any order, added up;
    what they leave          r^2 = |x|^2 - |c|^2 inherits an error h = 2.1 |x| e from coordinates off by e, so r is off by at most
                             min(h / r, sqrt(h)); where that is too much for the distance in question, r does not count;
    coordinates of the bank  are computed in float64 and rounded once.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kizu.devices import side_by_side
from kizu.neighbours._compiled import BOX, MORE, ROWS, STEP, search
from kizu.neighbours._filter import CHUNK, UNIT32, VAST, rounding_of_products

TERMS = 128
"""Terms of one product; longer ones round more."""
DIRECTIONS = 2 * STEP + MORE
FAR = 1e15
"""Coordinate of rows that fill up a leaf."""
TURN = 128
"""Queries that one thread answers in turn."""
LEAVES = 128
"""Leaves that a query may look into; beyond it the products of all rows are cheaper."""


class Tree:
    """The tree of a float32 bank (N, D) on the CPU. mean (D,): where distances are measured from; basis (D, K), K at most 94: orthonormal
    directions, float64, the leading ones first."""

    def __init__(self, bank: Tensor, mean: Tensor, basis: Tensor) -> None:
        size, width = basis.shape
        wide = torch.zeros(size, DIRECTIONS, dtype=torch.float64)
        wide[:, :width] = basis
        centre = mean.double()
        parts = [_places(rows.double() - centre, wide) for rows in bank.split(CHUNK)]
        one, two, more, norms = (torch.cat(values).float().numpy() for values in zip(*parts, strict=True))
        leaves = _leaves(one[:, :BOX])
        numbers = np.zeros(len(leaves) * ROWS, np.int64)
        first, second = (np.full((len(leaves), STEP + 1, ROWS), FAR, np.float32) for _ in range(2))
        beyond = np.full((len(numbers), MORE), FAR, np.float32)
        for leaf, rows in enumerate(leaves):
            begin, end = leaf * ROWS, leaf * ROWS + len(rows)
            first[leaf, :, : len(rows)], second[leaf, :, : len(rows)] = one[rows].T, two[rows].T
            numbers[begin:end], beyond[begin:end] = rows, more[rows]
        low, high = (np.stack([edge(one[rows, :BOX], axis=0) for rows in leaves], axis=1) for edge in (np.min, np.max))
        self._tables = (low, high, first, second, beyond, numbers, bank.numpy())
        self._basis, self._shift, self._mean = wide.float(), (centre @ wide).float(), mean[None].numpy()
        terms = (min(size, TERMS) + -(-size // TERMS) + 6) * UNIT32 + rounding_of_products(bank.device)
        self._allowances = (terms, float(centre.norm()), 4 * UNIT32 * float(norms.max()))

    def query(self, queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The nearest row of each query (Q, D) float32, finite: distances (Q,), indices (Q,), and bool (Q,): those left unanswered."""
        coordinates = self._coordinates(queries)
        distance = torch.zeros(len(queries))
        index = torch.zeros(len(queries), dtype=torch.int64)
        busy = torch.zeros(len(queries), dtype=torch.bool)
        given = [part.numpy() for part in (queries, coordinates, distance, index, busy)]

        def answer(part: slice) -> None:
            rows, places, *made = (values[part] for values in given)
            arguments = (rows, places, self._mean, self._allowances, self._tables, LEAVES, VAST, *made)
            try:
                search(*arguments)
            except OSError:  # compiled, but the disk had no room to keep it
                search(*arguments)

        side_by_side(answer, [slice(start, start + TURN) for start in range(0, len(queries), TURN)])
        return distance, index, busy

    def _coordinates(self, queries: Tensor) -> Tensor:
        """(Q, 94) float32 of queries (Q, D)."""
        made = -self._shift.expand(len(queries), -1)
        for start in range(0, queries.shape[1], TERMS):
            made += torch.mm(queries[:, start : start + TERMS], self._basis[start : start + TERMS])
        return made


def _places(rows: Tensor, basis: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(R, 16), (R, 16), (R, 64) and norms (R,) of shifted rows (R, D), float64."""
    made, squared = rows @ basis, rows.square().sum(1)
    left = [(squared - made[:, :stop].square().sum(1)).clamp_min(0).sqrt()[:, None] for stop in (STEP, 2 * STEP)]
    one, two = torch.cat([made[:, :STEP], left[0]], 1), torch.cat([made[:, STEP : 2 * STEP], left[1]], 1)
    return one, two, made[:, 2 * STEP :], squared.sqrt()


def _leaves(rows: np.ndarray) -> list[np.ndarray]:
    """Rows (N, BOX) -> their numbers, 64 a leaf: parted at the median of the widest direction, the left part in whole leaves."""
    made: list[np.ndarray] = []
    waiting = [np.arange(len(rows))]
    while waiting:
        part = waiting.pop()
        if len(part) <= ROWS:
            made.append(part)
            continue
        values = rows[part]
        widest = values[:, int(values.var(axis=0).argmax())]
        half = (-(-len(part) // ROWS) // 2) * ROWS
        order = np.argpartition(widest, half)
        waiting += [part[order[half:]], part[order[:half]]]
    return made
