"""Randomness of the views: every image uses the same number of uniform draws, one row of a table.

With a CPU generator the rows are drawn one after the other, so a batch gets the draws that its images would
get one by one. All parameters of a view are computed from these rows on the CPU in float64: the device that
the images are on does not change what happens to them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kizu.checks import numbers
from kizu.errors import UsageError

Range = tuple[float, float]
Draws = torch.Generator | Sequence[torch.Generator]
"""One generator for the batch, or one for each image; with the latter, an image's draws do not depend on
the other images."""


def uniforms(generator: Draws, count: int, columns: int) -> Tensor:
    """(count, columns) float64 in [0, 1) on the CPU.

    Raises UsageError unless `generator` is a torch.Generator or a list of `count` of them."""
    if isinstance(generator, (list, tuple)):
        if len(generator) != count:
            raise UsageError(f"One generator for each image: {count} are needed, got {len(generator)}.")
        return torch.cat([uniforms(one, 1, columns) for one in generator])
    if not isinstance(generator, torch.Generator):
        raise UsageError(
            "generator must be a torch.Generator, such as torch.Generator().manual_seed(0), got "
            f"{type(generator).__name__}."
        )
    dtype = torch.float32 if generator.device.type == "mps" else torch.float64
    return (
        torch.rand(count, columns, generator=generator, device=generator.device, dtype=dtype).cpu().double()
    )


def between(u: Tensor, limits: Range) -> Tensor:
    """Uniform in [low, high)."""
    low, high = limits
    return low + (high - low) * u


def log_between(u: Tensor, limits: Range) -> Tensor:
    """Uniform in the logarithm, so that 1/2 and 2 are equally likely."""
    return between(u, (math.log(limits[0]), math.log(limits[1]))).exp()


def below(u: Tensor, count: Tensor) -> Tensor:
    """Whole numbers 0 ... count - 1, int64, equally likely."""
    return torch.minimum((u * count).long(), count - 1)


def check_range(name: str, limits: Range, low: float, high: float) -> None:
    """Raise UsageError unless low <= limits[0] <= limits[1] <= high."""
    if not isinstance(limits, (tuple, list)) or len(limits) != 2:
        raise UsageError(f"{name} must be a pair (from, to), got {limits!r}.")
    for limit in limits:
        numbers(least=low, most=high, above=False, **{name: limit})
    if limits[0] > limits[1]:
        raise UsageError(f"{name} must be (from, to) with {low:g} <= from <= to <= {high:g}, got {limits}.")
