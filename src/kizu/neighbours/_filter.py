"""Distances that may be trusted: fast products with a proven margin, float64 direct differences to settle
what the margin leaves open.

A frame shifts the rows by their mean and scales them by a power of two, so that no square overflows and the
norms are small. In it

    |a - b|^2 = |a|^2 - 2 (a.b - |b|^2 / 2)

and the bracket is one product of (a, 1) and (b, -|b|^2/2). With unit roundoff u and D terms in any order of
summation the computed value is off by at most (D + 16) u (|a|^2 + 2 max |b|^2): N. Higham, Accuracy and
stability of numerical algorithms, section 3.1, for the product, plus a few roundings of inputs and norms, for
which the 16 has room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

UNIT32, UNIT64 = 2.0**-24, 2.0**-53
REDUCED = 2.0**-7
"""Relative error allowed when products round their inputs (TF32, bfloat16), which a program may have switched
on."""
VAST = 2.0**25
"""Norm from which a query is left to float64 products."""
CHUNK = 8192


@dataclass(frozen=True)
class Frame:
    """Shift `mean` (D,), power-of-two `scale`, `largest` squared norm in the frame, `relative` error factor
    of a product."""

    mean: Tensor
    scale: float
    largest: float
    relative: float

    @classmethod
    def of(cls, features: Tensor) -> Frame:
        """The frame of rows (N, D)."""
        size = features.shape[1]
        peak = max(float(part.abs().amax()) for part in features.split(CHUNK))
        scale = power_of_two(peak)
        total = torch.zeros(size, dtype=torch.float64, device=features.device)
        for part in features.split(CHUNK):
            total += (part * scale).sum(0, dtype=torch.float64)
        mean = (total / len(features)).to(_working(features))
        frame = cls(mean, scale, 0.0, 0.0)
        largest = max(float(squared_norms(frame.shift(part)).amax()) for part in features.split(CHUNK))
        return cls(mean, scale, largest, (size + 16) * UNIT32 + rounding_of_products(features.device))

    def shift(self, features: Tensor) -> Tensor:
        """Rows (R, D) in the frame, float32; each element is off by at most one relative rounding."""
        working = features.to(self.mean.dtype)
        return ((working if self.scale == 1.0 else working * self.scale) - self.mean).float()

    def margin(self, norms: Tensor) -> Tensor:
        """How far the squared distances of rows with squared norms (R,) may be off, in float64."""
        return self.relative * (norms + 2.0 * self.largest)

    def rows64(self, features: Tensor, index: np.ndarray) -> np.ndarray:
        """Rows `index` in float64 on the host, scaled but not shifted: both steps are exact."""
        chosen = features[torch.as_tensor(index, device=features.device)]
        return (chosen.to(torch.float64) * self.scale).cpu().numpy()

    def direct(self, features: Tensor, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Squared distances (M,) of row pairs by direct difference in float64."""
        step = max(1, 2**20 // features.shape[1])
        parts = [
            np.square(
                self.rows64(features, left[k : k + step]) - self.rows64(features, right[k : k + step])
            ).sum(1)
            for k in range(0, len(left), step)
        ]
        return np.concatenate(parts) if parts else np.empty(0)


def as_rows(rows: Tensor) -> Tensor:
    """(R, D) -> (R, D+1): a one behind each row."""
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)


def as_columns(rows: Tensor) -> Tensor:
    """(M, D) -> (M, D+1): minus half the squared norm behind each row."""
    return torch.cat([rows, (-0.5 * squared_norms(rows)).to(rows.dtype)[:, None]], dim=1)


def close_pairs(frame: Frame, rows: Tensor, norms: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs (row, column) that may be the row's nearest, of rows (R, D) with squared norms (R,) and of
    `as_columns` (M, D+1)."""
    products = as_rows(rows) @ columns.T
    least = products.amax(1).double() - frame.margin(norms)
    left, right = (
        products >= least.float().nextafter(least.new_tensor(-torch.inf).float())[:, None]
    ).nonzero(as_tuple=True)
    if len(left) <= 4 * len(rows):
        return left, right
    return _closer(rows, norms, columns[:, :-1], left, right, frame)


def _closer(
    rows: Tensor, norms: Tensor, columns: Tensor, left: Tensor, right: Tensor, frame: Frame
) -> tuple[Tensor, Tensor]:
    """The same pairs, thinned by float64 differences in the frame, whose only errors are the roundings of its
    float32 rows."""
    step = max(1, 2**20 // rows.shape[1])
    pieces = zip(left.split(step), right.split(step), strict=True)
    squared = torch.cat([(rows[a].double() - columns[b].double()).square_().sum(1) for a, b in pieces])
    best = torch.full((len(rows),), torch.inf, dtype=torch.float64, device=rows.device).scatter_reduce(
        0, left, squared, "amin"
    )
    limit = (best.sqrt() + 8 * UNIT32 * (norms.sqrt() + frame.largest**0.5)).square()
    keep = squared <= limit[left]
    return left[keep], right[keep]


def batches(total: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover range(total)."""
    for first in range(0, total, size):
        yield slice(first, min(first + size, total))


def rounding_of_products(device: torch.device) -> float:
    """0 where float32 products keep float32 inputs, REDUCED where the running program let them be rounded
    (tried on a product)."""
    probe = torch.full((256, 256), 1.0 + 2.0**-13, device=device)
    exact = torch.diag(torch.ones(256, device=device))
    return 0.0 if bool(((probe @ exact) == probe).all()) else REDUCED


def power_of_two(peak: float) -> float:
    """A factor that brings `peak` near 1, or 1 itself where squares are safe without."""
    return 1.0 if peak == 0 or 2.0**-24 < peak < 2.0**24 else 2.0 ** -int(np.frexp(peak)[1])


def squared_norms(rows: Tensor) -> Tensor:
    """Squared norms (R,) of rows (R, D), summed in float64."""
    return rows.double().square().sum(1)


def _working(features: Tensor) -> torch.dtype:
    return torch.float64 if features.dtype == torch.float64 else torch.float32
