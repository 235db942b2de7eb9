"""Lower bounds of all squared distances between queries and bank rows, from one matrix product.

A level holds the bank's coordinates in K orthonormal directions (or in all D), rounded to the type of the
product. With P the projection on these directions, q^ and b^ the rounded coordinates of a query and a row,
and the norms of what rounding took away, e_q = |Pq - q^| and e_b = |Pb - b^|, the triangle inequality gives

    |q - b|  >=  |P q - P b|  >=  |q^ - b^| - e_q - e_b

so a row farther in the product than a known distance plus e_q + e_b cannot be nearest. |q^ - b^|^2 comes out
of one product, with the squared norms as additional columns: so its rounding is relative to the distance, not
to the norms. bfloat16 results are compared by their bits, as int16: for numbers that are not negative the
order is the same, and negative ones (true value near 0) sort first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kizu.accel.frame import UNIT32, rounding_of_products

GROUP = 64
"""Bank rows whose least bound is kept together."""
PIECES = 3
"""bfloat16 numbers that hold one squared norm to 2^-24."""
FAR = 1e30
"""Squared norm of padding rows."""


def product_type(device: torch.device) -> torch.dtype:
    """bfloat16 on CPUs that multiply it natively, else float32 (accelerators may sum bfloat16 loosely)."""
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return torch.bfloat16 if device.type == "cpu" and native is not None and native() else torch.float32


def extra_columns(dtype: torch.dtype) -> int:
    """Columns beside the coordinates: the squared norms of both sides, and a one against each."""
    return 2 * _pieces_of(dtype)


@dataclass(frozen=True)
class Level:
    """A bank in some directions, ready for products.

    columns (N padded to groups, K + extra): the side of the bank. basis (D, K), or None for all directions.
    bank_rounding: the largest e_b. largest: the largest squared norm of a rounded row. rotation_error:
    relative error of coordinates by the float32 rotation. product_error: relative error of the product's
    sums.
    """

    columns: Tensor
    basis: Tensor | None
    bank_rounding: float
    largest: float
    rotation_error: float
    product_error: float

    @classmethod
    def of(cls, rows: Tensor, basis: Tensor | None, dtype: torch.dtype) -> Level:
        """The level of bank rows (N, D) in the frame, float32, in directions `basis` (D, K)."""
        size, device = rows.shape[1], rows.device
        rotation_error = 0.0
        if basis is not None:
            rotation_error = (size + 2) * UNIT32 * basis.shape[1] ** 0.5 + rounding_of_products(device)
        coordinates = rows if basis is None else rows @ basis
        rounded = coordinates.to(dtype)
        norms = rounded.double().square().sum(1)
        rounding = _rounding(coordinates, rounded, rows.norm(dim=1), rotation_error)
        ones = torch.ones(len(rows), _pieces_of(dtype), dtype=dtype, device=device)
        columns = torch.cat([rounded, _pieces(norms, dtype), ones], dim=1)
        padding = -len(rows) % GROUP
        if padding:
            far = columns.new_zeros(padding, columns.shape[1])
            far[:, rounded.shape[1]] = FAR
            columns = torch.cat([columns, far])
        product_error = 2 * (columns.shape[1] + 8) * UNIT32
        if dtype == torch.float32:
            product_error += rounding_of_products(device)
        bank_rounding, largest = 1.0001 * float(rounding.amax()), float(norms.amax())
        return cls(columns, basis, bank_rounding, largest, rotation_error, product_error)

    def query_side(self, rows: Tensor, norms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The queries' side of the product and what it may be off by.

        rows (Q, D) with norms (Q,), in the frame. Returns the side (K + extra, Q), e_q plus the largest e_b
        (Q,), and the absolute error (Q,) of the product.
        """
        dtype = self.columns.dtype
        coordinates = rows if self.basis is None else rows @ self.basis
        rounded = coordinates.to(dtype)
        squared = rounded.float().square().sum(1)
        rounding = _rounding(coordinates, rounded, norms, self.rotation_error)
        ones = torch.ones(len(rows), _pieces_of(dtype), dtype=dtype, device=rows.device)
        side = torch.cat([-2.0 * rounded, ones, _pieces(squared, dtype)], dim=1)
        error = self.product_error * 2.0 * (squared + self.largest)
        return side.T.contiguous(), 1.0001 * rounding + self.bank_rounding, error

    def limits(self, distances: Tensor, rounding: Tensor, error: Tensor) -> Tensor:
        """Comparable limits (Q,): a row whose bound is above its query's is farther than `distances` (Q,)."""
        last = 2.0**-7 if self.columns.dtype == torch.bfloat16 else 2.0**-21
        limit = ((distances * 1.00001 + rounding).square() + error) * (1.0 + last)
        return comparable(limit.to(self.columns.dtype))


def comparable(values: Tensor) -> Tensor:
    """bfloat16 as int16 bits, whose minima are several times faster; float32 as it is."""
    return values.view(torch.int16) if values.dtype == torch.bfloat16 else values


def _rounding(coordinates: Tensor, rounded: Tensor, norms: Tensor, rotation_error: float) -> Tensor:
    """How far rounded coordinates (R, K) may be from the true ones of rows with norms (R,): (R,)."""
    off = (coordinates - rounded.float()).norm(dim=1)
    return off + 1.01 * (rotation_error + 2 * UNIT32) * norms


def _pieces_of(dtype: torch.dtype) -> int:
    return PIECES if dtype == torch.bfloat16 else 1


def _pieces(norms: Tensor, dtype: torch.dtype) -> Tensor:
    """Squared norms (R,) as a sum of columns (R, pieces) of the product's type."""
    pieces = []
    for _ in range(_pieces_of(dtype)):
        pieces.append(norms.to(dtype))
        norms = norms - pieces[-1].to(norms.dtype)
    return torch.stack(pieces, dim=1)
