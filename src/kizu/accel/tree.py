"""A bank in leaves of 64 rows that lie together: boxes, coordinates that bound distances from below, codes
close to the rows.

The bank is cut at medians along its leading principal directions until 64 rows are left. For orthonormal
directions V and a shift m the map x -> (V^T (x - m), |x - m - V V^T (x - m)|) brings no two points farther
apart, so distances there are lower bounds: in 15 directions, and in 30. A row's code is its offset from its
leaf's centre in whole steps, 127 to each side; by the triangle inequality the row is as far as its code, give
or take the row's distance from it. All that rounding may add is allowed for:

    coordinates of a query   (T + P + 6) u sqrt(K) (|x| + |m|) for K of them: P float32 products of T terms, in any order, added up;
    what they leave          r^2 = |x|^2 - |c|^2 inherits an error h = 2.1 |x| e from coordinates off by e, so r is off by at most
                             min(h / r, sqrt(h)); where that is too much for the distance in question, r does
                             not count;
    coordinates of the bank  are computed in float64 and rounded once;
    distance to a code       u (2 |x| + 4 max |b|) for the offsets of the query and the code, about the mean, and (D + 16) u of itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kizu.accel.compiled import CALL, OFTEN, TERMS, room_size, search
from kizu.accel.vectors import BOX, LANES, ROWS, STEP, WIDTH
from kizu.accel.vectors import CHUNK as CODE_CHUNK
from kizu.engine import max_workers, omp_parallel
from kizu.neighbours._filter import CHUNK, UNIT32, VAST

DIRECTIONS = 2 * STEP
FAR = 1e15
"""Coordinate of rows that fill up a leaf, and of boxes that fill up a vector."""
LEAVES = 256
"""Leaves that a query may look into; beyond it the products of all rows are cheaper."""
STEPS = 127
"""Of a code, to each side."""
LINE = 64
"""Bytes that the processor fetches at once: tables begin at a multiple of it."""


class Tree:
    """The tree of a float32 bank (N, D) on the CPU. mean (D,): where distances are measured from; basis (D,
    K), K at most 30: orthonormal directions, float64, the leading ones first."""

    def __init__(self, bank: Tensor, mean: Tensor, basis: Tensor) -> None:
        size, width = basis.shape
        wide = torch.zeros(size, DIRECTIONS, dtype=torch.float64)
        wide[:, :width] = basis
        centre = mean.double()
        parts = [_places(rows.double() - centre, wide) for rows in bank.split(CHUNK)]
        one, two, norms = (torch.cat(values).float().numpy() for values in zip(*parts, strict=True))
        leaves = _leaves(one[:, :BOX])
        numbers = np.zeros(len(leaves) * ROWS, np.int64)
        first, second = (_table(np.float32, FAR, len(leaves), STEP + 1, ROWS) for _ in range(2))
        for leaf, rows in enumerate(leaves):
            first[leaf, :, : len(rows)], second[leaf, :, : len(rows)] = one[rows].T, two[rows].T
            numbers[leaf * ROWS : leaf * ROWS + len(rows)] = rows
        low, high = (_table(np.float32, FAR, BOX, _up(len(leaves), LANES)) for _ in range(2))
        for table, edge in ((low, np.min), (high, np.max)):
            table[:, : len(leaves)] = np.stack([edge(one[rows, :BOX], axis=0) for rows in leaves], axis=1)
        self._tables = (low, high, first, second, numbers, bank.numpy())
        self._codes = _codes(bank, centre, leaves)
        turned = np.zeros((size + 1, WIDTH), np.float32)
        turned[:size, :DIRECTIONS], turned[size, :DIRECTIONS] = (
            wide.float().numpy(),
            -(centre @ wide).float().numpy(),
        )
        self._mean, self._basis = mean.numpy(), _aligned(turned)
        terms = (min(size, TERMS) + -(-size // TERMS) + 6) * UNIT32
        self._allowances = (terms, float(centre.norm()), 8 * UNIT32 * float(norms.max()))
        self._call = self._told()
        self._rooms: list[NDArray[np.uint8]] = []

    def query(self, queries: Tensor, often: int = OFTEN) -> tuple[Tensor, Tensor, Tensor]:
        """The nearest row of each query (Q, D) float32, contiguous: distances (Q,), indices (Q,), and bool
        (Q,): those left unanswered.

        often: at most OFTEN; the smaller, the sooner a query is left.
        """
        made = (
            torch.zeros(len(queries)),
            torch.zeros(len(queries), dtype=torch.int64),
            torch.zeros(len(queries), dtype=torch.bool),
        )
        call, room = self._call.copy(), self._room(max_workers())
        call["queries"], call["often"], call["rooms"] = len(queries), often, room.ctypes.data
        for name, values in zip(("query", "distance", "index", "busy"), (queries, *made), strict=True):
            call[name] = values.data_ptr()
        omp_parallel(search().address, call.ctypes.data)
        self._rooms.append(room)
        return made

    def _told(self) -> NDArray[Any]:
        """What is the same for all queries."""
        call = np.zeros(1, CALL)
        values, boxes = self._codes[0], self._tables[0].shape[1]
        size, wide, leaves = len(self._mean), values.shape[1], len(self._tables[2])
        for name, number in {
            "size": size,
            "leaves": leaves,
            "boxes": boxes,
            "wide": wide,
            "most": LEAVES,
        }.items():
            call[name] = number
        call["room"], call["relative"], call["vast"] = room_size(boxes, wide), (size + 16) * UNIT32, VAST
        call["terms"], call["bank_norm"], call["lost"] = self._allowances
        places = (
            "low",
            "high",
            "first",
            "second",
            "number",
            "bank",
            "values",
            "centres",
            "scales",
            "errors",
            "mean",
            "basis",
            "shift",
        )
        for name, table in zip(
            places, (*self._tables, *self._codes, self._mean, self._basis, self._basis[-1:]), strict=True
        ):
            call[name] = table.ctypes.data
        return call

    def _room(self, threads: int) -> NDArray[np.uint8]:
        """Scratch for so many threads that no other search uses now."""
        size = threads * int(self._call["room"][0])
        try:
            room = self._rooms.pop()
        except IndexError:
            return _table(np.uint8, 0, size)
        return room if len(room) >= size else _table(np.uint8, 0, size)


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _table(kind: Any, value: float, *shape: int) -> NDArray[Any]:
    """An array full of a value that begins at the beginning of a line."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    room = np.empty(size + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    made = room[start : start + size].view(kind).reshape(shape)
    made.fill(value)
    return made


