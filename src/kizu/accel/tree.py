"""A bank in leaves of 64 rows that lie together: boxes, coordinates that bound distances from below, codes
close to the rows.

The bank is cut at medians along its leading principal directions until 64 rows are left. For orthonormal
directions V and a shift m the map x -> (V^T (x - m), |x - m - V V^T (x - m)|) brings no two points farther
apart, so distances there are lower bounds: in 15 directions, and in 30. Its last number, the norm of what the
directions leave, is called the rest. A row's code is its offset from its leaf's centre in whole steps, 127 to
each side; by the triangle inequality the row is as far as its code, give or take the row's distance from its
code. All that rounding may add is allowed for:

coordinates of a query: K of them are off by at most e = (T + P + 6) u sqrt(K) (|x| + |m|), as sums of P
float32 products of T terms each, in any order.

rest of a query: r^2 = |x|^2 - |c|^2 inherits an error h = 2.1 |x| e from its coordinates c, so r is off by at
most min(h / r, sqrt(h)); where that is too much for the distance in question, r does not count.

coordinates of the bank: computed in float64 and rounded once.

distance to a code: off by u (2 |x| + 4 max |b|) for the offsets of the query and the code from the mean, and
by (D + 16) u of itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kizu.accel.compiled import CALL, MAX_OVERFLOWS, TERMS, scratch_size, search
from kizu.accel.frame import CHUNK as BANK_CHUNK
from kizu.accel.frame import UNIT32
from kizu.accel.products import MAX_NORM
from kizu.accel.vectors import BOX, CHUNK, LANES, ROWS, STEP, WIDTH
from kizu.engine import max_workers, omp_parallel, thread_map

DIRECTIONS = 2 * STEP
FAR = 1e15
"""Coordinate of rows that fill up a leaf, and of boxes that fill up a vector."""
MAX_LEAVES = 256
"""Leaves that a query may look into; beyond it the products of all rows are cheaper."""
STEPS = 127
"""Steps of a code, to each side."""
LINE = 64
"""Bytes of a cache line: tables begin at a multiple of it."""


class Tree:
    """The tree of a float32 bank (N, D) on the CPU.

    mean (D,): where distances are measured from. basis (D, K), K at most 30: orthonormal directions, float64,
    the leading ones first.
    """

    def __init__(self, bank: Tensor, mean: Tensor, basis: Tensor) -> None:
        size, width = basis.shape
        wide = torch.zeros(size, DIRECTIONS, dtype=torch.float64)
        wide[:, :width] = basis
        centre = mean.double()
        parts = [_coordinates(rows.double() - centre, wide) for rows in bank.split(BANK_CHUNK)]
        one, two, norms = (torch.cat(values).float().numpy() for values in zip(*parts, strict=True))
        leaves = _leaves(one[:, :BOX])
        numbers = np.zeros(len(leaves) * ROWS, np.int64)
        first, second = (_allocate(np.float32, FAR, len(leaves), STEP + 1, ROWS) for _ in range(2))
        for leaf, rows in enumerate(leaves):
            first[leaf, :, : len(rows)], second[leaf, :, : len(rows)] = one[rows].T, two[rows].T
            numbers[leaf * ROWS : leaf * ROWS + len(rows)] = rows
        low, high = (_allocate(np.float32, FAR, BOX, _round_up(len(leaves), LANES)) for _ in range(2))
        for table, edge in ((low, np.min), (high, np.max)):
            table[:, : len(leaves)] = np.stack([edge(one[rows, :BOX], axis=0) for rows in leaves], axis=1)
        self._tables = (low, high, first, second, numbers, bank.numpy())
        self._codes = _codes(bank, centre, leaves)
        self._basis = _allocate(np.float32, 0, size + 1, WIDTH)
        self._basis[:size, :DIRECTIONS] = wide.float().numpy()
        self._basis[size, :DIRECTIONS] = -(centre @ wide).float().numpy()
        self._mean = mean.numpy()
        coordinate_error = (min(size, TERMS) + -(-size // TERMS) + 6) * UNIT32
        self._allowances = (coordinate_error, float(centre.norm()), 8 * UNIT32 * float(norms.max()))
        self._call = self._constant_arguments()
        self._free_scratch: list[NDArray[np.uint8]] = []

    def query(self, queries: Tensor, max_overflows: int = MAX_OVERFLOWS) -> tuple[Tensor, Tensor, Tensor]:
        """The nearest row of each query (Q, D) float32, contiguous.

        Returns distances (Q,), indices (Q,), and bool (Q,): those left unresolved. max_overflows: at most
        MAX_OVERFLOWS; the smaller, the sooner a query is left.
        """
        count = len(queries)
        distance, index = torch.zeros(count), torch.zeros(count, dtype=torch.int64)
        unresolved = torch.zeros(count, dtype=torch.bool)
        call, scratch = self._call.copy(), self._allocate_scratch(max_workers())
        call["queries"], call["max_overflows"], call["scratch"] = count, max_overflows, scratch.ctypes.data
        call["query"], call["distance"] = queries.data_ptr(), distance.data_ptr()
        call["index"], call["unresolved"] = index.data_ptr(), unresolved.data_ptr()
        omp_parallel(search().address, call.ctypes.data)
        self._free_scratch.append(scratch)
        return distance, index, unresolved

    def _constant_arguments(self) -> NDArray[Any]:
        """The arguments that are the same for all queries."""
        call = np.zeros(1, CALL)
        boxes, code_size, size = self._tables[0].shape[1], self._codes[0].shape[1], len(self._mean)
        call["size"], call["leaves"], call["boxes"] = size, len(self._tables[2]), boxes
        call["code_size"], call["scratch_bytes"] = code_size, scratch_size(boxes, code_size)
        call["max_leaves"], call["max_norm"] = MAX_LEAVES, MAX_NORM
        call["coordinate_error"], call["mean_norm"], call["bank_error"] = self._allowances
        call["estimate_error"] = (size + 16) * UNIT32
        names = ("low", "high", "first", "second", "number", "bank", "values", "centres", "scales", "errors")
        for name, table in zip(names, (*self._tables, *self._codes), strict=True):
            call[name] = table.ctypes.data
        call["mean"], call["basis"] = self._mean.ctypes.data, self._basis.ctypes.data
        call["shift"] = self._basis[-1:].ctypes.data
        return call

    def _allocate_scratch(self, threads: int) -> NDArray[np.uint8]:
        """Scratch memory for so many threads that no other search uses now."""
        size = threads * int(self._call["scratch_bytes"][0])
        try:
            scratch = self._free_scratch.pop()
        except IndexError:
            return _allocate(np.uint8, 0, size)
        return scratch if len(scratch) >= size else _allocate(np.uint8, 0, size)


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _allocate(kind: Any, value: float, *shape: int) -> NDArray[Any]:
    """An array full of a value that begins at the beginning of a cache line."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    memory = np.empty(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    array = memory[start : start + size].view(kind).reshape(shape)
    array.fill(value)
    return array


