"""The search through a tree's leaves as machine code. What is searched, and why it is exact: _tree; one
query's walk: _walk.

Threads enter it without Python (no lock to wait for), take some queries at a time until none is left, rotate
them into the tree's directions, and walk with one after the other."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import cfunc, from_dtype, types
from numba.np.numpy_support import carray

from kizu.accel.vectors import LANES, ROWS, STEP, WIDTH, boxes16, claim, pointer, rotate4
from kizu.accel.walk import CROWD, OPTIONS, VECTOR, errors_of, inlined, nearest_of, walk

OFTEN = 16
"""How often a query may have more than CROWD candidates."""
TERMS = 512
"""Terms of one sum of products; longer ones round more."""
TURN = 28
"""Queries that a thread takes at a time, a multiple of 4."""
TRIES = 16
"""Queries after which all that follow are left to the products, if most of them were."""
INSTRUCTIONS = "6ab3ac6328b44c4b"
"""Digest of _vectors.py and _walk.py. Kept machine code is taken for stale when this file changes; a test
sees to it that it does."""
_NUMBERS = ("turn", "thread", "queries", "size", "leaves", "boxes", "wide", "most", "often", "room", "rooms")
_PLACES = (
    "query",
    "distance",
    "index",
    "busy",
    "mean",
    "basis",
    "shift",
    "low",
    "high",
    "first",
    "second",
    "number",
    "bank",
)
_CODES = ("values", "centres", "scales", "errors")
_SHARES = ("terms", "bank_norm", "lost", "relative", "vast")
CALL = np.dtype(
    [(name, np.int64) for name in _NUMBERS + _PLACES + _CODES] + [(name, np.float64) for name in _SHARES],
    align=True,
)
"""What a search is told.

