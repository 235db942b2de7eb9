"""The search through a tree's leaves as machine code. What is searched, and why it is exact:
`kizu.accel.tree`; one query's walk: `kizu.accel.walk`.

Threads enter it without Python (no lock to wait for), fetch some queries at a time until none is left, rotate
them into the tree's directions, and search for one after the other.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np
from numba import cfunc, from_dtype, types
from numba.core import event
from numba.np.numpy_support import carray

from kizu.accel.vectors import LANES, ROWS, STEP, WIDTH, boxes16, fetch_add, pointer, rotate4
from kizu.accel.walk import MAX_CANDIDATES, OPTIONS, VECTOR, errors_of, inlined, nearest_of, walk

MAX_OVERFLOWS = 16
"""How often a query may have more than MAX_CANDIDATES candidates."""
TERMS = 512
"""Terms of one sum of products; longer ones round more."""
QUERIES = 28
"""Queries that a thread fetches at a time, a multiple of 4."""
TRIES = 16
"""Queries after which all that follow are left unresolved, if most of them were."""
COMPILING = (
    "Compiling the nearest-neighbour search to machine code, once after an installation: some seconds."
)
INSTRUCTIONS = "ae30c78d01e61a6d"
"""Digest of vectors.py and walk.py. Machine code kept on disk counts as stale when this file changes; a test
checks that the digest follows the two others."""
_NUMBERS = (
    "next_query", "next_thread", "queries", "size", "leaves", "boxes", "code_size", "max_leaves",
    "max_overflows", "scratch_bytes", "scratch",
)  # fmt: skip
_ADDRESSES = (
    "query", "distance", "index", "unresolved", "mean", "basis", "shift", "low", "high", "first", "second",
    "number", "bank",
)  # fmt: skip
_CODES = ("values", "centres", "scales", "errors")
_ERRORS = ("coordinate_error", "mean_norm", "bank_error", "estimate_error", "max_norm")
CALL = np.dtype(
    [(name, np.int64) for name in _NUMBERS + _ADDRESSES + _CODES] + [(name, np.float64) for name in _ERRORS],
    align=True,
)
"""The arguments of a search.

next_query: the first query that no thread has fetched (first of all fields). next_thread: threads that have
begun (the second). queries: how many. size: D. leaves: of the tree. boxes: leaves, filled up to whole
vectors. code_size: D, filled up to whole chunks. max_leaves: leaves that a query may look into.
max_overflows: how often it may have more than MAX_CANDIDATES candidates. scratch_bytes: memory for a thread,
from address `scratch` on. Then addresses of arrays: see kizu.accel.tree.Tree. coordinate_error, mean_norm,
bank_error: see kizu.accel.walk.errors_of. estimate_error: relative error of an estimate. max_norm: norm from
which a query is left unresolved.
"""
_FIXED_BYTES = (
    4 * (2 * (STEP + 1) + 2 * ROWS + QUERIES * WIDTH + MAX_CANDIDATES + ROWS)
    + 8 * (MAX_CANDIDATES + ROWS)
    + 16 * (MAX_OVERFLOWS + 3) * (MAX_CANDIDATES + ROWS)
)


def scratch_size(boxes: int, code_size: int) -> int:
    """Bytes of scratch memory that one thread needs, whole cache lines."""
    return _FIXED_BYTES + 4 * (boxes + 2 * code_size)


@inlined
def _array(address, shape, kind):  # type: ignore[no-untyped-def]
    return carray(pointer(address), shape, kind)


@inlined
def _rotate(queries, start, stop, basis_at, shift, out):  # type: ignore[no-untyped-def]
    """Coordinates of some queries (Q, D) into the first rows of `out` (QUERIES, 32), four at a time.

    They are shift (32,) + query x basis (D, 32)."""
    size, last, at = queries.shape[1], stop - 1, queries.ctypes.data
    for q in range(start, stop, 4):
        row = q - start
        for k in range(4):
            for d in range(WIDTH):
                out[row + k, d] = shift[d]
        out_at = out.ctypes.data + 4 * WIDTH * row
        for term in range(0, size, TERMS):
            count, here = min(TERMS, size - term), at + 4 * term
            one, two = here + 4 * size * q, here + 4 * size * min(q + 1, last)
            three, four = here + 4 * size * min(q + 2, last), here + 4 * size * min(q + 3, last)
            rotate4(one, two, three, four, basis_at + 4 * WIDTH * term, count, out_at)


@inlined
def _place_query(queries, q, mean, coordinates, row, at, offset):  # type: ignore[no-untyped-def]
    """A query's coordinates and rests of both steps into `at` (32,), its offset from the mean; its norm."""
    norm = 0.0
    for d in range(queries.shape[1]):
        offset[d] = queries[q, d] - mean[d]
        norm += np.float64(offset[d]) * np.float64(offset[d])
    rest = norm
    for step in range(2):
        for d in range(STEP):
            value = coordinates[row, step * STEP + d]
            at[step * (STEP + 1) + d] = value
            rest -= np.float64(value) * np.float64(value)
        at[step * (STEP + 1) + STEP] = np.sqrt(rest if rest > 0.0 else 0.0)
    return np.sqrt(norm)


