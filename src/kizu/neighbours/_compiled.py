"""The search through a tree's leaves, one query after the other, as machine code (numba). What is searched: _tree.

For a query: (1) the row in which the query before ended is measured, and limits all others. (2) The leaf of the nearest box first, then
all others whose box lies within the limit: bounds of 64 rows at once, in 15 directions and then in 30, leave a few candidates. (3) After
the first leaf, when there are many, and at the end, the candidate of least bound is measured, which lowers the limit; the others are
looked at in 64 directions more, and those that remain are measured too. Measured is in float64, by direct difference.

A bound has three parts: the squared difference in the coordinates so far; that of what the coordinates leave of each vector (its norm
beyond them), counted where it is known well enough; and on the other side of the comparison an allowance for all roundings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

ROWS = 64
"""Rows of a leaf."""
STEP = 15
"""Directions of one step of bounds; what they leave is its sixteenth number."""
BOX = 8
"""Directions of the boxes."""
MORE = 64
"""Directions in which candidates are looked at."""
CROWD = 96
"""Candidates that are looked at together."""
FULL = 1
"""How often a query may have so many."""
TRIES = 16
"""Queries after which all that follow are left to the products, if most of them were."""
SURE = 0.05
"""What the directions leave of a vector counts where its error is below this share of the distance in question."""
ONE, NONE = np.float32(1.0), np.float32(0.0)


_OPTIONS: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy", "nogil": True}
"""Sums may be reordered; NaN and infinity stay what they are; other Python threads go on meanwhile."""


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Machine code, kept on disk where there is a folder for it."""
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no folder that can be written to
        return njit(**_OPTIONS)(function)


def _inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Put where it is called: counting references to arrays at each call took a third of the search."""
    return njit(inline="always", **_OPTIONS)(function)


@_inlined
def _boxes(at, low, high, bound):  # type: ignore[no-untyped-def]
    """Squared distances of a query to all boxes."""
    for leaf in range(len(bound)):
        total = NONE
        for d in range(BOX):
            under, over = low[d, leaf] - at[d], at[d] - high[d, leaf]
            out = under if under > over else over
            out = out if out > NONE else NONE
            total += out * out
        bound[leaf] = total


@_inlined
def _first(at, table, leaf, counts, limit, sums):  # type: ignore[no-untyped-def]
    """Sums of a leaf's rows in the first directions, and how many rows are within the limit."""
    hits = NONE
    for row in range(ROWS):
        total = NONE
        for d in range(STEP):
            off = table[leaf, d, row] - at[d]
            total += off * off
        sums[row] = total
        off = table[leaf, STEP, row] - at[STEP]
        hits += ONE if total + counts * off * off <= limit else NONE
    return hits


@_inlined
def _second(at, table, leaf, counts, limit, sums, bounds):  # type: ignore[no-untyped-def]
    """The same with the next directions added; bounds: the sums with what the directions leave."""
    hits = NONE
    for row in range(ROWS):
        total = sums[row]
        for d in range(STEP):
            off = table[leaf, d, row] - at[STEP + 1 + d]
            total += off * off
        sums[row] = total
        off = table[leaf, STEP, row] - at[2 * STEP + 1]
        bounds[row] = total + counts * off * off
        hits += ONE if bounds[row] <= limit else NONE
    return hits


@_inlined
def _further(coordinates, q, beyond, row, total):  # type: ignore[no-untyped-def]
    """A sum with the directions added that lie beyond the second step."""
    for d in range(MORE):
        off = coordinates[q, 2 * STEP + d] - beyond[row, d]
        total += off * off
    return total


@_inlined
def _measure(queries, q, rows, row):  # type: ignore[no-untyped-def]
    """Squared distance, float64."""
    total = 0.0
    for d in range(queries.shape[1]):
        off = np.float64(queries[q, d]) - np.float64(rows[row, d])
        total += off * off
    return total


@_inlined
def _limit(squared, allowance):  # type: ignore[no-untyped-def]
    """The largest bound, as computed, of a row that is not farther."""
    reach = np.sqrt(squared) * 1.00001 + allowance
    return np.float32(reach * reach * 1.00005)


@_inlined
def _least(bits, count):  # type: ignore[no-untyped-def]
    """Where the smallest of some numbers is that are not negative: their bits (int32) have their order, so have bits and place together."""
    least = np.int64(2**62)
    for place in range(count):
        least = min(least, (np.int64(bits[place]) << 32) | place)
    return least & 0xFFFFFFFF


@_inlined
def _place(queries, q, mean, coordinates, at):  # type: ignore[no-untyped-def]
    """A query's first coordinates and what they leave of it, for both steps, into `at` (32,); its norm is returned."""
    norm = _measure(queries, q, mean, 0)
    rest = norm
    for step in range(2):
        for d in range(STEP):
            value = coordinates[q, step * STEP + d]
            at[step * (STEP + 1) + d] = value
            rest -= np.float64(value) * np.float64(value)
        at[step * (STEP + 1) + STEP] = np.sqrt(rest if rest > 0.0 else 0.0)
    return np.sqrt(norm)


