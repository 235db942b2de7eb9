"""One query's walk through a tree's leaves, for _compiled. What is searched, and why it is exact: _tree.

(1) The row in which the query before ended is estimated, and limits all others. (2) The leaf of the nearest
box first, then all others whose box lies within the limit: bounds of 64 rows at once, in 15 directions and
then in 30, leave a few candidates. (3) After the first leaf, when there are many, and at the end, candidates
are estimated, the one of least bound first, which lowers the limit. (4) At the end the rows that may be
nearest by their estimates are measured, in float64, by direct difference.

A bound has three parts: the squared difference in the coordinates so far; that of what the coordinates leave
of each vector (its norm beyond them), counted where it is known well enough; and on the other side of the
comparison an allowance for all roundings. An estimate is the distance to a row's code, which is off by no
more than the row lies from its code.

What takes most of the time works by addresses, on vectors of 16 numbers (_vectors); arrays behind addresses
are the caller's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from kizu.accel.vectors import (
    CHUNK,
    LANES,
    ROWS,
    STEP,
    below,
    code_distance,
    first_bounds,
    lowest,
    second_bounds,
    take_away,
)

CROWD = 96
"""Candidates that are looked at together."""
SURE = 0.05
"""What the directions leave of a vector counts where its error is below this share of the distance in
question."""
ONE, NONE, SOME = np.float32(1.0), np.float32(0.0), np.uint64(1)
VECTOR = 4 * LANES
"""Bytes."""
OPTIONS: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}
"""Sums may be reordered; NaN and infinity stay what they are."""


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Put where it is called: handing over arrays took a third of the search."""
    return njit(inline="always", **OPTIONS)(function)


@inlined
def _limit(distance, allowance):  # type: ignore[no-untyped-def]
    """The largest bound, as computed, of a row that is not farther."""
    reach = distance * 1.00001 + allowance
    return np.float32(reach * reach * 1.00005)


@inlined
def errors_of(norm, left, allowances):  # type: ignore[no-untyped-def]
    """How far all coordinates of a query may be off, with the bank's; what they leave of it; and the offset
    that estimates start from."""
    terms, size, lost = allowances
    own = terms * (norm + size) * np.sqrt(2.0 * STEP)
    squared = 2.1 * norm * own + 1.1 * own * own
    return own + lost, min(squared / max(left, 1e-30), np.sqrt(squared)) + 1e-6 * norm, 1e-6 * norm + lost


@inlined
def _least(bits, count):  # type: ignore[no-untyped-def]
    """Where the smallest of some numbers is that are not negative: their bits (int32) have their order, so
    have bits and place together."""
    least = np.int64(2**62)
    for place in range(count):
        least = min(least, (np.int64(bits[place]) << 32) | place)
    return least & 0xFFFFFFFF


@inlined
def _count(boxes, limit):  # type: ignore[no-untyped-def]
    """Boxes within the limit."""
    near = 0
    for leaf in range(len(boxes)):
        near += 1 if boxes[leaf] <= limit else 0
    return near


@inlined
def _gather(span, skip, counts, limit, places, bounds, rows, within):  # type: ignore[no-untyped-def]
    """Rows whose bounds are within the limit, of the leaves whose boxes are: how many there are, and what of
    the span is left.

    span: block of 16 leaves, those of it still to come (bits), block to end at. It ends early once there are
    more than CROWD."""
    block, some, stop = span
    boxes_at, at_at, sums_at, bounds_at, first_at, second_at = places
    found = 0
    while found <= CROWD:
        while some == 0:
            block += 1
            if block >= stop:
                return found, (block, some, stop)
            some = below(boxes_at + VECTOR * block, limit)
        leaf = LANES * block + lowest(some)
        some &= some - SOME
        if leaf == skip:
            continue
        table = leaf * (4 * (STEP + 1) * ROWS)
        hits = first_bounds(first_at + table, at_at, sums_at, counts, limit)
        if hits != 0:
            hits = second_bounds(second_at + table, at_at + VECTOR, sums_at, bounds_at, counts, limit)
        while hits != 0:
            row = lowest(hits)
            hits &= hits - SOME
            rows[found], within[found] = leaf * ROWS + row, bounds[row]
            found += 1
    return found, (block, some, stop)