@inlined
def _scratch(start, boxes, code_size):  # type: ignore[no-untyped-def]
    """Arrays of one thread, from an address on.

    A query's coordinates; bounds of a leaf (its sums stand before them); coordinates of the queries it has
    fetched; squared distances to the boxes; offsets from the mean and from a leaf's centre; then candidates
    with their bounds, and estimated rows with the least distance they may have."""
    some, many = MAX_CANDIDATES + ROWS, (MAX_OVERFLOWS + 3) * (MAX_CANDIDATES + ROWS)
    at = _array(start, 2 * (STEP + 1), np.float32)
    bounds = _array(start + 4 * (2 * (STEP + 1) + ROWS), ROWS, np.float32)
    coordinates_at = start + 4 * (2 * (STEP + 1) + 2 * ROWS)
    coordinates = _array(coordinates_at, (QUERIES, WIDTH), np.float32)
    within_at = coordinates_at + 4 * QUERIES * WIDTH
    within, rows = _array(within_at, some, np.float32), _array(within_at + 4 * some, some, np.int64)
    close_at = within_at + 12 * some
    close, least = _array(close_at, many, np.int64), _array(close_at + 8 * many, many, np.float64)
    distances_at = close_at + 16 * many
    distances = _array(distances_at, boxes, np.float32)
    offset_at = distances_at + 4 * boxes
    offset = _array(offset_at, code_size, np.float32)
    local = _array(offset_at + 4 * code_size, code_size, np.float32)
    return at, bounds, coordinates, distances, offset, local, (rows, within, close, least)


@inlined
def _inputs(call):  # type: ignore[no-untyped-def]
    """The arrays that a call reads."""
    size, code_size, rows = call.size, call.code_size, call.leaves * ROWS
    queries = _array(call.query, (call.queries, size), np.float32)
    bank = _array(call.bank, (rows, size), np.float32)
    mean = _array(call.mean, size, np.float32)
    shift = _array(call.shift, WIDTH, np.float32)
    numbers = _array(call.number, rows, np.int64)
    values = _array(call.values, (rows, code_size), np.int8)
    centres = _array(call.centres, (call.leaves, code_size), np.float32)
    scales, errors = _array(call.scales, rows, np.float32), _array(call.errors, rows, np.float32)
    return queries, bank, mean, shift, numbers, (values, centres, scales, errors, call.estimate_error)


@inlined
def _outputs(call):  # type: ignore[no-untyped-def]
    """The arrays that a call fills."""
    distance = _array(call.distance, call.queries, np.float32)
    index = _array(call.index, call.queries, np.int64)
    return distance, index, _array(call.unresolved, call.queries, np.bool_)


def _search(address):  # type: ignore[no-untyped-def]
    """What each thread does: queries (Q, D) until none is left.

    `distance` (Q,) and `index` (Q,) of the nearest row are filled, or `unresolved` (Q,) where too much would
    remain. The bounds are explained in docs/methods/neighbours.md."""
    calls = carray(address, 1)
    call, here = calls[0], calls.ctypes.data
    scratch = call.scratch + call.scratch_bytes * fetch_add(here + 8, 1)
    at, bounds, coordinates, boxes, offset, local, lists = _scratch(scratch, call.boxes, call.code_size)
    queries, bank, mean, shift, numbers, codes = _inputs(call)
    distance, index, unresolved = _outputs(call)
    bounds_at, at_at, boxes_at = bounds.ctypes.data, at.ctypes.data, boxes.ctypes.data
    addresses = (boxes_at, at_at, bounds_at - 4 * ROWS, bounds_at, call.first, call.second)
    seed, tried, given_up, start = np.int64(0), 0, 0, fetch_add(here, QUERIES)
    while start < call.queries:
        stop = min(start + QUERIES, call.queries)
        _rotate(queries, start, stop, call.basis, shift, coordinates)
        for q in range(start, stop):
            norm = _place_query(queries, q, mean, coordinates, q - start, at, offset)
            if not norm < call.max_norm or (tried >= TRIES and 2 * given_up > tried):  # or NaN
                unresolved[q] = True
                continue
            tried += 1
            for block in range(call.boxes // LANES):
                step = VECTOR * block
                boxes16(call.low + step, call.high + step, 4 * call.boxes, at_at, boxes_at + step)
            allowances = (call.coordinate_error, call.mean_norm, call.bank_error)
            errors = errors_of(norm, np.float64(at[2 * STEP + 1]), allowances)
            most = (call.max_leaves, call.max_overflows)
            state, unresolved[q] = walk(
                seed, call.leaves, boxes, errors, addresses, bounds, most, lists, offset, local, codes
            )
            best, seed, kept, _ = state
            if unresolved[q]:
                given_up += 1
                continue
            squared, index[q], seed = nearest_of(queries, q, numbers, bank, best, kept, lists[2], lists[3])
            distance[q] = np.sqrt(squared)
        start = fetch_add(here, QUERIES)


@functools.cache
def search() -> Any:
    """The search as machine code: its `address` is a C function that receives the address of a CALL.

    Kept on disk where that is possible; the logger of this module says when it is compiled.
    """
    signature = types.void(types.CPointer(from_dtype(CALL)))
    with event.install_listener("numba:run_pass", _Announcement()):
        try:
            return cfunc(signature, cache=True, **OPTIONS)(_search)
        except (RuntimeError, OSError):  # no folder that can be written to, or no space
            return cfunc(signature, **OPTIONS)(_search)


class _Announcement(event.Listener):
    """Says once that numba compiles, when its first step begins: there is none for code kept on disk."""

    said = False

    def on_start(self, event: Any) -> None:
        if not self.said:
            self.said = True
            logging.getLogger(__name__).info(COMPILING)

    def on_end(self, event: Any) -> None:
        pass
