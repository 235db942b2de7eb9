"""One query's walk through a tree's leaves, for `kizu.accel.compiled`. What is searched, and why it is exact:
`kizu.accel.tree`.

(1) The row in which the query before ended is estimated, and limits all others. (2) The leaf of the nearest
box first, then all others whose box lies within the limit: bounds of 64 rows at once, in 15 directions and
then in 30, leave a few candidates. (3) After the first leaf, when there are many, and at the end, candidates
are estimated, the one of least bound first, which lowers the limit. (4) At the end the rows that may be
nearest by their estimates are measured, in float64, by direct difference.

A bound has three parts: the squared difference in the coordinates so far; that of the rests (the norms of
what the coordinates leave of each vector), counted where they are known well enough; and, on the other side
of the comparison, an allowance for all roundings. An estimate is the distance to a row's code, which is off
by no more than the row lies from its code.

What costs most of the time works by addresses, on vectors of 16 numbers (`kizu.accel.vectors`); arrays behind
addresses belong to the caller.
"""

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
    code_distance,
    first_bounds,
    lowest_bit,
    second_bounds,
    subtract,
    within16,
)

MAX_CANDIDATES = 96
"""Candidates that are estimated together."""
MAX_REST_ERROR = 0.05
"""The rest of a vector counts where its error is below this share of the distance in question."""
ONE, ZERO, BIT = np.float32(1.0), np.float32(0.0), np.uint64(1)
VECTOR = 4 * LANES
"""Bytes."""
OPTIONS: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}
"""Sums may be reordered; NaN and infinity stay what they are."""


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile into each caller: passing arrays cost a third of the search."""
    return njit(inline="always", **OPTIONS)(function)


@inlined
def _limit(distance, allowance):  # type: ignore[no-untyped-def]
    """The largest bound, as computed, of a row that is not farther."""
    reach = distance * 1.00001 + allowance
    return np.float32(reach * reach * 1.00005)


@inlined
def errors_of(norm, rest, allowances):  # type: ignore[no-untyped-def]
    """Errors of the coordinates of a query and a row together, of the query's rest, and of code offsets."""
    coordinate_error, mean_norm, bank_error = allowances
    query_error = coordinate_error * (norm + mean_norm) * np.sqrt(2.0 * STEP)
    squared = 2.1 * norm * query_error + 1.1 * query_error * query_error
    rest_error = min(squared / max(rest, 1e-30), np.sqrt(squared)) + 1e-6 * norm
    return query_error + bank_error, rest_error, 1e-6 * norm + bank_error


@inlined
def _least(bits, count):  # type: ignore[no-untyped-def]
    """The position of the smallest of some numbers that are not negative.

    Their bits (int32) have their order, so have bits and position together."""
    least = np.int64(2**62)
    for position in range(count):
        least = min(least, (np.int64(bits[position]) << 32) | position)
    return least & 0xFFFFFFFF


@inlined
def _count_within(boxes, limit):  # type: ignore[no-untyped-def]
    """Boxes within the limit."""
    count = 0
    for leaf in range(len(boxes)):
        count += 1 if boxes[leaf] <= limit else 0
    return count


@inlined
def _gather(span, skip, rest_weight, limit, addresses, bounds, rows, within):  # type: ignore[no-untyped-def]
    """Rows whose bounds are within the limit, in leaves whose boxes are; returns their number and the span
    left.

    span: block of 16 leaves, those of it still to come (bits), block to end at. It ends early once there are
    more than MAX_CANDIDATES."""
    block, leaves, stop = span
    boxes_at, query_at, sums_at, bounds_at, first_at, second_at = addresses
    count = 0
    while count <= MAX_CANDIDATES:
        while leaves == 0:
            block += 1
            if block >= stop:
                return count, (block, leaves, stop)
            leaves = within16(boxes_at + VECTOR * block, limit)
        leaf = LANES * block + lowest_bit(leaves)
        leaves &= leaves - BIT
        if leaf == skip:
            continue
        table = leaf * (4 * (STEP + 1) * ROWS)
        hits = first_bounds(first_at + table, query_at, sums_at, rest_weight, limit)
        if hits != 0:
            second_at_leaf = second_at + table
            hits = second_bounds(second_at_leaf, query_at + VECTOR, sums_at, bounds_at, rest_weight, limit)
        while hits != 0:
            row = lowest_bit(hits)
            hits &= hits - BIT
            rows[count], within[count] = leaf * ROWS + row, bounds[row]
            count += 1
    return count, (block, leaves, stop)


