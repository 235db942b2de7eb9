"""Contrastive fine-tuning: its equations in float64, its moving copy and pairs; that it resumes exactly."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kizu
from kizu.adaptation._contrastive import ContrastiveObjective, cross_instance, planted, planting_views
from kizu.adaptation.base import Adaptation
from kizu.errors import NotFinite, TooFewImages, UnknownName, UsageError
from kizu.nn.density import pool
from kizu.representations.base import Representation
from kizu.representations.sources import open_representation, save_representation
from kizu.training import FitOptions, Position, SampleStore
from kizu.types import Batch

BRIEF = {
    "iterations": 3,
    "batch_size": 8,
    "hidden": 16,
    "dimensions": 8,
    "training_precision": "fp32",
}


def images(count: int, seed: int = 0, size: int = 64) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def store(count: int = 5, size: int = 64) -> SampleStore:
    good = SampleStore()
    good.add(Batch(images(count, size=size)))
    return good


def network() -> Representation:
    return open_representation("random/resnet10t@2,3").eval()


def objective(**given: Any) -> ContrastiveObjective:
    """In float64, so that an equation is held to rounding alone."""
    chosen = {
        "positives": ("cross_instance", 0.8),
        "negatives": ("cutpaste", 0.6, "view"),
        "symmetric": False,
        "augmentation": "industrial",
        "batch_norm": "eval",
        "heads": (16, 8),
        "momentum": 0.9,
        "learning_rate": 1e-3,
        **given,
    }
    made = ContrastiveObjective(
        open_representation("small/lenet@2,3"), seed=3, centre=images(4).reshape(4, -1)[:, :192], **chosen
    )
    return made.double().train()


def prepared(of: ContrastiveObjective, count: int = 6) -> dict[str, Tensor]:
    return of.prepare({"images": images(count, size=32).double()}, Position(0, 0, count))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_loss_is_equations_1_to_3_summed(symmetric: bool) -> None:
    """Each equation written out, image by image. Batch norms of the heads see the batch, so the heads'
    outputs are taken from one pass."""
    of = objective(symmetric=symmetric)
    batch = prepared(of)
    n = len(batch["view1"])

    def features(net: nn.Module, view: str) -> Tensor:
        return pool(net(batch[view]))[0]

    with torch.no_grad():
        z = [features(of.encoder, view) for view in ("view1", "view2", "negative")]
        t = [features(of.target_encoder, view) for view in ("view1", "view2")]
        twin = copy.deepcopy(of)
        q = [twin.predictor(twin.projector(one)) for one in z[:2]]
        g = [twin.target_projector(one) for one in t]
        contrastive = -sum(cosine(q[0][i], g[1][i]) for i in range(n)) / n
        if symmetric:
            contrastive = (contrastive - sum(cosine(q[1][i], g[0][i]) for i in range(n)) / n) / 2
        p = batch["partner"].tolist()
        positive = -sum(cosine(z[0][i], t[1][p[i]]) + cosine(z[0][p[i]], t[1][i]) for i in range(n)) / (2 * n)
        negative = sum(cosine(t[1][i], z[2][i]) for i in range(n)) / n
    found = of.loss(batch)
    assert found["loss_contrastive"].item() == pytest.approx(float(contrastive), rel=1e-6)
    assert found["loss_positive"].item() == pytest.approx(float(positive), rel=1e-6)
    assert found["loss_negative"].item() == pytest.approx(float(negative), rel=1e-6)
    expected = float(contrastive + 0.8 * positive + 0.6 * negative)
    assert found["loss"].item() == pytest.approx(expected, rel=1e-6)


def test_the_fixed_centre_is_the_mean_direction_before_training() -> None:
    rows = torch.tensor([[3.0, 0.0], [0.0, 0.5]])
    of = objective(positives=("fixed_centre", 0.8), negatives=("none", 0.6, "view"))
    made = ContrastiveObjective(
        open_representation("small/lenet@2"),
        seed=0,
        centre=rows,
        positives=("fixed_centre", 1.0),
        negatives=("none", 0.6, "view"),
        symmetric=False,
        augmentation="affine",
        batch_norm="eval",
        heads=(4, 2),
        momentum=0.9,
        learning_rate=1e-3,
    )
    assert torch.allclose(made.centre, torch.full((2,), 0.5**0.5))
    batch = prepared(of)
    with torch.no_grad():
        z = pool(of.encoder(batch["view1"]))[0]
    expected = -sum(cosine(row, of.centre) for row in z) / len(z)
    assert of.loss(batch)["loss_positive"].item() == pytest.approx(float(expected), rel=1e-6)


def test_the_gradient_stops_at_the_moving_copy() -> None:
    of = objective()
    of.loss(prepared(of))["loss"].backward()
    assert all(parameter.grad is None for parameter in of.target_encoder.parameters())
    assert all(parameter.grad is None for parameter in of.target_projector.parameters())
    learning = [*of.encoder.parameters(), *of.projector.parameters(), *of.predictor.parameters()]
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in learning)


def test_the_copy_moves_by_its_momentum() -> None:
    of = objective()
    before = [parameter.clone() for parameter in of.target_encoder.parameters()]
    with torch.no_grad():
        for parameter in of.encoder.parameters():
            parameter.add_(1.0)
    of.after_step(0, 10)
    for old, new in zip(before, of.target_encoder.parameters(), strict=True):
        assert torch.allclose(new, 0.9 * old + 0.1 * (old + 1.0), rtol=1e-12, atol=1e-12)


def test_partners_are_a_permutation_of_the_step_alone() -> None:
    of = objective(negatives=("none", 0.6, "view"))
    same = {"images": images(6, size=32).double()}
    first, again, later = (of.prepare(same, Position(s, 6 * s, 6))["partner"] for s in (0, 0, 1))
    assert sorted(first.tolist()) == list(range(6))
    assert torch.equal(first, again)
    others = [of.prepare(same, Position(s, 6 * s, 6))["partner"] for s in range(1, 6)]
    assert any(not torch.equal(first, other) for other in [later, *others])


def test_both_orders_of_a_pair_count() -> None:
    generator = torch.Generator().manual_seed(0)
    online, target = (torch.randn(3, 4, generator=generator).double() for _ in range(2))
    partner = torch.tensor([1, 2, 0])
    expected = (
        sum(
            -cosine(online[i], target[j]) - cosine(online[j], target[i])
            for i, j in enumerate(partner.tolist())
        )
        / 6
    )
    assert cross_instance(online, target, partner).item() == pytest.approx(float(expected))


@pytest.mark.parametrize("batch_norm", ["train", "eval"])
def test_batch_norms_learn_or_keep_their_statistics(batch_norm: str) -> None:
    base = network()
    adapted = Adaptation("fewshot_contrastive", {**BRIEF, "batch_norm": batch_norm}).adapt(base, store())
    buffers = dict(adapted.named_buffers())
    moved = [
        not torch.equal(value, buffers[name])
        for name, value in base.named_buffers()
        if name.endswith("running_mean")
    ]
    assert all(moved) if batch_norm == "train" else not any(moved)


@pytest.mark.parametrize("base", ["random/resnet10t@2,3", "small/lenet", "kizu/starter@3"])
def test_the_base_stays_and_the_adapted_one_survives_a_file(base: str, tmp_path: Path) -> None:
    net = open_representation(base).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    adapted = Adaptation("fewshot_contrastive", dict(BRIEF)).adapt(net, store())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert (adapted.channels, adapted.strides, adapted.offsets) == (net.channels, net.strides, net.offsets)
    assert not torch.equal(adapted(images(1))[0], net(images(1))[0])
    again = kizu.representation(save_representation(adapted, tmp_path / "net.kizu"))
    for precision in ("fp32", "bf16"):
        expected, got = (one.inference_copy(precision, "cpu")(images(2, 7)) for one in (adapted, again))
        assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


def test_the_same_seed_gives_the_same_and_it_resumes_exactly(tmp_path: Path) -> None:
    net, settings = network(), {**BRIEF, "negatives": "blur_brightness", "augmentation": "affine"}
    chosen = Adaptation("fewshot_contrastive", settings)
    whole = chosen.adapt(net, store())

    def stop(step: int, _: Representation) -> dict[str, float]:
        if step == 2:
            raise KeyboardInterrupt
        return {}

    options = {"folder": tmp_path / "run", "checkpoint_every": 1}
    with pytest.raises(KeyboardInterrupt):
        chosen.adapt(net, store(), options=FitOptions(**options, evaluate=stop, evaluate_every=1))
    resumed = chosen.adapt(net, store(), options=FitOptions(**options, resume=True))
    for a, b in zip(whole(images(2)), resumed(images(2)), strict=True):
        assert torch.equal(a, b)
    other = Adaptation("fewshot_contrastive", settings, seed=1).adapt(net, store())
    assert not torch.equal(other(images(2))[0], whole(images(2))[0])


def test_it_is_watched_along_the_steps() -> None:
    seen: list[tuple[int, float]] = []

    def watch(step: int, net: Representation) -> dict[str, float]:
        seen.append((step, float(net(images(1))[0].mean())))
        return {"mean": seen[-1][1]}

    options = FitOptions(evaluate=watch, evaluate_every=1)
    adapted = Adaptation("fewshot_contrastive", dict(BRIEF)).adapt(network(), store(), options=options)
    assert [step for step, _ in seen] == [1, 2, 3]
    assert len({value for _, value in seen}) == 3
    assert float(adapted(images(1))[0].mean()) == seen[-1][1]


@pytest.mark.slow
def test_it_trains_in_bf16() -> None:
    chosen = Adaptation("fewshot_contrastive", {**BRIEF, "training_precision": "bf16"})
    adapted = chosen.adapt(network(), store())
    assert all(bool(level.isfinite().all()) for level in adapted(images(1)))


def test_good_images_come_together_and_negatives_go_away() -> None:
    """What the two losses are for, after some steps on images that differ."""
    net = open_representation("random/resnet10t@3").eval()
    settings = {
        **BRIEF,
        "iterations": 25,
        "learning_rate": 1e-3,
        "negatives": "cutpaste",
        "batch_norm": "eval",
    }
    good = store(4)
    adapted = Adaptation("fewshot_contrastive", settings).adapt(net, good)
    x = good.take([0, 1, 2, 3]).require_images()
    negatives = planted(x, "cutpaste", Position(0, 99, 4).generators(5))

    @torch.no_grad()
    def contrast(of: Representation) -> float:
        """How much nearer good images are to each other than to their negatives, in cosine."""
        f, n = (nn.functional.normalize(pool(of(images))[0]) for images in (x, negatives))
        return float((f @ f.T).mean() - (f * n).sum(1).mean())

    assert contrast(adapted) > contrast(net)


def test_negatives_are_the_views_that_plant_a_flaw() -> None:
    assert set(planting_views()) == {"blur_brightness", "cutpaste", "perlin", "smooth_blend"}
    for name in planting_views():
        made = planted(images(3), name, Position(0, 0, 3).generators(0))
        assert made.shape == (3, 3, 64, 64)
        assert not torch.equal(made, images(3))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"positives": "all"}, "positives"),
        ({"negatives": "scratch"}, "cutpaste"),
        ({"negative_of": "image"}, "without negatives"),
        ({"negative_weight": 1.0}, "without negatives"),
        ({"positives": "none", "positive_weight": 1.0}, "without positives"),
        ({"batch_size": 1}, "batch_size"),
        ({"momentum": 1.5}, "momentum"),
        ({"iterations": 0}, "iterations"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"training_precision": "fp16"}, "training_precision"),
    ],
)
def test_values_that_cannot_be_meant(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises((UsageError, UnknownName), match=message):
        Adaptation("fewshot_contrastive", wrong)


def test_what_it_cannot_work_on() -> None:
    chosen = Adaptation("fewshot_contrastive", dict(BRIEF))
    with pytest.raises(TooFewImages, match="two different good images"):
        chosen.adapt(network(), store(1))
    Adaptation("fewshot_contrastive", {**BRIEF, "positives": "none", "iterations": 1}).adapt(
        network(), store(1)
    )
    wrapped = Adaptation("residual", {"shots": 2}).adapt(network(), store())
    with pytest.raises(UsageError, match="of kind residual"):
        chosen.adapt(wrapped, store())
    flat = SampleStore()
    flat.add(Batch(torch.zeros(3, 3, 64, 64)))
    with pytest.raises(UsageError, match="changed none"):
        Adaptation("fewshot_contrastive", {**BRIEF, "negatives": "cutpaste"}).adapt(network(), flat)
    broken = network()
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(NotFinite, match="random/resnet10t"):
        chosen.adapt(broken, store())


def test_a_loss_that_is_not_finite_stops(tmp_path: Path) -> None:
    wild = Adaptation("fewshot_contrastive", {**BRIEF, "iterations": 50, "learning_rate": 1e30})
    with pytest.raises(NotFinite, match="smaller learning rate"):
        wild.adapt(network(), store())


@pytest.mark.parametrize("detector", ["gaussian", "patchcore"])
def test_under_detectors_a_clone_starts_from_the_base(detector: str) -> None:
    net = network()
    chosen = Adaptation("fewshot_contrastive", dict(BRIEF))
    fitted = kizu.detector(detector, net, adaptation=chosen, image_size=64).fit(images(5))
    assert fitted.representation is net
    assert fitted.representation_.card["adapted_by"] == "fewshot_contrastive"
    assert fitted.clone().representation_ is net
    assert torch.isfinite(fitted.predict(images(2, 9)).score).all()
