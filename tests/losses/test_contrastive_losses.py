"""The losses of embeddings against loops over the printed formulas in float64, and at their closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kizu.errors import ShapeError, UsageError
from kizu.losses.info_nce import info_nce
from kizu.losses.negative_cosine import negative_cosine
from kizu.losses.nt_xent import nt_xent
from kizu.losses.spd import spd


def rows(count: int, size: int = 7, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, size)))


def cos(a: torch.Tensor, b: torch.Tensor) -> float:
    x, y = a.tolist(), b.tolist()
    dot = math.fsum(p * q for p, q in zip(x, y, strict=True))
    return dot / math.sqrt(math.fsum(p * p for p in x)) / math.sqrt(math.fsum(q * q for q in y))


def test_spd_is_equation_2() -> None:
    anchor, negative, positive = rows(5), rows(5, seed=1), rows(5, seed=2)
    truth = [cos(a, n) - cos(a, p) for a, n, p in zip(anchor, negative, positive, strict=True)]
    assert spd(anchor, negative, positive, reduction="none").tolist() == pytest.approx(truth, abs=1e-14)
    assert float(spd(anchor, negative, positive)) == pytest.approx(math.fsum(truth) / 5, abs=1e-14)


def test_spd_lies_between_minus_two_and_two() -> None:
    z = rows(4)
    assert spd(z, -z, z).item() == pytest.approx(-2)
    assert spd(z, z, -z).item() == pytest.approx(2)
    assert spd(z, rows(4, seed=3), rows(4, seed=3)).item() == 0
    assert spd(rows(500), rows(500, seed=1), rows(500, seed=2), reduction="none").abs().max() <= 2


def test_spd_stop_gradient_holds_the_anchor() -> None:
    anchor, negative, positive = (rows(3, seed=seed).requires_grad_() for seed in range(3))
    spd(anchor, negative, positive, stop_gradient=True).backward()
    assert anchor.grad is None
    assert negative.grad is not None
    free = spd(anchor, negative, positive)
    assert free == spd(anchor, negative, positive, stop_gradient=True)
    free.backward()
    assert anchor.grad is not None


def test_negative_cosine_and_its_gradient() -> None:
    p, z = rows(4), rows(4, seed=1)
    leaf = p.clone().requires_grad_()
    value = negative_cosine(leaf, z)
    assert value.item() == pytest.approx(
        -math.fsum(cos(a, b) for a, b in zip(p, z, strict=True)) / 4, abs=1e-14
    )
    value.backward()
    assert leaf.grad is not None
    for i in range(4):  # d(-cos)/dp = -(z/|z| - cos p/|p|) / |p|
        a, b = p[i] / p[i].norm(), z[i] / z[i].norm()
        assert torch.allclose(leaf.grad[i], -(b - (a @ b) * a) / p[i].norm() / 4, atol=1e-14)
    assert negative_cosine(z, 3 * z).item() == pytest.approx(-1)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_info_nce_with_a_queue(temperature: float) -> None:
    query, key, queue = rows(4), rows(4, seed=1), rows(9, seed=2)
    truth = []
    for q, k in zip(query, key, strict=True):
        weights = [math.exp(cos(q, other) / temperature) for other in [k, *queue]]
        truth.append(-math.log(weights[0] / math.fsum(weights)))
    assert info_nce(query, key, queue, temperature=temperature, reduction="none").tolist() == pytest.approx(
        truth, rel=1e-10
    )


def test_info_nce_without_a_queue_takes_the_other_keys() -> None:
    query, key = rows(5), rows(5, seed=1)
    alone = info_nce(query, key, reduction="none")
    for i in range(5):
        others = torch.cat([key[:i], key[i + 1 :]])
        assert torch.allclose(alone[i], info_nce(query[i : i + 1], key[i : i + 1], others))


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_is_algorithm_1(temperature: float) -> None:
    first, second = rows(4), rows(4, seed=1)
    views, truth = [*first, *second], []
    for i, view in enumerate(views):
        weights = [math.exp(cos(view, other) / temperature) for j, other in enumerate(views) if j != i]
        truth.append(-math.log(math.exp(cos(view, views[(i + 4) % 8]) / temperature) / math.fsum(weights)))
    assert nt_xent(first, second, temperature=temperature, reduction="none").tolist() == pytest.approx(
        truth, rel=1e-10
    )
    assert torch.allclose(nt_xent(second, first), nt_xent(first, second))


def test_closed_forms() -> None:
    same = torch.ones(6, 3)
    assert nt_xent(same, same).item() == pytest.approx(math.log(11), rel=1e-6)
    assert info_nce(same, same, torch.ones(20, 3)).item() == pytest.approx(math.log(21), rel=1e-6)
    apart = torch.eye(6, dtype=torch.float64)
    assert nt_xent(apart, apart, temperature=0.5).item() == pytest.approx(
        math.log(1 + 10 * math.exp(-2)), rel=1e-12
    )
    assert info_nce(apart, apart, temperature=0.5).item() == pytest.approx(
        math.log(1 + 5 * math.exp(-2)), rel=1e-12
    )


def test_small_temperature_does_not_overflow() -> None:
    apart = torch.eye(4)
    assert nt_xent(apart, apart, temperature=1e-3).item() == pytest.approx(0, abs=1e-6)
    assert info_nce(apart, apart.flip(0), temperature=1e-3).item() == pytest.approx(1000, rel=1e-5)


def test_misuse_is_refused() -> None:
    one = torch.ones(1, 3)
    with pytest.raises(UsageError, match="two rows"):
        nt_xent(one, one)
    with pytest.raises(UsageError, match="two rows"):
        info_nce(one, one)
    with pytest.raises(ShapeError, match="negatives"):
        info_nce(one, one, torch.ones(5, 4))
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="temperature"):
            nt_xent(torch.ones(2, 3), torch.ones(2, 3), temperature=temperature)


def test_nt_xent_leaves_out_rows_of_one_group() -> None:
    first, second = (torch.randn(4, 3, generator=torch.Generator().manual_seed(n)).double() for n in (0, 1))
    groups = torch.tensor([5, 2, 5, 7])
    views, label = torch.nn.functional.normalize(torch.cat([first, second])), groups.repeat(2)
    found = nt_xent(first, second, temperature=0.3, groups=groups, reduction="none")
    for i in range(8):
        partner = (i + 4) % 8
        kept = [j for j in range(8) if j == partner or label[j] != label[i]]
        expected = (views[kept] @ views[i] / 0.3).logsumexp(0) - views[partner] @ views[i] / 0.3
        assert found[i].item() == pytest.approx(expected.item(), rel=1e-9)
    different = nt_xent(first, second, temperature=0.3, groups=torch.arange(4))
    assert torch.equal(different, nt_xent(first, second, temperature=0.3))
    with pytest.raises(ShapeError, match="groups"):
        nt_xent(first, second, groups=torch.arange(3))