turn: the first query that no thread has taken; thread: threads that have begun; queries: how many; size: D;
boxes: leaves, filled up to whole vectors; wide: D, filled up to whole chunks; most: leaves that a query may
look into; often: how often it may have more than CROWD candidates; room: bytes of scratch for a thread, at
rooms. Addresses of arrays: see _tree.Tree. terms, bank_norm, lost: see _walk.errors_of; relative: error of an
estimate; vast: norm from which a query is left open. """
_FIXED = (
    4 * (2 * (STEP + 1) + 2 * ROWS + TURN * WIDTH + CROWD + ROWS)
    + 8 * (CROWD + ROWS)
    + 16 * (OFTEN + 3) * (CROWD + ROWS)
)


def room_size(boxes: int, wide: int) -> int:
    """Bytes of scratch that one thread needs, whole lines."""
    return _FIXED + 4 * (boxes + 2 * wide)


@inlined
def _array(address, shape, kind):  # type: ignore[no-untyped-def]
    return carray(pointer(address), shape, kind)


@inlined
def _rotate(queries, start, stop, basis_at, shift, made):  # type: ignore[no-untyped-def]
    """Coordinates of some queries (Q, D) into the first rows of `made` (TURN, 32): shift (32,) + query x
    basis (D, 32), by fours."""
    size, last, at = queries.shape[1], stop - 1, queries.ctypes.data
    for q in range(start, stop, 4):
        row = q - start
        for k in range(4):
            for d in range(WIDTH):
                made[row + k, d] = shift[d]
        for term in range(0, size, TERMS):
            count, here = min(TERMS, size - term), at + 4 * term
            one, two = here + 4 * size * q, here + 4 * size * min(q + 1, last)
            three, four = here + 4 * size * min(q + 2, last), here + 4 * size * min(q + 3, last)
            rotate4(
                one, two, three, four, basis_at + 4 * WIDTH * term, count, made.ctypes.data + 4 * WIDTH * row
            )


@inlined
def _place(queries, q, mean, coordinates, row, at, offset):  # type: ignore[no-untyped-def]
    """A query's first coordinates and what they leave of it, for both steps, into `at` (32,), its offset from
    the mean; its norm."""
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
def _scratch(start, boxes, wide):  # type: ignore[no-untyped-def]
    """Of one thread, from an address on: a query's coordinates, sums and bounds of a leaf, coordinates of the
    queries it has taken, squared distances to the boxes, offsets from the mean and from a leaf's centre; then
    candidates with their bounds, and estimated rows with the least distance they may have."""
    some, many = CROWD + ROWS, (OFTEN + 3) * (CROWD + ROWS)
    at = _array(start, 2 * (STEP + 1), np.float32)
    bounds = _array(start + 4 * (2 * (STEP + 1) + ROWS), ROWS, np.float32)
    made_at = start + 4 * (2 * (STEP + 1) + 2 * ROWS)
    made = _array(made_at, (TURN, WIDTH), np.float32)
    within_at = made_at + 4 * TURN * WIDTH
    within, rows = _array(within_at, some, np.float32), _array(within_at + 4 * some, some, np.int64)
    close_at = within_at + 12 * some
    close, least = _array(close_at, many, np.int64), _array(close_at + 8 * many, many, np.float64)
    near_at = close_at + 16 * many
    near = _array(near_at, boxes, np.float32)
    offset_at = near_at + 4 * boxes
    offset, local = _array(offset_at, wide, np.float32), _array(offset_at + 4 * wide, wide, np.float32)
    return at, bounds, made, near, offset, local, (rows, within, close, least)


@inlined
def _tables(call):  # type: ignore[no-untyped-def]
    """The arrays of a call."""
    count, size, wide, rows = call.queries, call.size, call.wide, call.leaves * ROWS
    queries, bank = _array(call.query, (count, size), np.float32), _array(call.bank, (rows, size), np.float32)
    mean, shift, numbers = (
        _array(call.mean, size, np.float32),
        _array(call.shift, WIDTH, np.float32),
        _array(call.number, rows, np.int64),
    )
    values, centres = (
        _array(call.values, (rows, wide), np.int8),
        _array(call.centres, (call.leaves, wide), np.float32),
    )
    scales, errors = _array(call.scales, rows, np.float32), _array(call.errors, rows, np.float32)
    distance, index, busy = (
        _array(call.distance, count, np.float32),
        _array(call.index, count, np.int64),
        _array(call.busy, count, np.bool_),
    )
    return (
        queries,
        bank,
        mean,
        shift,
        numbers,
        (values, centres, scales, errors, call.relative),
        distance,
        index,
        busy,
    )


def _search(address):  # type: ignore[no-untyped-def]
    """What a thread does: queries (Q, D) until none is left. `distance` (Q,) and `index` (Q,) of the nearest
    row are filled, or `busy` (Q,) where too much would remain. Source of the bounds:
    docs/methods/neighbours.md."""
    calls = carray(address, 1)
    call, here = calls[0], calls.ctypes.data
    room = call.rooms + call.room * claim(here + 8, 1)
    at, bounds, made, boxes, offset, local, lists = _scratch(room, call.boxes, call.wide)
    queries, bank, mean, shift, numbers, codes, distance, index, busy = _tables(call)
    addresses = (
        boxes.ctypes.data,
        at.ctypes.data,
        bounds.ctypes.data - 4 * ROWS,
        bounds.ctypes.data,
        call.first,
        call.second,
    )
    seed, tried, given_up, start = np.int64(0), 0, 0, claim(here, TURN)
    while start < call.queries:
        stop = min(start + TURN, call.queries)
        _rotate(queries, start, stop, call.basis, shift, made)
        for q in range(start, stop):
            norm = _place(queries, q, mean, made, q - start, at, offset)
            if not norm < call.vast or (tried >= TRIES and 2 * given_up > tried):  # or NaN
                busy[q] = True
                continue
            tried += 1
            for block in range(call.boxes // LANES):
                step = VECTOR * block
                boxes16(call.low + step, call.high + step, 4 * call.boxes, addresses[1], addresses[0] + step)
            errors = errors_of(norm, np.float64(at[2 * STEP + 1]), (call.terms, call.bank_norm, call.lost))
            patience = (call.most, call.often)
            state, busy[q] = walk(
                seed, call.leaves, boxes, errors, addresses, bounds, patience, lists, offset, local, codes
            )
            best, seed, kept, _ = state
            if busy[q]:
                given_up += 1
                continue
            squared, index[q], seed = nearest_of(queries, q, numbers, bank, best, kept, lists[2], lists[3])
            distance[q] = np.sqrt(squared)
        start = claim(here, TURN)


@functools.cache
def search() -> Any:
    """The search as machine code: its `address` is a function of C that takes that of a CALL. Kept on disk
    where that is possible."""
    signature = types.void(types.CPointer(from_dtype(CALL)))
    try:
        return cfunc(signature, cache=True, **OPTIONS)(_search)
    except (RuntimeError, OSError):  # there is no folder that can be written to, or no room
        return cfunc(signature, **OPTIONS)(_search)
