"""Normalising flows in float64: log-determinants beside autograd's Jacobian, densities by closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kizu.errors import UsageError
from kizu.nn.flows import (
    Flow,
    Subnet,
    conditional_flow,
    log_normal,
    permuted_flow,
    position_encoding,
    random_rotation,
)

CONDITION = 4


@pytest.fixture
def _in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def conditional(D: int, blocks: int = 3) -> Flow:
    return conditional_flow(D, condition=CONDITION, blocks=blocks, clamp=1.9)


def permuted(D: int, blocks: int = 3) -> Flow:
    return permuted_flow(D, blocks=blocks, clamp=3.0, width=7, layers=2)


def made(make: Callable[..., Flow], D: int, seed: int = 0, strength: float = 0.5, **more: int) -> Flow:
    """A flow whose every learned number is moved away from where it starts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = make(D, **more)
        with torch.no_grad():
            for parameter in flow.parameters():
                if parameter.requires_grad:
                    parameter += strength * torch.randn_like(parameter)
    return flow


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def condition_for(make: Callable[..., Flow], x: Tensor) -> Tensor | None:
    return drawn(len(x), CONDITION, seed=2) if make is conditional else None


@pytest.mark.usefixtures("_in_float64")
@pytest.mark.parametrize("D", [2, 5, 6])
@pytest.mark.parametrize("make", [conditional, permuted])
def test_the_log_determinant_is_that_of_autograds_jacobian(make: Callable[..., Flow], D: int) -> None:
    flow, x = made(make, D), drawn(3, D)
    condition = condition_for(make, x)
    _, log_determinant = flow(x, condition)
    for row in range(len(x)):
        own = None if condition is None else condition[row : row + 1]
        jacobian = torch.autograd.functional.jacobian(lambda v, own=own: flow(v[None], own)[0][0], x[row])
        assert log_determinant[row].item() == pytest.approx(
            torch.linalg.slogdet(jacobian)[1].item(), abs=1e-8
        )
    assert log_determinant.abs().max() > 0.05


@pytest.mark.usefixtures("_in_float64")
@pytest.mark.parametrize("D", [2, 5])
@pytest.mark.parametrize("make", [conditional, permuted])
def test_it_can_be_inverted(make: Callable[..., Flow], D: int) -> None:
    flow, x = made(make, D), drawn(20, D)
    condition = condition_for(make, x)
    z, _ = flow(x, condition)
    assert (z - x).abs().max() > 0.1
    assert torch.allclose(flow.inverse(z, condition), x, atol=1e-9)


@pytest.mark.usefixtures("_in_float64")
@pytest.mark.parametrize("make", [conditional, permuted])
def test_a_density_of_two_dimensions_integrates_to_one(make: Callable[..., Flow]) -> None:
    flow = made(make, 2, strength=0.25)
    own = None if make is permuted else drawn(1, CONDITION, seed=2)
    normal = drawn(4000, 2)
    x = flow.inverse(normal, None if own is None else own.expand(len(normal), -1)).detach()
    low, high = x.amin(0), x.amax(0)
    low, high = low - 0.5 * (high - low), high + 0.5 * (high - low)
    axes = [torch.linspace(float(a), float(b), 601) for a, b in zip(low, high, strict=True)]
    grid = torch.cartesian_prod(*axes)
    with torch.no_grad():
        density = flow.log_likelihood(grid, None if own is None else own.expand(len(grid), -1)).exp()
    cell = math.prod(float(axis[1] - axis[0]) for axis in axes)
    assert float(density.sum()) * cell == pytest.approx(1.0, abs=2e-3)


@pytest.mark.usefixtures("_in_float64")
def test_without_couplings_the_density_is_a_normal_distribution() -> None:
    """With sub-networks that give 0 every block is linear: x = A z + b."""
    flow = made(conditional, 4)
    with torch.no_grad():
        for module in flow.modules():
            if isinstance(module, nn.Linear):
                module.weight.zero_(), module.bias.zero_()
    x, condition = drawn(6, 4), drawn(6, CONDITION)
    zero = flow.inverse(torch.zeros(1, 4), condition[:1])
    A = (flow.inverse(torch.eye(4), condition[:1].expand(4, -1)) - zero).T
    expected = torch.distributions.MultivariateNormal(zero[0], A @ A.T).log_prob(x)
    assert torch.allclose(flow.log_likelihood(x, condition), expected, atol=1e-10)


