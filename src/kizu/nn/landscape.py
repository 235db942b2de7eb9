"""A function of a network's weights on a plane through them, along two random filter-normalised directions.

Li et al., Visualizing the Loss Landscape of Neural Nets, NeurIPS 2018, section 4: each filter of a random
Gaussian direction is scaled to the norm of the filter that it moves; biases and norms do not move.
ReContrast's figure 4 draws the mean anomaly map this way with distance 1 and 50 steps a side."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


@torch.no_grad()
def filter_normalised_direction(net: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """One tensor a weight of two dimensions or more, by name; each output filter has the norm of the
    weight's."""
    found = {}
    for name, weight in net.named_parameters():
        if weight.ndim < 2:
            continue
        drawn = torch.randn(weight.shape, generator=generator).to(weight)
        dim = 1 if isinstance(_owner(net, name), nn.ConvTranspose2d) else 0
        rest = [other for other in range(weight.ndim) if other != dim]
        found[name] = drawn * _norm(weight, rest) / _norm(drawn, rest).clamp(min=1e-12)
    return found


@torch.no_grad()
def landscape(
    net: nn.Module,
    measure: Callable[[], float],
    *,
    distance: float = 1.0,
    steps: int = 50,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """(offsets (steps,), values (steps, steps)): `measure()` at weights + offset_i * first + offset_j *
    second direction.

    distance: offsets go from -distance / 2 to distance / 2, in units of the filters' own norms. measure reads
    `net`, whose weights are moved for the call and put back at the end, whatever happens. values are float64.
    """
    first, second = (filter_normalised_direction(net, generator) for _ in range(2))
    weights = {name: weight for name, weight in net.named_parameters() if name in first}
    start_weights = {name: weight.detach().clone() for name, weight in weights.items()}
    offsets = torch.linspace(-distance / 2, distance / 2, steps, dtype=torch.float64)
    values = torch.empty(steps, steps, dtype=torch.float64)
    try:
        for i, a in enumerate(offsets.tolist()):
            for j, b in enumerate(offsets.tolist()):
                for name, weight in weights.items():
                    weight.copy_(start_weights[name] + a * first[name] + b * second[name])
                values[i, j] = measure()
    finally:
        for name, weight in weights.items():
            weight.copy_(start_weights[name])
    return offsets, values


def _owner(net: nn.Module, parameter: str) -> nn.Module:
    return net.get_submodule(parameter.rpartition(".")[0])


def _norm(values: Tensor, dims: list[int]) -> Tensor:
    return values.square().sum(dims, keepdim=True).sqrt()
