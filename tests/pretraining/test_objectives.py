"""The methods against lightly, arithmetic by hand and closed forms; SPD's views and weights."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kizu import registry
from kizu.errors import UnknownName, UsageError
from kizu.losses.spd import spd as spd_loss
from kizu.pretraining.spd import SPDConfig, perturb
from kizu.training import Position
from kizu.views.strong import strong
from kizu.views.weak import weak

TINY: dict[str, Any] = {"backbone": "resnet10t", "stages": 1, "size": 32, "batch_size": 4}
WIDTHS: dict[str, dict[str, Any]] = {
    "simsiam": {"hidden": 16, "predictor_hidden": 8},
    "simclr": {"hidden": 16, "dimensions": 8},
    "byol": {"hidden": 16, "dimensions": 8},
    "moco": {"dimensions": 8, "queue": 12},
    "supervised": {"classes": 3},
}


def tiny(name: str, **parameters: Any) -> Any:
    return copy.deepcopy(_kept(name, tuple(parameters.items()))).train()


@functools.cache
def _kept(name: str, items: tuple[tuple[str, Any], ...]) -> Any:
    return registry.load("pretraining", name)(**{**TINY, **WIDTHS[name], **dict(items)})


def images(count: int = 4, seed: int = 1) -> Tensor:
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) * 255
    return (
        torch.nn.functional.interpolate(coarse, (40, 40), mode="bilinear").to(torch.uint8).permute(0, 2, 3, 1)
    )


def exact(objective: Any) -> tuple[Any, dict[str, Tensor]]:
    """The objective and two views in float64."""
    generator = torch.Generator().manual_seed(5)
    views = {f"view{i}": torch.randn(4, 3, 32, 32, generator=generator, dtype=torch.float64) for i in (1, 2)}
    return objective.double(), {**views, "labels": torch.tensor([0, 2, 1, 2])}


def gradient(objective: Any, loss: Tensor) -> Tensor:
    return torch.autograd.grad(loss, next(objective.encoder.parameters()), retain_graph=True)[0]


def agree(objective: Any, loss: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    assert loss.item() == pytest.approx(expected.item(), abs=tolerance)
    assert torch.allclose(gradient(objective, loss), gradient(objective, expected), atol=tolerance)


def test_simsiam_is_lightlys() -> None:
    from lightly.loss import NegativeCosineSimilarity

    objective, batch = exact(tiny("simsiam"))
    z1, z2 = (objective.projector(objective.encoder(batch[name])) for name in ("view1", "view2"))
    p1, p2, criterion = objective.predictor(z1), objective.predictor(z2), NegativeCosineSimilarity()
    agree(objective, objective(batch)["loss"], (criterion(p1, z2.detach()) + criterion(p2, z1.detach())) / 2)
    unit = (z1 / z1.norm(dim=1, keepdim=True)).detach().numpy()
    assert objective(batch)["spread"].item() == pytest.approx(
        unit.std(0, ddof=1).mean() * math.sqrt(16), abs=1e-5
    )


def test_simclr_is_lightlys() -> None:
    from lightly.loss import NTXentLoss

    objective, batch = exact(tiny("simclr"))
    z1, z2 = (objective.projector(objective.encoder(batch[name])) for name in ("view1", "view2"))
    agree(objective, objective(batch)["loss"], NTXentLoss(temperature=0.1)(z1, z2))


def test_byol_is_lightlys() -> None:
    from lightly.loss import NegativeCosineSimilarity

    objective, batch = exact(tiny("byol"))
    with torch.no_grad():
        for value in objective.target_encoder.parameters():
            value.mul_(0.9)
    t1, t2 = (
        objective.target_projector(objective.target_encoder(batch[name])).detach()
        for name in ("view1", "view2")
    )
    p1, p2 = (
        objective.predictor(objective.projector(objective.encoder(batch[name])))
        for name in ("view1", "view2")
    )
    criterion = NegativeCosineSimilarity()
    agree(objective, objective(batch)["loss"], criterion(p1, t2) + criterion(p2, t1))


@pytest.mark.parametrize(("version", "temperature"), [("v1", 0.07), ("v2", 0.2)])
def test_moco_is_info_nce_by_hand(version: str, temperature: float) -> None:
    objective, batch = exact(tiny("moco", version=version))
    with torch.no_grad():
        for value in objective.key_encoder.parameters():
            value.mul_(0.9)
        q = objective.projector(objective.encoder(batch["view1"])).numpy()
        k = objective.key_projector(objective.key_encoder(batch["view2"])).numpy()
    negatives, losses = objective.queue_keys.numpy(), []
    for query, key in zip(q, k, strict=True):
        query, key = query / np.linalg.norm(query), key / np.linalg.norm(key)
        logits = np.array([query @ key, *(query @ other for other in negatives)]) / temperature
        losses.append(-np.log(np.exp(logits[0]) / np.exp(logits).sum()))
    loss = objective(batch)["loss"]
    assert loss.item() == pytest.approx(np.mean(losses), abs=1e-6)
    assert np.allclose(np.linalg.norm(negatives, axis=1), 1, atol=1e-6)


def test_supervised_is_cross_entropy() -> None:
    for smoothing in (0.0, 0.1):
        objective, batch = exact(tiny("supervised", smoothing=smoothing))
        logits = objective.classifier(objective.encoder(batch["view1"])).detach().numpy()
        logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        target = np.eye(3)[batch["labels"].numpy()] * (1 - smoothing) + smoothing / 3
        terms = objective(batch)
        assert terms["loss"].item() == pytest.approx(-(target * logs).sum(1).mean(), abs=1e-5)
        assert terms["accuracy"].item() == pytest.approx((logits.argmax(1) == batch["labels"].numpy()).mean())


def test_the_queue_is_first_in_first_out() -> None:
    objective, kept = tiny("moco"), []
    before = objective.queue_keys.clone()
    for step in range(4):
        views = {
            name: torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(10 * step + i))
            for i, name in enumerate(("view1", "view2"))
        }
        with torch.no_grad():
            kept.append(
                torch.nn.functional.normalize(
                    objective.key_projector(objective.key_encoder(views["view2"])), dim=1
                )
            )
        objective(views)
        if step == 0:
            assert torch.equal(objective.queue_keys, before), "a step's own keys are not among its negatives"
        objective.after_step(step, 10)
        if step == 1:
            assert torch.allclose(objective.queue_keys[:8], torch.cat(kept), atol=1e-6)
            assert torch.equal(objective.queue_keys[8:], before[8:])
    assert int(objective.queue_position) == 4
    assert torch.allclose(objective.queue_keys, torch.cat([kept[3], kept[1], kept[2]]), atol=1e-6), (
        "the oldest left"
    )


def test_parts_of_a_batch_go_into_the_queue_in_order() -> None:
    objective = tiny("moco")
    views = torch.randn(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = [
            torch.nn.functional.normalize(objective.key_projector(objective.key_encoder(part)), dim=1)
            for part in views
        ]
    for part in views:
        objective({"view1": part, "view2": part})
    objective.after_step(0, 10)
    assert torch.allclose(objective.queue_keys[:4], torch.cat(expected), atol=1e-6)
    assert int(objective.queue_position) == 4


def test_moving_averages() -> None:
    objective, generator = tiny("moco", momentum=0.9), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in objective.parameters():
            value.add_(torch.randn(value.shape, generator=generator))
    pairs = [(objective.encoder, objective.key_encoder), (objective.projector, objective.key_projector)]
    due = [
        0.9 * key.double() + 0.1 * current.double()
        for a, b in pairs
        for current, key in zip(a.parameters(), b.parameters(), strict=True)
    ]
    before = [value.clone() for value in objective.encoder.parameters()]
    objective.after_step(3, 10)
    moved = [value for _, b in pairs for value in b.parameters()]
    assert all(
        torch.allclose(value.double(), expected, atol=1e-6)
        for value, expected in zip(moved, due, strict=True)
    )
    assert all(torch.equal(a, b) for a, b in zip(before, objective.encoder.parameters(), strict=True))


def test_byols_momentum_rises_to_one() -> None:
    objective = tiny("byol", momentum=0.9)
    for step in (0, 3, 10, 19):
        with torch.no_grad():
            for value in objective.parameters():
                value.zero_()
            for value in (*objective.encoder.parameters(), *objective.projector.parameters()):
                value.fill_(1.0)
        objective.after_step(step, 20)
        due = 1 - (1 - 0.9) * (math.cos(math.pi * step / 20) + 1) / 2
        for net in (objective.target_encoder, objective.target_projector):
            for value in net.parameters():
                assert torch.allclose(value, torch.full_like(value, 1 - due), atol=1e-6)


def test_simsiams_predictor_keeps_its_rate() -> None:
    objective = tiny("simsiam", learning_rate=0.5)
    groups = objective.optimiser().param_groups
    assert [group["lr"] for group in groups] == [0.5 * 4 / 256] * 2
    assert {id(p) for p in groups[1]["params"]} == {id(p) for p in objective.predictor.parameters()}
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(
        id(p) for p in objective.parameters()
    )
    assert [objective.lr_scale(step, 10) for step in (0, 5, 9)] == [
        [pytest.approx(0.5 * (1 + math.cos(math.pi * s / 10))), 1.0] for s in (0, 5, 9)
    ]
    free = tiny("simsiam", fix_predictor=False)
    assert free.lr_scale(5, 10) == [pytest.approx(0.5)] * 2


@pytest.mark.parametrize("name", ["byol", "simclr"])
def test_biases_and_norms_have_no_weight_decay(name: str) -> None:
    objective = tiny(name, weight_decay=0.3)
    decayed, free = objective.optimiser().param_groups
    assert decayed["weight_decay"] == 0.3
    assert free["weight_decay"] == 0
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert all(parameter.ndim == 1 for parameter in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == sum(
        parameter.requires_grad for parameter in objective.parameters()
    )
    assert objective.lr_scale(0, 1000) == pytest.approx(1 / (100 if name == "simclr" else 10)), "warm-up"


def test_mocos_schedules() -> None:
    assert [tiny("moco", version="v1").lr_scale(step, 200) for step in (119, 120, 160)] == pytest.approx(
        [1, 0.1, 0.01]
    )
    assert tiny("moco").lr_scale(100, 200) == pytest.approx(0.5)


def test_a_queue_needs_as_many_images() -> None:
    objective = tiny("moco")
    objective.check_data(None, 1)
    objective.check_data(16, 1)
    with pytest.raises(
        UsageError,
        match=r"queue of 12 keys and a batch of 4 .*, there are 15: give --set queue=8 or less",
    ):
        objective.check_data(15, 1)
    for queue in (2, 10):
        with pytest.raises(UsageError, match=rf"queue is a multiple of batch_size \(4\), got {queue}"):
            registry.load("pretraining", "moco")(**{**TINY, "queue": queue})
    with pytest.raises(UnknownName, match="version of MoCo"):
        registry.load("pretraining", "moco")(**TINY, version="v3")


def test_supervised_needs_classes() -> None:
    cls = registry.load("pretraining", "supervised")
    for classes in (0, 1):
        with pytest.raises(UsageError, match="two classes or more"):
            cls(**TINY, classes=classes)
    with pytest.raises(UsageError, match="has 3 classes, the images have 5"):
        tiny("supervised").check_data(100, 5)
    with pytest.raises(UnknownName, match="schedule"):
        cls(**TINY, classes=2, schedule="step")
    for name in ("smoothing", "warmup"):
        with pytest.raises(UsageError, match="warmup and smoothing are below 1"):
            cls(**TINY, classes=2, **{name: 1.0})
    with pytest.raises(UnknownName, match="Did you mean 'moco_v1'"):
        cls(**TINY, classes=2, views="moco_v11")
    with pytest.raises(UnknownName, match="optimiser"):
        registry.load("pretraining", "simclr")(**TINY, optimiser_name="adam")


# SPD


def raw(objective: Any, view: Tensor) -> Tensor:
    return view * objective.std + objective.mean


@pytest.mark.parametrize(
    "perturbation", ["smooth_blend", "smooth_blend_paper", "smooth_blend_pasted", "cutpaste", "cutpaste_scar"]
)
@pytest.mark.parametrize("anchor", ["view", "image"])
def test_spds_views_are_made_of_the_anchor(anchor: str, perturbation: str) -> None:
    objective = tiny("simsiam", spd=True)
    objective.seed, objective.spd = (
        3,
        dataclasses.replace(objective.spd, anchor=anchor, perturbation=perturbation),
    )
    position = Position(2, 8, 4)
    ready = objective.prepare((images(), torch.zeros(4)), position)
    originals, draws = images().permute(0, 3, 1, 2) / 255, position.generators(3)
    views = [strong(originals, generator=draws, size=(32, 32)) for _ in range(2)]
    source = views[0] if anchor == "view" else originals
    positive = weak(source, generator=draws, size=(32, 32))
    negative = weak(source, generator=draws, size=(32, 32))
    for name, due in (("view1", views[0]), ("view2", views[1]), ("positive", positive)):
        assert torch.allclose(raw(objective, ready[name]), due, atol=1e-5), name
    assert torch.allclose(
        raw(objective, ready["negative"]), perturb(negative, perturbation, draws), atol=1e-5
    )
    changed = (
        ((raw(objective, ready["negative"]) - negative).abs() > 1e-3).any(dim=1).float().mean(dim=(1, 2))
    )
    assert changed.max() > 0
    assert changed.max() < 0.95 if perturbation.startswith("smooth") else changed.max() < 0.2


def test_the_positive_is_near_the_anchor() -> None:
    objective = tiny("simsiam", spd=True)
    ready = objective.prepare((images(16), torch.zeros(16)), Position(0, 0, 16))
    anchor = ready["view1"]

    def distance(name: str) -> Tensor:
        return torch.minimum(
            *((view - anchor).abs().mean(dim=(1, 2, 3)) for view in (ready[name], ready[name].flip(3)))
        )

    assert (distance("positive") < distance("view2")).float().mean() > 0.8
    assert distance("positive").mean() < 0.5 * distance("view2").mean()


@pytest.mark.parametrize(("share", "count"), [(1.0, 4), (0.5, 2), (0.1, 2), (0.75, 3)])
def test_spd_over_a_share_of_the_batch(share: float, count: int) -> None:
    objective = tiny("simsiam", spd=True)
    objective.spd = dataclasses.replace(objective.spd, share=share)
    ready = objective.prepare((images(), torch.zeros(4)), Position(0, 0, 4))
    assert len(ready["positive"]) == len(ready["negative"]) == count
    assert len(ready["view1"]) == 4
    whole = tiny("simsiam", spd=True).prepare((images(), torch.zeros(4)), Position(0, 0, 4))
    assert torch.allclose(ready["negative"], whole["negative"][:count], atol=1e-5)
    terms = objective(ready)
    with torch.no_grad():
        z = objective.projector(objective.encoder(ready["view1"]))
        positive, negative = objective.projector(
            objective.encoder(torch.cat([ready["positive"], ready["negative"]]))
        ).split(count)
    assert terms["loss_spd"].item() == pytest.approx(spd_loss(z[:count], negative, positive).item(), abs=1e-5)
    objective.spd = dataclasses.replace(objective.spd, forward="separate")
    with torch.no_grad():
        apart = [objective.projector(objective.encoder(ready[name])) for name in ("negative", "positive")]
    assert objective(ready)["loss_spd"].item() == pytest.approx(spd_loss(z[:count], *apart).item(), abs=1e-5)


@pytest.mark.parametrize("loss", ["cosine", "cross_entropy"])
def test_batch_norm_takes_away_what_all_negatives_share_when_they_pass_alone(loss: str) -> None:
    """x- twice as bright as x+: nothing distinguishes them once each kind is normalised by its own mean and
    deviation."""
    one = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(8))
    gaps = {}
    for forward in ("joint", "separate"):
        objective = tiny("supervised", spd=SPDConfig(loss=loss, forward=forward))
        seen: list[Tensor] = []
        objective.encoder.register_forward_hook(
            lambda module, given, feature, seen=seen: seen.append(feature.detach())
        )
        objective({"view1": one, "labels": torch.tensor([0, 2, 1, 2]), "positive": one, "negative": 2 * one})
        positive, negative = torch.cat(seen[1:]).chunk(2)
        gaps[forward] = float((positive - negative).norm() / positive.norm())
    assert gaps["separate"] < 1e-3 < 0.1 < gaps["joint"]


def test_the_auxiliary_classifier() -> None:
    objective, batch = exact(tiny("supervised", spd=True))
    generator = torch.Generator().manual_seed(8)
    batch |= {
        name: torch.randn(4, 3, 32, 32, generator=generator, dtype=torch.float64)
        for name in ("positive", "negative")
    }
    with torch.no_grad():
        terms = objective(batch)
        logits = objective.perturbation_classifier(
            objective.encoder(torch.cat([batch["positive"], batch["negative"]]))
        ).numpy()
    target = np.array([0] * 4 + [1] * 4)
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert float(terms["loss_spd"]) == pytest.approx(-logs[np.arange(8), target].mean(), abs=1e-6)
    assert float(terms["spd_accuracy"]) == pytest.approx((logits.argmax(1) == target).mean())
    assert float(terms["loss"]) == pytest.approx(
        float(terms["loss_method"] + 0.1 * terms["loss_spd"]), abs=1e-6
    )
    assert tiny("supervised", spd=SPDConfig(loss="cosine")).perturbation_classifier is None
    assert tiny("simsiam", spd=True).perturbation_classifier is None


@pytest.mark.parametrize("name", ["simsiam", "moco", "supervised"])
def test_an_images_views_do_not_depend_on_its_company(name: str) -> None:
    objective, labels = tiny(name, spd=True), torch.arange(4)
    whole = objective.prepare((images(), labels), Position(3, 20, 4))
    for first in (0, 1, 2):
        part = objective.prepare(
            (images()[first : first + 2], labels[first : first + 2]), Position(9, 20 + first, 2)
        )
        for key, view in part.items():
            assert torch.allclose(view.float(), whole[key][first : first + 2].float(), atol=2e-5), key


def test_the_last_norm_of_a_block_starts_at_zero() -> None:
    from timm.models.resnet import BasicBlock

    blocks = [module for module in tiny("simsiam").encoder.modules() if isinstance(module, BasicBlock)]
    assert blocks
    assert all(not block.bn2.weight.any() for block in blocks)


def test_networks_that_are_not_trained_here() -> None:
    with pytest.raises(UnknownName, match=r"timm model named 'resnet18x'.*Did you mean 'resnet18d?'"):
        tiny("simsiam", backbone="resnet18x")
    with pytest.raises(UsageError, match=r"resnet10t has levels .*, 4\] .*, got \(5,\)"):
        tiny("simsiam", stages=5)
    with pytest.raises(UsageError, match="has blocks; only networks with stages"):
        tiny("simsiam", backbone="vit_tiny_patch16_224")