@pytest.mark.usefixtures("_in_float64")
def test_a_block_of_differnet_by_hand() -> None:
    """Permutation, then either half by the other, with the released clamp 3 x 0.636 atan(s / 3)."""
    flow, x = made(permuted, 5, strength=2.0, blocks=1), drawn(3, 5)
    permutation, block = flow.sequence
    turned = x[:, permutation.perm]
    first, second = turned[:, :2], turned[:, 2:]

    def affine(values: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        n = values.shape[1]
        log_scale = 3.0 * 0.636 * torch.atan(given[:, :n] / 3.0)
        return log_scale.exp() * values + given[:, n:], log_scale.sum(1)

    first, one = affine(first, block.subnet2(second))
    second, other = affine(second, block.subnet1(first))
    z, log_determinant = flow(x)
    assert torch.allclose(z, torch.cat([first, second], 1))
    assert torch.allclose(log_determinant, one + other)
    assert log_determinant.abs().max() > 1.0


@pytest.mark.usefixtures("_in_float64")
def test_a_block_of_cflow_by_hand() -> None:
    """Coupling with clamp 1.9 tanh and a condition, scale by 0.1 softplus, offset, rotation."""
    flow, x, condition = made(conditional, 5, blocks=1), drawn(3, 5), drawn(3, CONDITION, seed=2)
    (block,) = flow.sequence
    first, second = x[:, :3], x[:, 3:]
    given = 0.1 * block.subnet(torch.cat([first, condition], 1))
    log_scale = 1.9 * torch.tanh(given[:, :2])
    second = second * log_scale.exp() + given[:, 2:]
    scale = 0.1 * 2.0 * torch.log1p((0.5 * block.global_scale).exp())
    z = (torch.cat([first, second], 1) * scale + block.global_offset) @ block.w_perm.T
    got, log_determinant = flow(x, condition)
    assert torch.allclose(got, z)
    assert torch.allclose(log_determinant, log_scale.sum(1) + scale.log().sum())
    widths = [
        (module.in_features, module.out_features)
        for module in block.subnet.layers
        if hasattr(module, "in_features")
    ]
    assert widths == [(7, 14), (14, 4)]


def test_the_normal_density_beside_torchs() -> None:
    z = drawn(5, 7)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    assert torch.allclose(log_normal(z), expected.double())


@pytest.mark.usefixtures("_in_float64")
def test_rotations_are_orthogonal_and_of_all_directions() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        many = torch.stack([random_rotation(3) for _ in range(2000)])
    assert torch.allclose(many @ many.mT, torch.eye(3).expand(2000, 3, 3), atol=1e-12)
    assert many.mean(0).abs().max() < 5 / math.sqrt(3 * 2000)  # of plain QR, entries have a sign


@pytest.mark.parametrize("make", [conditional, permuted])
def test_one_seed_decides_over_the_whole_flow(make: Callable[..., Flow]) -> None:
    first, same, other = (made(make, 9, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], same[name]) for name in first)
    fixed = [name for name in first if "perm" in name]
    assert fixed
    assert not any(torch.equal(first[name], other[name]) for name in fixed)


@pytest.mark.parametrize("make", [conditional, permuted])
def test_numpys_generator_is_left_alone(make: Callable[..., Flow]) -> None:
    state = np.random.get_state()
    expected = np.random.random(3)
    np.random.set_state(state)
    made(make, 9)
    assert (np.random.random(3) == expected).all()


@pytest.mark.parametrize("make", [conditional, permuted])
def test_shapes_without_memory(make: Callable[..., Flow]) -> None:
    """As a model file is compared with its shapes."""
    with torch.device("meta"):
        planned = make(9).state_dict()
    assert {name: tensor.shape for name, tensor in planned.items()} == {
        name: tensor.shape for name, tensor in make(9).state_dict().items()
    }
    assert all(tensor.is_meta for tensor in planned.values())
    assert not any("w_perm_inv" in name for name in planned), "the inverse is not stored"


@pytest.mark.parametrize("make", [conditional, permuted])
def test_under_autocast_only_sub_networks_are_rounded(make: Callable[..., Flow]) -> None:
    flow, seen = made(make, 32, strength=0.02, blocks=8), []
    for module in flow.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    x = drawn(64, 32).float()
    condition = None if make is permuted else drawn(64, CONDITION).float()
    with torch.no_grad():
        plain = flow.log_likelihood(x, condition)
        seen.clear()
        with torch.autocast("cpu", torch.bfloat16):
            half = flow.log_likelihood(x, condition)
    assert set(seen) == {torch.bfloat16}
    assert half.dtype == torch.float32
    assert not torch.equal(half, plain)
    assert (half - plain).abs().mean() < 2e-3 * 32  # nats; with all in bfloat16 several times that


def test_a_sub_network_keeps_the_type() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert Subnet(3, 2, width=4, layers=2)(torch.zeros(1, 3)).dtype == torch.float32


def test_position_code_by_its_formula() -> None:
    h, w, D = 3, 5, 12
    code = position_encoding(h, w, D)
    assert code.shape == (D, h, w)
    for row in range(h):
        for column in range(w):
            for k in range(D // 4):
                frequency = 10000 ** (-2 * k / (D / 2))
                values = [
                    math.sin(frequency * column), math.cos(frequency * column),
                    math.sin(frequency * row), math.cos(frequency * row),
                ]  # fmt: skip
                got = code[[2 * k, 2 * k + 1, D // 2 + 2 * k, D // 2 + 2 * k + 1], row, column]
                assert torch.allclose(got, torch.tensor(values), atol=1e-6)


@pytest.mark.parametrize("D", [0, 2, 6])
def test_a_position_code_has_a_multiple_of_four(D: int) -> None:
    with pytest.raises(UsageError, match="multiple of 4"):
        position_encoding(2, 2, D)


@pytest.mark.parametrize("make", [conditional, permuted])
def test_one_channel_cannot_be_coupled(make: Callable[..., Flow]) -> None:
    with pytest.raises(UsageError, match="at least 2 channels"):
        make(1)
