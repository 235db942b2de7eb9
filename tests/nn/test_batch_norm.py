"""The batch norm with a floor: torch's own where variances are large, the pretrained variance where they are
not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kizu.nn.batch_norm import FLOOR, StableBatchNorm2d, floored, stabilise, unstabilise


def norm(channels: int = 3, variance: float = 1.0) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(channels).double()
    with torch.no_grad():
        made.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
        made.bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
        made.running_var.fill_(variance)
    return made


def values(seed: int = 0, shape: tuple[int, ...] = (4, 3, 5, 6)) -> torch.Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 1


def test_the_floor_is_appendix_e() -> None:
    variance = torch.tensor([1e-5, 1e-5, 4.9e-4, 5.1e-4, 0.3, 2e-4])
    reference = torch.tensor([0.2, 1e-6, 3.0, 3.0, 9.0, 1e-4])
    assert torch.equal(floored(variance, reference), torch.tensor([0.2, 1e-5, 3.0, 5.1e-4, 0.3, 2e-4]))
    assert FLOOR == 5e-4


def test_it_is_torchs_where_variances_are_large() -> None:
    plain, x = norm(), values()
    stable = StableBatchNorm2d.of(norm())
    for seed in range(3):
        assert torch.allclose(stable(values(seed)), plain(values(seed)), atol=1e-6)
    assert torch.allclose(stable.running_mean, plain.running_mean, atol=1e-6)
    assert torch.allclose(stable.running_var, plain.running_var, atol=1e-5)
    assert stable.num_batches_tracked == 3
    assert torch.equal(
        stable.eval()(x),
        nn.functional.batch_norm(x, stable.running_mean, stable.running_var, stable.weight, stable.bias),
    )


def test_a_dead_channel_is_not_blown_up() -> None:
    x = values()
    x[:, 1] = 1 + 1e-6 * x[:, 1]
    plain, stable = norm(), StableBatchNorm2d.of(norm())
    dull, lively = stable(x)[:, 1].detach(), plain(x)[:, 1].detach()
    assert (dull - stable.bias[1]).abs().max() < 1e-4
    assert lively.std() > 100 * dull.std()
    expected = (x[:, 1] - x[:, 1].mean()) / (1 + stable.eps) ** 0.5 * stable.weight[1] + stable.bias[1]
    assert torch.allclose(dull, expected.detach(), atol=1e-6)
    assert stable.running_var[1] == pytest.approx(1.0, abs=0.01), (
        "running statistics take the variance that was used"
    )


def test_half_precision_inputs_are_normalised_in_full() -> None:
    """A mean far above the deviation, where products in bfloat16 would cancel to noise."""
    x = (values() * 0.02 + 3).bfloat16()
    stable = StableBatchNorm2d.of(norm(variance=4e-4)).float()
    got = stable(x)
    assert got.dtype == torch.bfloat16
    weight, bias = stable.weight.detach().double(), stable.bias.detach().double()
    exact = nn.functional.batch_norm(x.double(), None, None, weight, bias, training=True)
    # The result is rounded to bfloat16 (2^-8 of itself). Before that, mean and variance are float32 sums over
    # n values that stand far from 0: each moves a normalised value by n 2^-24 |x| / deviation at most.
    n, deviation = x[:, 0].numel(), x.double().std(dim=(0, 2, 3)).min()
    bound = 2**-8 * exact.abs() + 2 * n * 2**-24 * x.abs().max() / deviation * weight.max()
    assert ((got.detach().double() - exact).abs() <= bound).all()
    assert bound.max() < 0.05  # it still says something


def test_gradients() -> None:
    x = values(shape=(2, 3, 3, 2))
    x[:, 1] = 1 + 1e-3 * x[:, 1]
    stable = StableBatchNorm2d.of(norm())
    leaf = x.clone().requires_grad_()
    (stable(leaf) * values(1, (2, 3, 3, 2))).sum().backward()
    twin = x.clone().requires_grad_()
    flat = twin.transpose(0, 1).flatten(1)
    used = floored(flat.var(1, correction=0), stable.reference)
    shaped = [
        part[None, :, None, None]
        for part in (flat.mean(1), used, stable.weight.detach(), stable.bias.detach())
    ]
    made = (twin - shaped[0]) / (shaped[1] + stable.eps).sqrt() * shaped[2] + shaped[3]
    (made * values(1, (2, 3, 3, 2))).sum().backward()
    assert torch.allclose(leaf.grad, twin.grad, atol=1e-6)


def test_there_and_back_changes_nothing_but_the_class() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()))
    names, parameters = list(net.state_dict()), [id(parameter) for parameter in net.parameters()]
    stabilise(net)
    assert [type(module) for module in net.modules()].count(StableBatchNorm2d) == 2
    assert list(net.state_dict()) == names
    net.train()(torch.rand(2, 3, 4, 4))
    known = {name: value.clone() for name, value in net.state_dict().items()}
    unstabilise(net)
    assert [type(module) for module in net.modules()].count(nn.BatchNorm2d) == 2
    assert [id(parameter) for parameter in net.parameters()] == parameters
    assert all(torch.equal(value, known[name]) for name, value in net.state_dict().items())
    assert net[1].training
