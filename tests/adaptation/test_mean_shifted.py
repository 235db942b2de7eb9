"""Mean-shifted contrast: the loss by hand, and what it trains."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import kizu
from kizu.adaptation.base import Adaptation
from kizu.adaptation.mean_shifted import MeanShiftedObjective
from kizu.errors import TooFewImages, UsageError
from kizu.nn.density import pool
from kizu.representations.base import Representation
from kizu.representations.sources import open_representation, save_representation
from kizu.representations.trainable import trainable_copy
from kizu.training import FitOptions, SampleStore
from kizu.types import Batch

BRIEF: dict[str, Any] = {"passes": 3, "frozen_level": 1, "training_precision": "fp32", "learning_rate": 1e-3}


def images(count: int, seed: int = 0, size: int = 64) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def store(count: int = 5) -> SampleStore:
    good = SampleStore()
    good.add(Batch(images(count)))
    return good


def network() -> Representation:
    return open_representation("random/resnet10t@2,3").eval()


@pytest.mark.parametrize("angular", [False, True])
def test_the_loss_by_hand(angular: bool) -> None:
    """Each view of length one, minus the centre; then the cross-entropy of finding the other view."""
    encoder = trainable_copy(open_representation("small/lenet@3"))
    centre = 0.05 * torch.randn(128, generator=torch.Generator().manual_seed(1))
    of = MeanShiftedObjective(encoder, centre, temperature=0.25, angular=angular, learning_rate=1e-3, seed=0)
    of = of.double().train()
    first, second = images(3, 1, 32).double(), images(3, 2, 32).double()
    found = of.loss((first, second))
    with torch.no_grad():
        rows = torch.cat([pool(of.encoder(view))[0] for view in (first, second)])
    shifted = [row / row.norm() - of.centre for row in rows]

    def similarity(a: Tensor, b: Tensor) -> float:
        return float(a @ b / (a.norm() * b.norm()))

    losses = []
    for i, row in enumerate(shifted):
        others = [math.exp(similarity(row, shifted[j]) / 0.25) for j in range(6) if j != i]
        losses.append(-math.log(math.exp(similarity(row, shifted[(i + 3) % 6]) / 0.25) / sum(others)))
    expected = sum(losses) / 6
    if angular:
        expected += sum(float(row @ row) for row in shifted) / 3
    assert found["loss"].item() == pytest.approx(expected, rel=1e-9)


def test_norms_keep_their_statistics_and_weights_move() -> None:
    net = network()
    adapted = Adaptation("mean_shifted", BRIEF).adapt(net, store())
    for name, value in net.named_buffers():
        assert torch.equal(value, dict(adapted.named_buffers())[name])
    pairs = zip(net.parameters(), adapted.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_frozen_levels_keep_their_weights() -> None:
    net = network()
    adapted = Adaptation("mean_shifted", {**BRIEF, "frozen_level": 2}).adapt(net, store())
    before, after = dict(net.named_parameters()), dict(adapted.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("net.layer3") for name in changed)


def test_it_resumes_exactly_and_survives_a_file(tmp_path: Path) -> None:
    net, chosen = network(), Adaptation("mean_shifted", {**BRIEF, "batch_size": 3})
    whole = chosen.adapt(net, store())

    def stop(step: int, _: Representation) -> dict[str, float]:
        if step == 4:
            raise KeyboardInterrupt
        return {}

    options = {"folder": tmp_path / "run", "checkpoint_every": 1}
    with pytest.raises(KeyboardInterrupt):
        chosen.adapt(net, store(), options=FitOptions(**options, evaluate=stop, evaluate_every=1))
    resumed = chosen.adapt(net, store(), options=FitOptions(**options, resume=True))
    again = kizu.representation(save_representation(resumed, tmp_path / "net.kizu"))
    for a, b, c in zip(whole(images(2)), resumed(images(2)), again.eval()(images(2)), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="temperature"):
        Adaptation("mean_shifted", {"temperature": 0.0})
    with pytest.raises(UsageError, match="angular is True or False"):
        Adaptation("mean_shifted", {"angular": "no"})
    with pytest.raises(TooFewImages, match="no other image"):
        Adaptation("mean_shifted", BRIEF).adapt(network(), store(1))
