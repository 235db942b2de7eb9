"""Random projection before the coreset: fewer dimensions, distances about kept."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from kizu.errors import UsageError
from kizu.neighbours._checks import CHUNK, check_count, check_finite, check_rows, to_tensor

EPSILON = 0.9
"""Distortion of squared distances that "auto" allows; the value of anomalib's PatchCore
(SparseRandomProjection(eps=0.9))."""


def johnson_lindenstrauss(rows: int) -> int:
    """Dimensions that keep all squared distances of `rows` points within 1 +- 0.9: floor(4 ln N / (e^2/2 -
    e^3/3)), 278 for N = 80,000.

    Source: S. Dasgupta, A. Gupta, An elementary proof of a theorem of Johnson and Lindenstrauss (2003),
    theorem 2.1."""
    return max(1, int(4 * math.log(rows) / (EPSILON**2 / 2 - EPSILON**3 / 3)))


def random_projection(
    features: Tensor,
    dimensions: int | Literal["auto"] = "auto",
    *,
    generator: torch.Generator,
    kind: Literal["gaussian", "sparse"] = "gaussian",
) -> Tensor:
    """Project features (N, D) to (N, d) with a random matrix whose expectation keeps squared distances;
    float32 (float64 stays).

    dimensions: d, or "auto" for the Johnson-Lindenstrauss number of N rows at distortion 0.9. Where d is not
    below D, "auto" returns the features as they are. kind "gaussian": entries N(0, 1/d); "sparse": 0 or
    +-sqrt(s/d) with probability 1/s of not being 0, s = sqrt(D) (P. Li et al., Very sparse random
    projections, 2006). Same generator state, same matrix on every device.

    Raises UsageError for d outside 1..D or an unknown kind, ShapeError unless (N, D), NotFinite for NaN or
    infinity."""
    features = to_tensor("features", features)
    check_rows("features", features)
    if kind not in ("gaussian", "sparse"):
        raise UsageError(f"kind must be 'gaussian' or 'sparse', got {kind!r}.")
    working = torch.promote_types(features.dtype, torch.float32)
    size = features.shape[1]
    if dimensions == "auto":
        dimensions = johnson_lindenstrauss(len(features))
        if dimensions >= size:
            return features.to(working)
    check_count("dimensions", dimensions, 1, size, "features of a row")
    check_finite("features", features)
    matrix = _matrix(size, dimensions, kind, generator).to(features.device, working)
    result = torch.empty((len(features), dimensions), dtype=working, device=features.device)
    for start in range(0, len(features), CHUNK):
        result[start : start + CHUNK] = features[start : start + CHUNK].to(working) @ matrix
    return result


def _matrix(size: int, dimensions: int, kind: str, generator: torch.Generator) -> Tensor:
    shape = (size, dimensions)
    if kind == "gaussian":
        return torch.randn(shape, generator=generator, device=generator.device) / dimensions**0.5
    sparsity = size**0.5
    draw = torch.rand(shape, generator=generator, device=generator.device)
    signs = (draw < 0.5 / sparsity).float() - (draw > 1 - 0.5 / sparsity).float()
    return signs * (sparsity / dimensions) ** 0.5
