"""Instructions on vectors of 16 float32 numbers, by addresses, for the search through a tree (llvmlite).

Written as loops over arrays, the search was half as fast: numba uses half of such a vector, computes
addresses again and counts references. A processor with shorter vectors uses several for one. Nothing is
checked; the caller keeps the arrays alive.
"""

from __future__ import annotations

import itertools
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""Numbers of a vector."""
ROWS = 64
"""Rows of a leaf."""
STEP = 15
"""Directions of one step of bounds; the rest (the norm of what they leave) is its sixteenth number."""
BOX = 8
"""Directions of the boxes."""
WIDTH = 32
"""Numbers of a row of the basis: both steps' directions, and zeros."""
CHUNK = 64
"""Numbers of a code come in multiples of it."""

_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR, _CODES, _INTS = (
    ir.VectorType(_F32, LANES),
    ir.VectorType(ir.IntType(8), LANES),
    ir.VectorType(_I32, LANES),
)
_ZERO, _UNDEFINED = ir.Constant(_VECTOR, [0.0] * LANES), ir.Constant(_VECTOR, ir.Undefined)
_CONTRACT = ("contract",)
"""A product and the sum that it is added to may be one instruction."""
_BYTES = 4 * LANES


def _load(builder: Any, address: Any, offset: int, kind: Any = _VECTOR) -> Any:
    at = builder.inttoptr(builder.add(address, ir.Constant(_I64, offset)), kind.as_pointer())
    value = builder.load(at)
    value.align = 1 if kind is _CODES else 4
    return value


def _store(builder: Any, value: Any, address: Any, offset: int) -> None:
    at = builder.inttoptr(builder.add(address, ir.Constant(_I64, offset)), value.type.as_pointer())
    builder.store(value, at).align = 4


def _broadcast(builder: Any, number: Any) -> Any:
    """A vector of the same number."""
    first = builder.insert_element(_UNDEFINED, number, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, _UNDEFINED, ir.Constant(_INTS, [0] * LANES))


def _add_square(builder: Any, off: Any, total: Any) -> Any:
    return builder.fadd(builder.fmul(off, off, flags=_CONTRACT), total, flags=_CONTRACT)


