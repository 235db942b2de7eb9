"""PANDA: compactness about the old mean, the frozen layers, elastic weight consolidation, its schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import kizu
from kizu.adaptation.base import Adaptation
from kizu.adaptation.panda import PandaObjective, fisher_information
from kizu.errors import NotFinite, UnknownName, UsageError
from kizu.nn.density import pool
from kizu.representations.base import Representation
from kizu.representations.sources import open_representation, save_representation
from kizu.representations.trainable import freeze_up_to, trainable_copy
from kizu.training import FitOptions, SampleStore
from kizu.types import Batch

BRIEF: dict[str, Any] = {"passes": 3, "frozen_level": 1, "training_precision": "fp32"}


def images(count: int, seed: int = 0, size: int = 64) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def store(count: int = 5, size: int = 64) -> SampleStore:
    good = SampleStore()
    good.add(Batch(images(count, size=size)))
    return good


def network() -> Representation:
    return open_representation("random/resnet10t@2,3").eval()


@torch.no_grad()
def spread(net: Representation, x: Tensor, centre: Tensor) -> float:
    return float((pool(net(x))[0] - centre).square().sum(1).mean())


def test_features_draw_together_about_their_old_mean() -> None:
    net, good = network(), store()
    with torch.no_grad():
        centre = pool(net(images(5)))[0].mean(0)
    adapted = Adaptation("panda", {**BRIEF, "passes": 30}).adapt(net, good)
    assert spread(adapted, images(5), centre) < spread(net, images(5), centre)


def test_the_loss_is_the_mean_squared_distance_and_the_elastic_term() -> None:
    encoder = trainable_copy(open_representation("small/lenet@3"))
    centre = torch.randn(128, generator=torch.Generator().manual_seed(1))
    of = PandaObjective(encoder, centre, learning_rate=1e-2, elasticity=0.0).double().train()
    x = images(3, size=32).double()
    with torch.no_grad():
        rows = pool(of.encoder(x))[0]
    compact = sum(float(((row - of.centre) ** 2).sum()) for row in rows) / 3
    assert of.loss(x)["loss"].item() == pytest.approx(compact, rel=1e-9)
    name = "net.stages.0.0.weight"
    weight = dict(encoder.named_parameters())[name]
    of.consolidate({name: torch.full_like(weight, 2.0)}, elasticity=10.0)
    assert of.loss(x)["loss"].item() == pytest.approx(compact, rel=1e-9)
    with torch.no_grad():
        weight.add_(0.1)
        moved = sum(float(((row - of.centre) ** 2).sum()) for row in pool(of.encoder(x))[0]) / 3
    expected = moved + 10.0 / 2 * 2.0 * 0.1**2 * weight.numel()
    assert of.loss(x)["loss"].item() == pytest.approx(expected, rel=1e-6)


def test_frozen_levels_keep_their_weights_and_all_norms_their_statistics() -> None:
    net = network()
    adapted = Adaptation("panda", {**BRIEF, "frozen_level": 2}).adapt(net, store())
    before, after = dict(net.named_parameters()), dict(adapted.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    frozen = {name for name in before if not name.startswith("net.layer3")}
    assert changed
    assert not changed & frozen
    for name, value in net.named_buffers():
        assert torch.equal(value, dict(adapted.named_buffers())[name])


@pytest.mark.parametrize("base", ["random/resnet10t@1,3", "random/tf_efficientnet_lite0@2,4", "small/lenet"])
def test_what_is_frozen_is_what_the_level_needs(base: str) -> None:
    """The gradient of the level's own features reaches the frozen parameters and no other."""
    encoder = trainable_copy(open_representation(base).eval())
    level = 1 if base.startswith("small") else 2
    learning = set(freeze_up_to(encoder, level))
    body = base.split("@")[0]
    alone = open_representation(f"{body}@{level}").eval()
    needed = (
        {name for name, _ in alone.named_parameters()}
        if not base.startswith("small")
        else {name for name, _ in alone.named_parameters() if name.startswith("net.stages.0")}
    )
    every = {name for name, _ in encoder.named_parameters()}
    assert learning == every - needed
    assert {name for name, p in encoder.named_parameters() if p.requires_grad} == learning


def test_fisher_information_is_the_squared_jacobian() -> None:
    """Over all directions, E (d <v, z> / d theta)^2 = sum_d (d z_d / d theta)^2; with few it is near."""
    encoder = trainable_copy(open_representation("small/lenet@3")).eval()
    good = store(1, size=32)
    name = "net.stages.0.0.weight"
    weight = dict(encoder.named_parameters())[name]
    found = fisher_information(encoder, [name], good, seed=0)[name].sum()
    z = pool(encoder(good.take([0]).require_images()))[0][0]
    rows = [torch.autograd.grad(value, weight, retain_graph=True)[0] for value in z]
    exact = torch.stack(rows).square().sum()
    assert float(found / exact) == pytest.approx(1.0, abs=0.5)


def test_consolidated_weights_move_less() -> None:
    net, good = network(), store()
    settings = {**BRIEF, "passes": 20, "learning_rate": 0.1}

    @torch.no_grad()
    def moved(adapted: Representation) -> float:
        pairs = zip(adapted.parameters(), net.parameters(), strict=True)
        return float(sum((a - b).square().sum() for a, b in pairs))

    free = Adaptation("panda", settings).adapt(net, good)
    held = Adaptation("panda", {**settings, "regulariser": "ewc", "elasticity": 1e6}).adapt(net, good)
    assert moved(held) < moved(free)


def test_it_resumes_exactly_and_survives_a_file(tmp_path: Path) -> None:
    net, chosen = network(), Adaptation("panda", {**BRIEF, "batch_size": 2, "regulariser": "ewc"})
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


def test_passes_are_over_the_images_there_are() -> None:
    """Five images in batches of 2 are three steps a pass; a batch is never larger than the set."""
    steps: list[int] = []

    def watch(step: int, _: Representation) -> dict[str, float]:
        steps.append(step)
        return {}

    options = FitOptions(evaluate=watch, evaluate_every=1)
    Adaptation("panda", {**BRIEF, "passes": 2, "batch_size": 2}).adapt(network(), store(), options=options)
    assert steps[-1] == 6
    Adaptation("panda", {**BRIEF, "passes": 2}).adapt(network(), store(), options=options)
    assert steps[-1] == 2


def test_bad_input() -> None:
    with pytest.raises(UnknownName, match="regulariser"):
        Adaptation("panda", {"regulariser": "dropout"})
    with pytest.raises(UsageError, match="elasticity"):
        Adaptation("panda", {"elasticity": 5.0})
    with pytest.raises(UsageError, match="nothing of random/resnet10t"):
        Adaptation("panda", {"frozen_level": 2}).adapt(open_representation("random/resnet10t@1,2"), store())
    wrapped = Adaptation("residual", {"shots": 2}).adapt(network(), store())
    with pytest.raises(UsageError, match="of kind residual"):
        Adaptation("panda", BRIEF).adapt(wrapped, store())
    vit = open_representation("random/vit_tiny_patch16_224@4")
    with pytest.raises(UsageError, match="frozen_level=0"):
        Adaptation("panda", {"frozen_level": 2}).adapt(vit, store())


def test_a_training_that_ends_in_nan_is_no_representation() -> None:
    with pytest.raises(NotFinite, match="smaller learning_rate"):
        Adaptation("panda", {"frozen_level": 0, "passes": 1, "learning_rate": 1e38}).adapt(network(), store())
