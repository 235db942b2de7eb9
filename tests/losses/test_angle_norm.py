"""ADPretrain's losses against loops in float64, their gradients, closed forms, and what must not matter."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kizu.errors import ShapeError, UnknownName, UsageError
from kizu.losses.angle_norm import angle_loss, angle_norm, feature_norm, norm_loss

LABELS = torch.tensor([0, 1, 0, 0, 1, 0, 0])


def tokens(seed: int, count: int = 7, width: int = 3, scale: float = 1.0) -> Tensor:
    drawn = torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (scale * drawn).requires_grad_()


def gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, inputs))


def angle_by_loops(
    first: Tensor, second: Tensor, labels: Tensor, centre: Tensor, temperature: float, anchors: int
) -> list[Tensor]:
    """Eq. 2 word for word, of each of the first `anchors` of all 2N tokens."""
    rows, kinds, count = [*(first - centre), *(second - centre)], [*labels, *labels], len(first)

    def s(i: int, k: int) -> Tensor:
        return (rows[i] @ rows[k]) / rows[i].norm() / rows[k].norm() / temperature

    found = []
    for i in range(anchors):
        below = sum(s(i, k).exp() for k in range(2 * count) if k != i and kinds[k] != kinds[i])
        found.append(-(s(i, (i + count) % (2 * count)).exp() / below).log())
    return found


@pytest.mark.parametrize("block", [1, 9, 2**22])
@pytest.mark.parametrize("anchors", ["both", "first"])
def test_angle_is_eq_2(anchors: str, block: int) -> None:
    first, second = tokens(0), tokens(1)
    centre = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    count = 14 if anchors == "both" else 7
    truth = torch.stack(angle_by_loops(first, second, LABELS, centre, 0.15, count))
    given: dict[str, Any] = {"centre": centre, "anchors": anchors, "block": block}
    rows = angle_loss(first, second, LABELS, **given, reduction="none")
    # A handful of operations on numbers up to 1 / 0.15, each with a roundoff of 1.1e-16.
    assert torch.allclose(rows, truth, atol=1e-13)
    mean = angle_loss(first, second, LABELS.bool(), **given)
    assert mean.item() == pytest.approx(truth.mean().item(), abs=1e-13)
    for mine, theirs in zip(
        gradients(mean, first, second), gradients(truth.mean(), first, second), strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-12)


def test_angle_of_tokens_that_are_parallel_or_orthogonal() -> None:
    """N normal tokens along one axis and A anomalous ones along another: -1 / T + log of twice the others."""
    normal, anomalous = 5, 2
    first = torch.zeros(normal + anomalous, 4)
    first[:normal, 0], first[normal:, 1] = torch.arange(1, normal + 1).float(), 3.0
    labels = torch.tensor([0] * normal + [1] * anomalous)
    rows = angle_loss(first, 2 * first, labels, temperature=0.5, reduction="none")
    due = [-2 + math.log(2 * anomalous)] * normal + [-2 + math.log(2 * normal)] * anomalous
    assert rows.tolist() == pytest.approx(due * 2, abs=1e-6)


def test_angle_does_not_overflow() -> None:
    """exp(1 / T) is infinite in float32 here; its logarithm is not."""
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    value = angle_loss(first, first, torch.tensor([0, 1]), temperature=1e-3)
    assert value.item() == pytest.approx(math.log(2), abs=1e-3)


@pytest.mark.parametrize("label", [0, 1])
def test_one_label_alone_has_no_angle(label: int) -> None:
    first, second = tokens(0), tokens(1)
    value = angle_loss(first, second, torch.full((7,), label))
    assert value.item() == 0
    assert all(not grad.any() for grad in gradients(value, first, second))


def test_the_centre_gets_no_gradient_and_moves_the_origin() -> None:
    first, second, centre = tokens(0), tokens(1), torch.ones(3, dtype=torch.float64, requires_grad=True)
    shifted = angle_loss(first, second, LABELS, centre=centre)
    assert shifted.item() == pytest.approx(angle_loss(first - 1, second - 1, LABELS).item(), abs=1e-13)
    assert torch.autograd.grad(shifted, centre, allow_unused=True) == (None,)
    assert abs(shifted.item() - angle_loss(first, second, LABELS).item()) > 0.1


def test_angle_under_autocast_stays_in_float32() -> None:
    first, second = (tokens(seed).detach().bfloat16() for seed in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        value = angle_loss(first, second, LABELS)
    assert value.dtype == torch.float32
    assert torch.equal(value, angle_loss(first.float(), second.float(), LABELS))


def test_lengths_of_norms() -> None:
    assert feature_norm(torch.tensor([[0.96, 0.0]])).item() == pytest.approx(0.4, abs=1e-6)
    assert feature_norm(torch.tensor([[3.6225, 0.0]])).item() == pytest.approx(1.15, abs=1e-6)
    huber = feature_norm(torch.tensor([[0.0, 0.96**0.5], [0.0, 1.0]]), norm="pseudo_huber")
    assert huber.tolist() == pytest.approx([0.4, 2**0.5 - 1], abs=1e-6)


def norm_by_loops(features: Tensor, labels: Tensor, given: dict[str, Any]) -> Tensor:
    """The three rules, token by token."""
    root = given["norm"] == "root"
    n = [((x.norm() if root else x @ x) + 1).sqrt() - 1 for x in features]
    smallest = [value.item() for value, label in zip(n, labels, strict=True) if label]
    r = min(0.4, 0.9 * min(smallest)) if given["adaptive_radius"] and smallest else 0.4
    lost: dict[str, list[Tensor]] = {"beyond": [], "lift": [], "within": []}

    def rule(name: str, d: Tensor) -> None:
        weight = d.detach().exp() if given["detach_weights"] else d.exp()
        lost[name].append(weight * (1 + d.exp()).log())

    for value, label in zip(n, labels, strict=True):
        if label and value < r + 0.75:
            rule("within", r + 0.75 - value)
        if not label and (value > r or given["inside"] == "contract"):
            rule("beyond", value - r)
        if not label and value < 0.99 * r and given["inside"] == "lift":
            rule("lift", 0.99 * r - value)
    counts = {name: len(found) if given["averaging"] == "violators" else 7 for name, found in lost.items()}
    return sum((torch.stack(f).sum() / counts[name] for name, f in lost.items() if f), torch.zeros(()))


SCALES = (0.4, 1.5, 6.0)
"""Of the tokens: mostly within the radius, on both sides of the two, mostly beyond."""
OPTIONS = [
    {
        "norm": norm,
        "adaptive_radius": adaptive,
        "inside": inside,
        "detach_weights": detach,
        "averaging": averaging,
    }
    for norm in ("root", "pseudo_huber")
    for adaptive in (False, True)
    for inside in ("lift", "free", "contract")
    for detach in (True, False)
    for averaging in ("violators", "tokens")
]


@pytest.mark.parametrize("scale", SCALES)
def test_norm_is_its_three_rules(scale: float) -> None:
    features = tokens(3, scale=scale)
    for given in OPTIONS:
        truth, value = norm_by_loops(features, LABELS, given), norm_loss(features, LABELS, **given)
        assert value.item() == pytest.approx(truth.item(), rel=1e-12), given
        (mine,), (theirs,) = gradients(value + 0 * features.sum(), features), gradients(truth, features)
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-12), given
        assert norm_loss(features, LABELS, **given, reduction="none").mean().item() == value.item()


def test_derivatives_at_one_beyond_the_radius() -> None:
    """d = 1: with detached weights e sigmoid(1) = 1.99, without e (sigmoid(1) + softplus(1)) = 5.56."""
    x = torch.tensor([[2.4**2 - 1]], dtype=torch.float64, requires_grad=True)  # n = 1.4
    per_n = 1 / (2 * 2.4)  # dn / d|x|
    for detach, due in ((True, 1.9872), (False, 5.5570)):
        (grad,) = gradients(norm_loss(x, torch.tensor([0]), detach_weights=detach), x)
        assert grad.item() / per_n == pytest.approx(due, abs=1e-4)


def test_the_band_has_no_gradient() -> None:
    x = torch.tensor([[0.955], [0.955], [4.0]], requires_grad=True)  # n = 0.398, 0.398, 1.236
    value = norm_loss(x, torch.tensor([0, 0, 1]))
    assert value.item() == 0
    assert not gradients(value, x)[0].any()
    assert gradients(norm_loss(x, torch.tensor([0, 0, 1]), inside="contract"), x)[0][:2].all()


def test_long_tokens_that_lose_nothing_do_not_spoil_the_gradient() -> None:
    """e^d of a token that no rule chooses is infinite here."""
    x = torch.tensor([[1.0], [1e6]], requires_grad=True)
    value = norm_loss(x, torch.tensor([0, 1]))
    assert torch.isfinite(value)
    assert torch.isfinite(gradients(value, x)[0]).all()


def test_the_sum() -> None:
    first, second = tokens(0, scale=2.0), tokens(1, scale=2.0)
    for anchors in ("both", "first"):
        due = 0.5 * angle_loss(first, second, LABELS, anchors=anchors)
        due = due + norm_loss(first, LABELS) + norm_loss(second, LABELS)
        rows = angle_norm(first, second, LABELS, anchors=anchors, angle_weight=0.5, reduction="none")
        assert rows.shape == (14,)
        assert rows.mean().item() == pytest.approx(due.item(), rel=1e-12)
    # Eq. 7 word for word, with the paper's choices, is half of it.
    paper: dict[str, Any] = {
        "norm": "pseudo_huber", "inside": "contract", "detach_weights": False, "averaging": "tokens",
    }  # fmt: skip
    given = {**paper, "adaptive_radius": False}
    norms = (norm_by_loops(first, LABELS, given) + norm_by_loops(second, LABELS, given)) * 7
    angles = sum(angle_by_loops(first, second, LABELS, torch.zeros(3).double(), 0.15, 7))
    whole = angle_norm(first, second, LABELS, anchors="first", **paper)
    assert whole.item() / 2 == pytest.approx(((angles + norms) / 14).item(), rel=1e-12)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"anchors": "second"}, "anchors"),
        ({"norm": "l2"}, "norm"),
        ({"inside": "yes"}, "inside"),
        ({"averaging": "mean"}, "averaging"),
    ],
)
def test_unknown_words(given: dict[str, str], says: str) -> None:
    with pytest.raises(UnknownName, match=says):
        angle_norm(tokens(0), tokens(1), LABELS, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [
        {"temperature": 0.0},
        {"radius": -1.0},
        {"margin": math.nan},
        {"block": 0},
        {"angle_weight": -1.0},
        {"adaptive_radius": 1},
        {"detach_weights": "no"},
    ],
)
def test_values_out_of_range(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(UsageError, match=name):
        angle_norm(tokens(0), tokens(1), LABELS, **given)


def test_labels_and_shapes() -> None:
    first, second = tokens(0), tokens(1)
    with pytest.raises(UsageError, match=r"labels are 0 .* got \[0, 2\]"):
        angle_loss(first, second, 2 * LABELS)
    with pytest.raises(UsageError, match="labels is a tensor of bool or whole numbers"):
        norm_loss(first, LABELS.float())
    with pytest.raises(ShapeError, match="labels"):
        angle_loss(first, second, LABELS[:6])
    with pytest.raises(ShapeError, match="centre"):
        angle_loss(first, second, LABELS, centre=torch.zeros(4))