def _maximum(builder: Any, one: Any, other: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", one, other), one, other)


def _within(builder: Any, vectors: list[Any], limit: Any) -> Any:
    """Which numbers of some vectors are not above a limit, as bits."""
    bits = ir.Constant(_I64, 0)
    for number, vector in enumerate(vectors):
        lanes = builder.fcmp_ordered("<=", vector, _broadcast(builder, limit))
        some = builder.zext(builder.bitcast(lanes, ir.IntType(LANES)), _I64)
        bits = builder.or_(bits, builder.shl(some, ir.Constant(_I64, LANES * number)))
    return bits


def _add_step(
    builder: Any, table: Any, at: Any, totals: list[Any], rest_weight: Any
) -> tuple[list[Any], list[Any]]:
    """Sums of a leaf's rows with 15 directions added, and bounds: the sums plus the weighted rests."""
    for d in range(STEP):
        x = _broadcast(builder, _load(builder, at, 4 * d, _F32))
        offs = [builder.fsub(_load(builder, table, 4 * ROWS * d + _BYTES * k), x) for k in range(len(totals))]
        totals = [_add_square(builder, off, total) for off, total in zip(offs, totals, strict=True)]
    x, weight = _broadcast(builder, _load(builder, at, 4 * STEP, _F32)), _broadcast(builder, rest_weight)
    offs = [builder.fsub(_load(builder, table, 4 * ROWS * STEP + _BYTES * k), x) for k in range(len(totals))]
    squares = [builder.fmul(builder.fmul(off, off), weight, flags=_CONTRACT) for off in offs]
    return totals, [
        builder.fadd(square, total, flags=_CONTRACT) for square, total in zip(squares, totals, strict=True)
    ]


@intrinsic
def first_bounds(context, table, at, sums, rest_weight, limit):  # type: ignore[no-untyped-def]
    """Which rows of a leaf are within the limit in the first directions, as bits; fills `sums`."""

    def write(target, builder, signature, values):  # type: ignore[no-untyped-def]
        table, at, sums, rest_weight, limit = values
        totals, bounds = _add_step(builder, table, at, [_ZERO] * (ROWS // LANES), rest_weight)
        for k, total in enumerate(totals):
            _store(builder, total, sums, _BYTES * k)
        return _within(builder, bounds, limit)

    return types.uint64(types.int64, types.int64, types.int64, types.float32, types.float32), write


@intrinsic
def second_bounds(context, table, at, sums, bounds, rest_weight, limit):  # type: ignore[no-untyped-def]
    """The same with the next directions added to `sums`; fills `bounds` of all rows."""

    def write(target, builder, signature, values):  # type: ignore[no-untyped-def]
        table, at, sums, kept, rest_weight, limit = values
        _, bounds = _add_step(
            builder, table, at, [_load(builder, sums, _BYTES * k) for k in range(ROWS // LANES)], rest_weight
        )
        for k, bound in enumerate(bounds):
            _store(builder, bound, kept, _BYTES * k)
        return _within(builder, bounds, limit)

    return types.uint64(
        types.int64, types.int64, types.int64, types.int64, types.float32, types.float32
    ), write


@intrinsic
def boxes16(context, low, high, row, at, distances):  # type: ignore[no-untyped-def]
    """Squared distances to 16 boxes. row: bytes from one direction to the next."""

    def write(target, builder, signature, values):  # type: ignore[no-untyped-def]
        low, high, row, at, distances = values
        totals = [_ZERO, _ZERO]
        for d in range(BOX):
            x = _broadcast(builder, _load(builder, at, 4 * d, _F32))
            under, over = builder.fsub(_load(builder, low, 0), x), builder.fsub(x, _load(builder, high, 0))
            off = _maximum(builder, _maximum(builder, under, over), _ZERO)
            totals[d % 2] = _add_square(builder, off, totals[d % 2])
            low, high = builder.add(low, row), builder.add(high, row)
        _store(builder, builder.fadd(*totals), distances, 0)
        return target.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, types.int64), write


@intrinsic
def rotate4(context, one, two, three, four, basis, count, out):  # type: ignore[no-untyped-def]
    """Products of four rows with a basis (count, 32), added to `out` (4, 32); terms are summed in order."""

    def write(target, builder, signature, values):  # type: ignore[no-untyped-def]
        *rows, basis, count, out = values
        totals = [[cgutils.alloca_once(builder, _VECTOR) for _ in range(WIDTH // LANES)] for _ in rows]
        for total in itertools.chain(*totals):
            builder.store(_ZERO, total)
        with cgutils.for_range(builder, count, intp=_I64) as loop:
            at, turn = (builder.mul(loop.index, ir.Constant(_I64, size)) for size in (4, 4 * WIDTH))
            here = builder.add(basis, turn)
            columns = [_load(builder, here, _BYTES * k) for k in range(WIDTH // LANES)]
            for row, sums in zip(rows, totals, strict=True):
                x = _broadcast(builder, _load(builder, builder.add(row, at), 0, _F32))
                for column, total in zip(columns, sums, strict=True):
                    product = builder.fmul(x, column, flags=_CONTRACT)
                    builder.store(builder.fadd(product, builder.load(total), flags=_CONTRACT), total)
        for number, total in enumerate(itertools.chain(*totals)):
            before = _load(builder, out, _BYTES * number)
            _store(builder, builder.fadd(before, builder.load(total)), out, _BYTES * number)
        return target.get_dummy_value()

    return types.void(*[types.int64] * 7), write


@intrinsic
def fetch_add(context, address, amount):  # type: ignore[no-untyped-def]
    """The number at an address, to which `amount` is added at once: no two threads get the same."""

    def write(target, builder, signature, values):  # type: ignore[no-untyped-def]
        return builder.atomic_rmw(
            "add", builder.inttoptr(values[0], _I64.as_pointer()), values[1], "monotonic"
        )

    return types.int64(types.int64, types.int64), write


@intrinsic
def pointer(context, address):  # type: ignore[no-untyped-def]
    """An address as the pointer from which numba builds an array."""

    def write(target, builder, signature, values):  # type: ignore[no-untyped-def]
        return builder.inttoptr(values[0], target.get_value_type(types.voidptr))

    return types.voidptr(types.int64), write


@intrinsic
def within16(context, numbers, limit):  # type: ignore[no-untyped-def]
    """Which of 16 numbers are not above a limit, as bits."""

    def write(target, builder, signature, values):  # type: ignore[no-untyped-def]
        return _within(builder, [_load(builder, values[0], 0)], values[1])

    return types.uint64(types.int64, types.float32), write


@intrinsic
def lowest_bit(context, bits):  # type: ignore[no-untyped-def]
    """The position of the lowest bit of a number that is not 0."""

    def write(target, builder, signature, values):  # type: ignore[no-untyped-def]
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), write


@intrinsic
def subtract(context, one, other, out, chunks):  # type: ignore[no-untyped-def]
    """out = one - other, over `chunks` times 64 numbers."""

    def write(target, builder, signature, values):  # type: ignore[no-untyped-def]
        *addresses, chunks = values
        with cgutils.for_range(builder, chunks, intp=_I64) as loop:
            step = builder.mul(loop.index, ir.Constant(_I64, 4 * CHUNK))
            one, other, out = (builder.add(address, step) for address in addresses)
            for offset in range(0, 4 * CHUNK, _BYTES):
                difference = builder.fsub(_load(builder, one, offset), _load(builder, other, offset))
                _store(builder, difference, out, offset)
        return target.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), write


@intrinsic
def code_distance(context, offset, code, scale, chunks):  # type: ignore[no-untyped-def]
    """Sum of squares of offset - scale * code (int8), over `chunks` times 64 numbers."""

    def write(target, builder, signature, values):  # type: ignore[no-untyped-def]
        offset, code, scale, chunks = values
        scale = _broadcast(builder, scale)
        totals = [cgutils.alloca_once(builder, _VECTOR) for _ in range(CHUNK // LANES)]
        for total in totals:
            builder.store(_ZERO, total)
        with cgutils.for_range(builder, chunks, intp=_I64) as loop:
            here = builder.add(offset, builder.mul(loop.index, ir.Constant(_I64, 4 * CHUNK)))
            there = builder.add(code, builder.mul(loop.index, ir.Constant(_I64, CHUNK)))
            for k, total in enumerate(totals):
                whole = builder.sext(_load(builder, there, LANES * k, _CODES), _INTS)
                product = builder.fmul(scale, builder.sitofp(whole, _VECTOR), flags=_CONTRACT)
                off = builder.fsub(_load(builder, here, _BYTES * k), product, flags=_CONTRACT)
                builder.store(_add_square(builder, off, builder.load(total)), total)
        one, two, three, four = (builder.load(total) for total in totals)
        return _sum(builder, builder.fadd(builder.fadd(one, two), builder.fadd(three, four)))

    return types.float32(types.int64, types.int64, types.float32, types.int64), write


def _sum(builder: Any, vector: Any) -> Any:
    """The sum of a vector's numbers, by halves."""
    for half in (8, 4, 2, 1):
        order = ir.Constant(_INTS, [(lane + half) % LANES for lane in range(LANES)])
        vector = builder.fadd(vector, builder.shuffle_vector(vector, _UNDEFINED, order))
    return builder.extract_element(vector, ir.Constant(_I32, 0))