@inlined
def _judge(found, lists, state, offset, local, codes, slack, allowance):  # type: ignore[no-untyped-def]
    """Estimate the candidates that must be, the one of least bound first, and keep those that may be nearest.

    state: largest distance that the nearest row may have, the row that says so, rows kept, leaf about whose
    centre `local` is the offset."""
    best, place, kept, near = state
    values, centres, scales, errors, relative = codes
    rows, within, close, least = lists
    size, offset_at, local_at = values.shape[1], offset.ctypes.data, local.ctypes.data
    values_at, centres_at, chunks = values.ctypes.data, centres.ctypes.data, values.shape[1] // CHUNK
    limit, seed, leader = _limit(best, allowance), place, _least(within.view(np.int32), found)
    for turn in range(-1 if found > 0 else 0, found):
        at = leader if turn < 0 else turn
        row = rows[at]
        if within[at] > limit or turn == leader or row == seed:
            continue
        if row // ROWS != near:
            near = row // ROWS
            take_away(offset_at, centres_at + 4 * size * near, local_at, chunks)
        reach = np.float64(np.sqrt(code_distance(local_at, values_at + size * row, scales[row], chunks)))
        off = relative * reach + errors[row] + slack
        close[kept], least[kept] = row, reach - off
        kept += 1 if reach - off <= best else 0
        if reach + off < best:
            best, place = reach + off, row
            limit = _limit(best, allowance)
    return best, place, kept, near


@inlined
def nearest_of(queries, q, numbers, bank, best, kept, close, least):  # type: ignore[no-untyped-def]
    """Of the kept rows that may be nearest: squared distance, number and place of the nearest; the smallest
    number of rows equally near."""
    nearest, number, place = np.inf, np.int64(0), np.int64(0)
    for turn in range(kept):
        if least[turn] <= best:
            other, squared = numbers[close[turn]], 0.0
            for d in range(queries.shape[1]):
                off = np.float64(queries[q, d]) - np.float64(bank[other, d])
                squared += off * off
            if squared < nearest or (squared == nearest and other < number):
                nearest, number, place = squared, other, close[turn]
    return nearest, number, place


@inlined
def walk(seed, leaves, boxes, errors, places, bounds, patience, lists, offset, local, codes):  # type: ignore[no-untyped-def]
    """The seed, the leaf of the nearest box, then all leaves within the limit: the state, and whether too
    many leaves or rows remain."""
    rows, within, _, _ = lists
    allowance, left, slack = errors
    most, often = patience
    nearest, blocks, skip, step, full = (
        _least(boxes.view(np.int32), leaves),
        len(boxes) // LANES,
        np.int64(-1),
        0,
        0,
    )
    span = (nearest // LANES, SOME << np.uint64(nearest % LANES), nearest // LANES + 1)
    rows[0], within[0], found = seed, NONE, 1
    state, counts, limit = (np.inf, np.int64(-1), 0, np.int64(-1)), NONE, NONE
    while True:
        if step > 0:
            found, span = _gather(span, skip, counts, limit, places, bounds, rows, within)
            full += 1 if found > CROWD else 0
        state = _judge(found, lists, state, offset, local, codes, slack, allowance)
        if step == 0 and left <= SURE * state[0]:
            counts, allowance = ONE, allowance + left
        limit = _limit(state[0], allowance)
        if step == 1:
            if _count(boxes, limit) > most:
                return state, True
            span, skip = (0, below(places[0], limit), blocks), nearest
        elif step > 1 and (span[0] >= blocks or full > often):
            return state, full > often
        step += 1
