"""Linear interpolation along one side, as a matrix."""

from __future__ import annotations

import torch
from torch import Tensor


def interpolation(size: int, places: Tensor) -> Tensor:
    """Weights (n, size) float64 of linear interpolation between `size` values, at n places counted in values;
    beyond the first and the last value it is constant.

    >>> interpolation(3, torch.tensor([-1.0, 0.25, 2.0]))
    tensor([[1.0000, 0.0000, 0.0000],
            [0.7500, 0.2500, 0.0000],
            [0.0000, 0.0000, 1.0000]], dtype=torch.float64)
    """
    values = torch.arange(size, dtype=torch.float64)
    inside = places.double().clamp(0, size - 1)
    return (1.0 - (inside[:, None] - values).abs()).clamp_min(0.0)
