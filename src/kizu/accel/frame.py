"""Rows shifted and scaled so that float32 arithmetic on them is safe and its error known.

Squared distances by one matrix product,

    |a - b|^2 = |a|^2 - 2 (a.b - |b|^2 / 2),

are off by the rounding of terms as large as the squared norms. Shifting all rows by their mean makes the
norms small; scaling them by a power of two keeps every square inside the range of float32. With unit roundoff
u = 2^-24 and D terms in any order of summation, the computed value is off by at most (D + 16) u (|a|^2 + 2
max |b|^2): N. Higham, Accuracy and stability of numerical algorithms, section 3.1, for the product; the 16
covers the roundings of inputs and norms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kizu.engine import thread_map

UNIT32 = 2.0**-24
"""Unit roundoff of float32."""
REDUCED = 2.0**-7
"""Relative error of products whose inputs are rounded (TF32, bfloat16), as a program may have set."""
CHUNK = 8192
"""Rows handled at once where nothing of the size of all rows may be allocated."""


@dataclass(frozen=True)
class Frame:
    """What maps a row x to its frame, `scale` * x - `mean`, and what is known of the rows it was computed
    from.

    mean (D,), float32 or float64: their mean, scaled. scale: a power of two, 1.0 for ordinary numbers.
    largest: their largest squared norm in the frame. relative: error of a squared distance as a product, as a
    share of |a|^2 + 2 max |b|^2.
    """

    mean: Tensor
    scale: float
    largest: float
    relative: float

    @classmethod
    def of(cls, features: Tensor) -> Frame:
        """The frame of rows (N, D)."""
        size, parts = features.shape[1], features.split(CHUNK)
        threads = None if features.device.type == "cpu" else 1
        scale = power_of_two(max(thread_map(lambda part: float(part.abs().amax()), parts, threads=threads)))
        sums = thread_map(lambda part: (part * scale).sum(0, dtype=torch.float64), parts, threads=threads)
        total = torch.stack(sums).sum(0)
        working = torch.float64 if features.dtype == torch.float64 else torch.float32
        mean = (total / len(features)).to(working)
        shifted = cls(mean, scale, 0.0, 0.0)
        norms = thread_map(lambda part: squared_norms(shifted.shift(part)).amax(), parts, threads=threads)
        largest = max(float(norm) for norm in norms)
        relative = (size + 16) * UNIT32 + rounding_of_products(features.device)
        return cls(mean, scale, largest, relative)

    def shift(self, features: Tensor) -> Tensor:
        """Rows (R, D) in the frame, float32; each number is off by at most one relative rounding."""
        working = features.to(self.mean.dtype)
        return ((working if self.scale == 1.0 else working * self.scale) - self.mean).float()

    def margin(self, norms: Tensor) -> Tensor:
        """How far squared distances by products may be off (R,), float64, for rows of squared norms (R,)."""
        return self.relative * (norms + 2.0 * self.largest)


def rounding_of_products(device: torch.device) -> float:
    """0 where float32 products keep their inputs, REDUCED where the program lets them be rounded (tried)."""
    probe = torch.full((256, 256), 1.0 + 2.0**-13, device=device)
    identity = torch.diag(torch.ones(256, device=device))
    return 0.0 if bool(((probe @ identity) == probe).all()) else REDUCED


def power_of_two(peak: float) -> float:
    """A factor that brings `peak` near 1, or 1 itself where squares are safe without."""
    return 1.0 if peak == 0 or 2.0**-24 < peak < 2.0**24 else math.ldexp(1.0, min(1000, -math.frexp(peak)[1]))


def squared_norms(rows: Tensor) -> Tensor:
    """Squared norms (R,) of rows (R, D), summed in float64."""
    return rows.double().square().sum(1)