@_inlined
def _errors(norm, left, allowances):  # type: ignore[no-untyped-def]
    """How far all coordinates of a query may be off, with the bank's; and what the first 30 of them leave."""
    terms, size, lost = allowances
    one = terms * (norm + size)
    own = one * np.sqrt(2.0 * STEP)
    squared = 2.1 * norm * own + 1.1 * own * own
    return one * np.sqrt(2.0 * STEP + MORE) + lost, min(squared / max(left, 1e-30), np.sqrt(squared)) + 1e-6 * norm


@_inlined
def _look(at, first, second, leaf, counts, limit, sums, bounds, found, rows, within, so_far):  # type: ignore[no-untyped-def]
    """Add the rows of a leaf whose bounds are within the limit to the candidates; how many there are now."""
    if _first(at, first, leaf, counts, limit, sums) == NONE:
        return found
    if _second(at, second, leaf, counts, limit, sums, bounds) == NONE:
        return found
    for row in range(ROWS):
        rows[found], within[found], so_far[found] = leaf * ROWS + row, bounds[row], sums[row]
        found += 1 if bounds[row] <= limit else 0
    return found


@_inlined
def _settle(queries, q, coordinates, beyond, numbers, bank, allowance, found, rows, within, bits, so_far, best, seed):  # type: ignore[no-untyped-def]
    """Measure the candidates that must be, the one of least bound first: squared distance of the nearest so far, and its place in the tree.

    Of rows equally near the smallest number is taken.
    """
    number, limit, place = numbers[seed], _limit(best, allowance), seed
    leader = _least(bits, found)
    for turn in range(-1 if found > 0 else 0, found):
        at = leader if turn < 0 else turn
        if within[at] > limit or turn == leader or rows[at] == seed:
            continue
        if _further(coordinates, q, beyond, rows[at], so_far[at]) > limit:
            continue
        other = numbers[rows[at]]
        squared = _measure(queries, q, bank, other)
        if squared < best or (squared == best and other < number):
            best, number, place = squared, other, rows[at]
            limit = _limit(best, allowance)
    return best, place


@_inlined
def _count(boxes, limit):  # type: ignore[no-untyped-def]
    """Boxes within the limit."""
    near = 0
    for leaf in range(len(boxes)):
        near += 1 if boxes[leaf] <= limit else 0
    return near


@_compiled
def search(queries, coordinates, mean, allowances, tree, most, vast, distance, index, busy):  # type: ignore[no-untyped-def]
    """The nearest row of each query (Q, D): `distance` (Q,) and `index` (Q,) are filled, or `busy` (Q,) where too much would remain.

    coordinates (Q, 94); mean (1, D); allowances: see `_errors`; tree: low, high, first, second, beyond, numbers, bank (see _tree.Tree);
    most: leaves a query may look into; vast: norm from which a query is left open. Source of the bounds: docs/methods/neighbours.md.
    """
    low, high, first, second, beyond, numbers, bank = tree
    boxes, sums, bounds = np.empty(len(first), np.float32), np.empty(ROWS, np.float32), np.empty(ROWS, np.float32)
    at, size = np.empty(2 * STEP + 2, np.float32), CROWD + ROWS
    rows, within, so_far = np.empty(size, np.int64), np.empty(size, np.float32), np.empty(size, np.float32)
    box_bits, bits, seed, tried, given_up = boxes.view(np.int32), within.view(np.int32), 0, 0, 0
    for q in range(len(queries)):
        norm = _place(queries, q, mean, coordinates, at)
        if not norm < vast or (tried >= TRIES and 2 * given_up > tried):  # or NaN
            busy[q] = True
            continue
        tried += 1
        _boxes(at, low, high, boxes)
        best = _measure(queries, q, bank, numbers[seed])
        allowance, left = _errors(norm, np.float64(at[2 * STEP + 1]), allowances)
        counts = ONE if left <= SURE * np.sqrt(best) else NONE
        allowance += counts * left
        nearest, limit, found, full = _least(box_bits, len(boxes)), _limit(best, allowance), 0, 0
        for step in range(-1, len(boxes) + 1):
            leaf = nearest if step < 0 else step
            if step < 0 or (step < len(boxes) and boxes[leaf] <= limit and leaf != nearest):
                found = _look(at, first, second, leaf, counts, limit, sums, bounds, found, rows, within, so_far)
            if step < 0 or found > CROWD or step == len(boxes):
                full += 1 if found > CROWD else 0
                best, seed = _settle(
                    queries, q, coordinates, beyond, numbers, bank, allowance, found, rows, within, bits, so_far, best, seed
                )
                limit, found = _limit(best, allowance), 0
                if full > FULL or (step < 0 and _count(boxes, limit) > most):
                    busy[q] = True
                    given_up += 1
                    break
        index[q], distance[q] = numbers[seed], np.sqrt(best)
