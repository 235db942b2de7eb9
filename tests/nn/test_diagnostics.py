"""Feature diversity at its closed forms; the landscape's directions and that weights come home."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from kizu.nn.diversity import feature_diversity
from kizu.nn.landscape import filter_normalised_direction, landscape


def test_diversity_at_its_ends() -> None:
    assert feature_diversity(
        torch.ones(3, 7, 4, 4) * torch.rand(3, 1, 4, 4).add(0.1)
    ).item() == pytest.approx(0, abs=1e-6)
    even = torch.randn(8, 64, 16, 16, generator=torch.Generator().manual_seed(0))
    assert feature_diversity(even).item() == pytest.approx(1 / math.sqrt(64), rel=0.01)
    assert feature_diversity(5 * even).item() == pytest.approx(feature_diversity(even).item(), rel=1e-5)


def test_diversity_against_numpy() -> None:
    level = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    rows = level.permute(0, 2, 3, 1).reshape(-1, 3).numpy()
    unit = rows / (rows**2).sum(1, keepdims=True) ** 0.5
    assert feature_diversity(level).item() == pytest.approx(unit.std(0).mean(), rel=1e-5)


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ConvTranspose2d(4, 2, 2, stride=2),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def test_directions_have_the_filters_norms() -> None:
    made = net()
    found = filter_normalised_direction(made, torch.Generator().manual_seed(0))
    assert set(found) == {"0.weight", "2.weight", "4.weight"}, "biases and norms stay"
    for name, dim in (("0.weight", 0), ("2.weight", 1), ("4.weight", 0)):
        weight = made.get_parameter(name)
        rows = [value.transpose(0, dim).flatten(1).norm(dim=1) for value in (found[name], weight.detach())]
        assert torch.allclose(rows[0], rows[1], rtol=1e-5)
    again = filter_normalised_direction(made, torch.Generator().manual_seed(0))
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_the_landscape_of_a_known_function() -> None:
    """|w|^2 along two directions is a paraboloid that the directions' products give."""
    made = nn.Sequential(nn.Linear(4, 3, bias=False)).double()
    home = made[0].weight.detach().clone()

    def measure() -> float:
        return float(made[0].weight.square().sum())

    offsets, values = landscape(
        made, measure, distance=2.0, steps=5, generator=torch.Generator().manual_seed(7)
    )
    generator = torch.Generator().manual_seed(7)
    first, second = (filter_normalised_direction(made, generator)["0.weight"] for _ in range(2))
    assert offsets.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    for i, a in enumerate(offsets.tolist()):
        for j, b in enumerate(offsets.tolist()):
            assert values[i, j].item() == pytest.approx(
                float((home + a * first + b * second).square().sum()), rel=1e-9
            )
    assert torch.equal(made[0].weight, home)


def test_weights_come_home_after_a_failure() -> None:
    made = net()
    before = {name: value.clone() for name, value in made.state_dict().items()}

    def fail() -> float:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        landscape(made, fail, steps=2, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