def _coordinates(rows: Tensor, basis: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates and rests of both steps, (R, 16) each, and norms (R,) of shifted rows (R, D), float64."""
    values, squared = rows @ basis, rows.square().sum(1)
    one, two = (
        torch.cat([part, (squared - before.square().sum(1)).clamp_min(0).sqrt()[:, None]], 1)
        for part, before in ((values[:, :STEP], values[:, :STEP]), (values[:, STEP:], values))
    )
    return one, two, squared.sqrt()


def _codes(bank: Tensor, mean: Tensor, leaves: list[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
    """Codes of the rows (n, D) in the leaves' order, padded to whole leaves and chunks.

    Returns values (n, D up to a multiple of 64) int8, centres of the leaves about the mean, the step of each
    row's code, and how far at most each row is from its code; the last three float32.
    """
    size, count = bank.shape[1], len(leaves) * ROWS
    values = _allocate(np.int8, 0, count, _round_up(size, CHUNK))
    centres = _allocate(np.float32, 0.0, len(leaves), _round_up(size, CHUNK))
    scales, errors = np.zeros(count, np.float32), np.zeros(count, np.float32)

    def encode(leaf: int) -> None:
        rows = leaves[leaf]
        offsets = bank[torch.from_numpy(rows)].double() - mean
        centre = offsets.mean(0).float()
        offsets -= centre
        scale = (offsets.abs().amax(1) / STEPS).float().double()
        code = (offsets / scale.clamp_min(1e-300)[:, None]).round_()
        off = (offsets - code * scale[:, None]).norm(dim=1).numpy() * (1 + 1e-6)
        part = slice(leaf * ROWS, leaf * ROWS + len(rows))
        values[part, :size], centres[leaf, :size], scales[part] = code.numpy(), centre.numpy(), scale.numpy()
        errors[part] = np.nextafter(off.astype(np.float32), np.float32(np.inf))

    thread_map(encode, range(len(leaves)))
    return values, centres, scales, errors


def _leaves(rows: NDArray[Any]) -> list[NDArray[Any]]:
    """The numbers of rows (N, BOX), 64 a leaf: cut at the median of the widest direction, the left part in
    whole leaves."""
    leaves: list[NDArray[Any]] = []
    parts = [np.arange(len(rows))]
    while parts:
        part = parts.pop()
        if len(part) <= ROWS:
            leaves.append(part)
            continue
        values = rows[part]
        widest = values[:, int(values.var(axis=0).argmax())]
        half = (-(-len(part) // ROWS) // 2) * ROWS
        order = np.argpartition(widest, half)
        parts += [part[order[half:]], part[order[:half]]]
    return leaves
