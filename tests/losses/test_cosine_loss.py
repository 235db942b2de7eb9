"""Cosine losses of maps against loops in float64, and what mining and its schedule do, exactly."""

from __future__ import annotations

import math

import pytest
import torch

from kizu.errors import ShapeError, UsageError
from kizu.losses.cosine import cosine, distance_map, easy_positions, hard_mining, mining_alpha


def maps(seed: int, shape: tuple[int, ...] = (3, 5, 4, 6)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cos(a: list[float], b: list[float]) -> float:
    dot = math.fsum(p * q for p, q in zip(a, b, strict=True))
    return dot / math.sqrt(math.fsum(p * p for p in a)) / math.sqrt(math.fsum(q * q for q in b))


def test_global_is_the_flattened_cosine() -> None:
    decoded, target = maps(0), maps(1)
    truth = [
        1 - cos(d.flatten().tolist(), t.flatten().tolist()) for d, t in zip(decoded, target, strict=True)
    ]
    assert cosine(decoded, target, reduction="none").tolist() == pytest.approx(truth, abs=1e-14)
    assert float(cosine(decoded, target)) == pytest.approx(math.fsum(truth) / 3, abs=1e-14)


def test_regional_is_the_mean_over_positions() -> None:
    decoded, target = maps(0), maps(1)
    grid = [
        [
            [1 - cos(decoded[b, :, y, x].tolist(), target[b, :, y, x].tolist()) for x in range(6)]
            for y in range(4)
        ]
        for b in range(3)
    ]
    expected = torch.tensor(grid, dtype=torch.float64)
    # Sums of 5 products of size <= 1 in float64, then a mean: a few dozen roundoffs of 1.1e-16.
    assert torch.allclose(distance_map(decoded, target), expected, atol=1e-14)
    assert cosine(decoded, target, scope="regional").item() == pytest.approx(
        expected.mean().item(), abs=1e-14
    )


def test_a_position_of_small_features_counts_little_globally() -> None:
    """What sets Eq. 3 apart from Eq. 2: a wrong direction where features are short hardly matters."""
    target = maps(1)
    target[:, :, 0, 0] *= 1e-3
    decoded = target.clone()
    decoded[:, :, 0, 0] *= -1
    assert cosine(decoded, target).item() < 1e-6
    assert cosine(decoded, target, scope="regional").item() == pytest.approx(2 / 24, rel=1e-9)


@pytest.mark.parametrize("scope", ["global", "regional"])
def test_gradients_are_right_and_stop_where_told(scope: str) -> None:
    decoded, target = maps(0, (2, 3, 2, 2)).requires_grad_(), maps(1, (2, 3, 2, 2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: cosine(a, b, scope=scope), (decoded, target))
    cosine(decoded, target, scope=scope, stop_gradient=True).backward()
    assert target.grad is None
    assert decoded.grad is not None


@pytest.mark.parametrize("alpha", [-3.0, -1.0, 0.0, 0.7, 1.0])
def test_mining_zeroes_exactly_the_easy_positions(alpha: float) -> None:
    decoded, target = maps(0).requires_grad_(), maps(1)
    distances = distance_map(decoded, target).detach()
    easy = distances < distances.mean() + alpha * math.sqrt(((distances - distances.mean()) ** 2).mean())
    plain = torch.autograd.grad(cosine(decoded, target), decoded)[0]
    kept = hard_mining(decoded, target, alpha)
    assert torch.equal(kept, decoded), "the value is untouched"
    got = torch.autograd.grad(cosine(kept, target), decoded)[0]
    assert torch.equal(got.abs().sum(1) == 0, easy)
    assert torch.equal(got, torch.where(easy[:, None], 0.0, plain)), (
        "hard positions keep the whole map's gradient"
    )
    assert torch.equal(easy, easy_positions(distances, alpha))


def test_mining_at_one_discards_what_table_a4_says() -> None:
    distances = torch.randn(4, 200, 200, generator=torch.Generator().manual_seed(2))
    for alpha, share in (
        (-2, 0.023),
        (-1, 0.159),
        (0, 0.5),
        (0.5, 0.691),
        (1, 0.841),
        (1.5, 0.933),
        (2, 0.977),
    ):
        assert easy_positions(distances, alpha).double().mean().item() == pytest.approx(share, abs=0.004)


def test_mining_where_all_is_alike_keeps_all() -> None:
    decoded = torch.ones(2, 3, 4, 4, requires_grad=True)
    kept = hard_mining(decoded, torch.tensor([1.0, -1.0, 2.0])[None, :, None, None].expand(2, 3, 4, 4), 0.0)
    cosine(kept, maps(3, (2, 3, 4, 4)).float()).backward()
    assert decoded.grad is not None
    assert (decoded.grad.abs().sum(1) > 0).all()


def test_alpha_reaches_one_at_a_tenth() -> None:
    for steps in (10, 1000, 2000, 3000, 2503):
        values = [mining_alpha(step, steps) for step in range(steps)]
        assert values[0] == -3
        assert all(value == 1 for value in values[math.ceil(steps / 10) :])
        assert all(value < 1 for value in values[: math.ceil(steps / 10)])
        assert values == sorted(values)
    assert mining_alpha(100, 2000) == -1
    assert mining_alpha(200, 2000) == 1
    assert mining_alpha(199, 2000) == pytest.approx(1 - 4 / 200)
    assert mining_alpha(0, 1) == -3
    assert mining_alpha(100, 1000, ramp=0.2) == -1
    assert mining_alpha(0, 10, ramp=0.0) == 1


def test_misuse_is_refused() -> None:
    with pytest.raises(ShapeError, match="target"):
        cosine(maps(0), maps(1)[:, :, :3])
    with pytest.raises(ShapeError, match="prediction"):
        cosine(maps(0)[0], maps(1)[0])
    with pytest.raises(UsageError, match="scope"):
        cosine(maps(0), maps(1), scope="local")