@inlined
def _estimate(count, lists, state, offset, local, codes, slack, allowance):  # type: ignore[no-untyped-def]
    """Estimate the candidates that must be, the one of least bound first, and keep those that may be nearest.

    state: largest distance that the nearest row may have, the row that limits it, rows kept, leaf from whose
    centre `local` is the offset."""
    best, best_row, kept, local_leaf = state
    values, centres, scales, errors, relative = codes
    rows, within, close, least = lists
    size, offset_at, local_at = values.shape[1], offset.ctypes.data, local.ctypes.data
    values_at, centres_at, chunks = values.ctypes.data, centres.ctypes.data, values.shape[1] // CHUNK
    limit, seed, leader = _limit(best, allowance), best_row, _least(within.view(np.int32), count)
    for turn in range(-1 if count > 0 else 0, count):
        at = leader if turn < 0 else turn
        row = rows[at]
        if within[at] > limit or turn == leader or row == seed:
            continue
        if row // ROWS != local_leaf:
            local_leaf = row // ROWS
            subtract(offset_at, centres_at + 4 * size * local_leaf, local_at, chunks)
        reach = np.float64(np.sqrt(code_distance(local_at, values_at + size * row, scales[row], chunks)))
        off = relative * reach + errors[row] + slack
        close[kept], least[kept] = row, reach - off
        kept += 1 if reach - off <= best else 0
        if reach + off < best:
            best, best_row = reach + off, row
            limit = _limit(best, allowance)
    return best, best_row, kept, local_leaf


@inlined
def nearest_of(queries, q, numbers, bank, best, kept, close, least):  # type: ignore[no-untyped-def]
    """Of the kept rows that may be nearest: squared distance, number and position of the nearest.

    Of rows equally near it is the one of smallest number."""
    nearest, number, position = np.inf, np.int64(0), np.int64(0)
    for turn in range(kept):
        if least[turn] <= best:
            other, squared = numbers[close[turn]], 0.0
            for d in range(queries.shape[1]):
                off = np.float64(queries[q, d]) - np.float64(bank[other, d])
                squared += off * off
            if squared < nearest or (squared == nearest and other < number):
                nearest, number, position = squared, other, close[turn]
    return nearest, number, position


@inlined
def walk(  # type: ignore[no-untyped-def]
    seed, leaves, boxes, errors, addresses, bounds, most, lists, offset, local, codes
):
    """The seed, the leaf of the nearest box, then all leaves within the limit.

    most: leaves to look into, times that there may be more than MAX_CANDIDATES. Returns the state (see
    _estimate), and whether the query is unresolved because it would need more."""
    rows, within, _, _ = lists
    allowance, rest_error, slack = errors
    max_leaves, max_overflows = most
    nearest, blocks = _least(boxes.view(np.int32), leaves), len(boxes) // LANES
    skip, step, overflows = np.int64(-1), 0, 0
    span = (nearest // LANES, BIT << np.uint64(nearest % LANES), nearest // LANES + 1)
    rows[0], within[0], count = seed, ZERO, 1
    state, rest_weight, limit = (np.inf, np.int64(-1), 0, np.int64(-1)), ZERO, ZERO
    while True:
        if step > 0:
            count, span = _gather(span, skip, rest_weight, limit, addresses, bounds, rows, within)
            overflows += 1 if count > MAX_CANDIDATES else 0
        state = _estimate(count, lists, state, offset, local, codes, slack, allowance)
        if step == 0 and rest_error <= MAX_REST_ERROR * state[0]:
            rest_weight, allowance = ONE, allowance + rest_error
        limit = _limit(state[0], allowance)
        if step == 1:
            if _count_within(boxes, limit) > max_leaves:
                return state, True
            span, skip = (0, within16(addresses[0], limit), blocks), nearest
        elif step > 1 and (span[0] >= blocks or overflows > max_overflows):
            return state, overflows > max_overflows
        step += 1
