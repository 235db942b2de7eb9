"""Gaussian random projection before the coreset: fewer dimensions, distances about kept."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from kizu.neighbours._checks import CHUNK, check_count, check_finite, check_rows, to_tensor

EPSILON = 0.9
"""Distortion of squared distances that "auto" allows; the value of anomalib's PatchCore
(SparseRandomProjection(eps=0.9))."""


def johnson_lindenstrauss(rows: int) -> int:
    """Dimensions that keep all squared distances of `rows` points within a factor 1 +- e, e = 0.9.

    floor(4 ln N / (e^2 / 2 - e^3 / 3)), at least 1. Source: S. Dasgupta, A. Gupta, An elementary proof of a
    theorem of Johnson and Lindenstrauss (2003), theorem 2.1.

    >>> johnson_lindenstrauss(80_000)
    278
    """
    return max(1, int(4 * math.log(rows) / (EPSILON**2 / 2 - EPSILON**3 / 3)))


def random_projection(
    features: Tensor, dimensions: int | Literal["auto"] = "auto", *, generator: torch.Generator
) -> Tensor:
    """Project features (N, D) to (N, d) with a random matrix that keeps squared distances in expectation.

    Its entries are drawn from N(0, 1/d). The same generator state gives the same matrix on every device. The
    result is float32, or float64 for float64 features.

    Args:
        features: tensor of any floating type or NumPy array.
        dimensions: d, or "auto" for the Johnson-Lindenstrauss number of N rows at distortion 0.9; where that
        is not
            below D, "auto" returns the features as they are.
        generator: draws the matrix.

    Raises:
        UsageError: d outside 1..D. ShapeError: features are not (N, D). NotFinite: they hold NaN or infinity.

    >>> rows = torch.ones(10, 64)
    >>> random_projection(rows, 8, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([10, 8])
    """
    features = to_tensor("features", features)
    check_rows("features", features)
    working = torch.promote_types(features.dtype, torch.float32)
    size = features.shape[1]
    if dimensions == "auto":
        dimensions = johnson_lindenstrauss(len(features))
        if dimensions >= size:
            return features.to(working)
    check_count("dimensions", dimensions, 1, size, "features of a row")
    check_finite("features", features)
    matrix = torch.randn((size, dimensions), generator=generator, device=generator.device) / dimensions**0.5
    matrix = matrix.to(features.device, working)
    return torch.cat([part.to(working) @ matrix for part in features.split(CHUNK)])