def _aligned(values: NDArray[Any]) -> NDArray[Any]:
    """The same from the beginning of a line on."""
    made = _table(values.dtype, 0, *values.shape)
    made[...] = values
    return made


def _places(rows: Tensor, basis: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(R, 16), (R, 16) and norms (R,) of shifted rows (R, D), float64."""
    made, squared = rows @ basis, rows.square().sum(1)
    left = [
        (squared - made[:, :stop].square().sum(1)).clamp_min(0).sqrt()[:, None] for stop in (STEP, 2 * STEP)
    ]
    one, two = torch.cat([made[:, :STEP], left[0]], 1), torch.cat([made[:, STEP:], left[1]], 1)
    return one, two, squared.sqrt()


def _codes(bank: Tensor, mean: Tensor, leaves: list[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
    """Of the rows in the leaves' order: values (n, D up to a multiple of 64) int8, centres of the leaves
    about the mean, step of each row's code, and how far at most each row is from its code; float32."""
    size, count = bank.shape[1], len(leaves) * ROWS
    values, centres = (
        _table(np.int8, 0, count, _up(size, CODE_CHUNK)),
        _table(np.float32, 0.0, len(leaves), _up(size, CODE_CHUNK)),
    )
    scales, errors = np.zeros(count, np.float32), np.zeros(count, np.float32)
    for leaf, rows in enumerate(leaves):
        offsets = bank[torch.from_numpy(rows)].double() - mean
        centre = offsets.mean(0).float()
        offsets -= centre
        scale = (offsets.abs().amax(1) / STEPS).float().double()
        code = (offsets / scale.clamp_min(1e-300)[:, None]).round_()
        off = (offsets - code * scale[:, None]).norm(dim=1).numpy() * (1 + 1e-6)
        part = slice(leaf * ROWS, leaf * ROWS + len(rows))
        values[part, :size], centres[leaf, :size], scales[part] = code.numpy(), centre.numpy(), scale.numpy()
        errors[part] = np.nextafter(off.astype(np.float32), np.float32(np.inf))
    return values, centres, scales, errors


def _leaves(rows: NDArray[Any]) -> list[NDArray[Any]]:
    """Rows (N, BOX) -> their numbers, 64 a leaf: parted at the median of the widest direction, the left part
    in whole leaves."""
    made: list[NDArray[Any]] = []
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
