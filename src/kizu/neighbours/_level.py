"""One level of the search: a matrix whose product with the queries gives lower bounds of all squared
distances.

A level holds the bank in an orthonormal basis of K of its directions (or in all D), rounded to the type of
the product. With rounded rows q^ and b^ and the norms of what rounding took away, e_q = |q - q^| and e_b = |b
- b^|, the triangle inequality gives

    |q - b|  >=  |projection of (q - b)|  >=  |q^ - b^| - e_q - e_b

so a row farther in the product than a known distance plus e_q + e_b cannot be nearest. |q^ - b^|^2 comes out
of one product, with the norms as additional columns: small distances are rounded relatively, not against the
norms. Results of a bfloat16 product are compared by their bits, as int16: for numbers that are not negative
the order is the same, and negative ones (true value near 0) sort first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kizu.neighbours._filter import UNIT32, rounding_of_products

GROUP = 64
"""Bank rows whose least bound is kept together."""
PIECES = 3
"""bfloat16 numbers that carry one squared norm to 2^-24."""
FAR = 1e30
"""Squared norm of padding rows."""


def product_type(device: torch.device) -> torch.dtype:
    """bfloat16 where the processor multiplies it natively, float32 elsewhere (accelerators may add up
    bfloat16 loosely)."""
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return torch.bfloat16 if device.type == "cpu" and native is not None and native() else torch.float32


def extra_columns(dtype: torch.dtype) -> int:
    """Columns beside the coordinates: the squared norms of both sides, and a one against each."""
    return 2 * _count(dtype)


@dataclass(frozen=True)
class Level:
    """`columns` (N padded to groups, K + extra) and `basis` (D, K), or None for all directions; lost: the
    largest e_b; largest: the largest squared norm of a rounded row; rotation: relative error of a coordinate
    vector by the float32 rotation."""

    columns: Tensor
    basis: Tensor | None
    lost: float
    largest: float
    rotation: float
    slack: float

    @classmethod
    def of(cls, rows: Tensor, basis: Tensor | None, dtype: torch.dtype) -> Level:
        """The level of bank rows (N, D) in the frame, float32."""
        size = rows.shape[1]
        rotation = (
            0.0
            if basis is None
            else (size + 2) * UNIT32 * basis.shape[1] ** 0.5 + rounding_of_products(rows.device)
        )
        coordinates = rows if basis is None else rows @ basis
        rounded = coordinates.to(dtype)
        norms = rounded.double().square().sum(1)
        lost = (coordinates - rounded.float()).norm(dim=1) + 1.01 * (rotation + 2 * UNIT32) * rows.norm(dim=1)
        sides = [
            rounded,
            _pieces(norms, dtype),
            torch.ones(len(rows), _count(dtype), dtype=dtype, device=rows.device),
        ]
        columns = torch.cat(sides, dim=1)
        padding = -len(rows) % GROUP
        if padding:
            far = columns.new_zeros(padding, columns.shape[1])
            far[:, rounded.shape[1]] = FAR
            columns = torch.cat([columns, far])
        slack = 2 * (columns.shape[1] + 8) * UNIT32 + (
            rounding_of_products(rows.device) if dtype == torch.float32 else 0.0
        )
        return cls(columns, basis, 1.0001 * float(lost.amax()), float(norms.amax()), rotation, slack)

    def queries(self, rows: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The query side of the product (K + extra, Q), e_q (Q,) with the largest e_b added, and the
        product's absolute error (Q,).

        sizes: norms (Q,) of the rows (Q, D).
        """
        dtype = self.columns.dtype
        coordinates = rows if self.basis is None else rows @ self.basis
        rounded = coordinates.to(dtype)
        back = rounded.float()
        norms = back.square().sum(1)
        lost = (coordinates - back).norm(dim=1) + 1.01 * (self.rotation + 2 * UNIT32) * sizes
        one = torch.ones(len(rows), _count(dtype), dtype=dtype, device=rows.device)
        side = torch.cat([-2.0 * rounded, one, _pieces(norms, dtype)], dim=1)
        return side.T.contiguous(), 1.0001 * lost + self.lost, self.slack * 2.0 * (norms + self.largest)

    def limits(self, distances: Tensor, lost: Tensor, error: Tensor) -> Tensor:
        """Comparable limits (Q,): a row whose bound is above is farther than `distances` (frame units)."""
        rounding = 2.0**-7 if self.columns.dtype == torch.bfloat16 else 2.0**-21
        limit = ((distances * 1.00001 + lost).square() + error) * (1.0 + rounding)
        return comparable(limit.to(self.columns.dtype))


def comparable(values: Tensor) -> Tensor:
    """bfloat16 as int16 bits, whose minima are several times faster; float32 as it is."""
    return values.view(torch.int16) if values.dtype == torch.bfloat16 else values


def _count(dtype: torch.dtype) -> int:
    return PIECES if dtype == torch.bfloat16 else 1


def _pieces(norms: Tensor, dtype: torch.dtype) -> Tensor:
    """Squared norms (R,) as a sum of columns (R, pieces) of the product's type."""
    pieces = []
    for _ in range(_count(dtype)):
        pieces.append(norms.to(dtype))
        norms = norms - pieces[-1].to(norms.dtype)
    return torch.stack(pieces, dim=1)
