"""GLASS: its synthesis and its loss by hand in float64, its draws by position, resuming, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

import kizu
from kizu.detectors._glass_parts import (
    FixedDiscriminator,
    GlassObjective,
    Synthesis,
    Textures,
    hard_examples,
    truncate,
)
from kizu.detectors._patch_discriminator import Network
from kizu.errors import EmptyData, UnknownName, UsageError
from kizu.images import open_image
from kizu.samples import Samples
from kizu.training import FitOptions, Position

SMALL: dict[str, Any] = {
    "image_size": 64, "batch_size": 4, "hidden": 16, "iterations": 8, "noise": 0.3, "ascent_steps": 5,
    "learning_rate": 5e-3, "sigma": 2.0, "precision": "fp32", "training_precision": "fp32",
    "alignment": "grid",
}  # fmt: skip
D, P = 6, 9


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def rows(N: int, seed: int, width: int = D) -> Tensor:
    return torch.randn(N, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def objective(*, hypersphere: bool = True, adapts: bool = True, **changed: Any) -> GlassObjective:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(D, 5, 1, adapts=adapts)
        for parameter in network.discriminator[1].parameters():
            torch.nn.init.normal_(parameter)
    made = {"noise": 0.5, "steps": 7, "step": 0.1, "radius": 0.75, "distance": 0.5, "hard": 0.5, "gamma": 2.0}
    return GlassObjective(
        network,
        Synthesis(hypersphere=hypersphere, **{**made, **changed}),
        extract=lambda batch: [torch.cat([batch, batch.flip(1)], dim=1)[:, :, ::16, ::16]],
        textures=Textures(None, (48, 48)),
        mean=rows(P, 9),
        rates=(1e-4, 2e-4),
        weight_decay=0.01,
        seed=3,
    ).double()


def drawn(N: int = 2 * P) -> dict[str, Tensor]:
    mask = torch.zeros(N, dtype=torch.bool)
    mask[::4] = True
    return {"good": rows(N, 1), "planted": 3 * rows(N, 2), "noise": 0.5 * rows(N, 3), "mask": mask}


@pytest.mark.parametrize("radius", [0.1, 1.0, 30.0])
def test_truncate_point_by_point(radius: float) -> None:
    points, origins = rows(50, 0), rows(50, 1)
    got = truncate(points, origins, radius, 2 * radius)
    for point, origin, moved in zip(points.numpy(), origins.numpy(), got.numpy(), strict=True):
        away = point - origin
        length = min(max(np.sqrt((away**2).sum()), radius), 2 * radius)
        assert np.allclose(moved, origin + length * away / np.sqrt((away**2).sum()), rtol=1e-8)


def test_hard_examples_by_sorting() -> None:
    logits, targets = rows(40, 0, 1)[:, 0], (rows(40, 1, 1)[:, 0] > 0).double()
    errors = sorted((1 / (1 + np.exp(-logits.numpy())) - targets.numpy()) ** 2)
    kept = hard_examples(logits, targets, 0.25)
    assert int(kept.sum()) == 30
    assert float((logits.sigmoid() - targets)[kept].square().min()) == pytest.approx(errors[10], rel=1e-9)
    assert hard_examples(logits, targets, 0.0).all()


def test_the_fixed_discriminator_is_the_discriminator_and_its_gradient_autograd() -> None:
    made = objective()
    net, batch = made.network, rows(30, 4)
    judge = FixedDiscriminator(net.discriminator, batch)
    norm = net.discriminator[1]
    hidden = net.discriminator[0](batch)
    norm.running_mean, norm.running_var = hidden.mean(0).detach(), hidden.var(0, unbiased=False).detach()
    points = rows(8, 5).requires_grad_(True)
    made.eval()
    (expected,) = torch.autograd.grad(net.discriminate(points).sum(), points)
    assert torch.allclose(judge.gradient(points.detach()), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("hypersphere", [True, False])
def test_the_ascent_step_by_step(hypersphere: bool) -> None:
    """By autograd of the loss that calls the points anomalous, one after the other."""
    made = objective(hypersphere=hypersphere)
    judge = FixedDiscriminator(made.network.discriminator, rows(30, 4))
    got = made.synthesis.ascend(judge, rows(6, 5), rows(6, 6), 0.4)
    for row, (point, origin) in enumerate(zip(rows(6, 5), rows(6, 6), strict=True)):
        for number in range(1, 8):
            leaf = point.clone().requires_grad_(True)
            hidden = judge.A @ leaf + judge.b
            last = made.network.discriminator[3].weight[0].detach()
            logit = last @ torch.where(hidden > 0, hidden, 0.2 * hidden)
            (gradient,) = torch.autograd.grad(-torch.nn.functional.logsigmoid(logit), leaf)
            point = point + 0.1 * gradient / gradient.norm()
            if number == 5:
                length = (point - origin).norm()
                point = origin + (point - origin) * length.clamp(0.4, 0.8) / length
        assert torch.allclose(got[row], point, rtol=1e-7)


@pytest.mark.parametrize("hypersphere", [True, False])
def test_the_loss_in_float64_against_the_formulas(hypersphere: bool) -> None:
    made, batch = objective(hypersphere=hypersphere), drawn()
    net, mask = made.network, batch["mask"]
    good, planted = net.adapter(batch["good"]).detach(), net.adapter(batch["planted"]).detach()
    centres = net.adapter(made.mean).detach().repeat(2, 1)
    distances = [*(good - centres).norm(dim=1), *(planted - centres)[~mask].norm(dim=1)]
    radius = float(np.quantile([float(one) for one in distances], 0.75))
    judge = FixedDiscriminator(net.discriminator, torch.cat([good, good + batch["noise"]]))
    origins, least = (centres, radius) if hypersphere else (good, 0.5)
    moved = made.synthesis.ascend(judge, good + batch["noise"], origins, least)

    def probability(points: Tensor) -> Tensor:
        first, norm, _, last = net.discriminator
        hidden = first(points)
        hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + norm.eps).sqrt()
        hidden = hidden * norm.weight + norm.bias
        return (1 / (1 + torch.exp(-torch.where(hidden > 0, hidden, 0.2 * hidden) @ last.weight[0]))).detach()

    of_good, of_global = probability(torch.cat([good, moved])).chunk(2)
    if hypersphere:
        away = (planted - centres)[mask]
        length = away.norm(dim=1, keepdim=True)
        planted[mask] = centres[mask] + away / length * length.clamp(2 * radius, 4 * radius)
    of_planted = probability(planted)
    errors = (of_planted - mask.double()) ** 2
    kept = errors >= np.quantile(errors.numpy(), 0.5)
    true = torch.where(mask, of_planted, 1 - of_planted)[kept]
    focal = -((1 - true) ** 2 * true.log()).mean()
    expected = -(1 - of_good).log().mean() - of_global.log().mean() + focal
    got = made.loss(batch)
    assert got["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert got["local"].item() == pytest.approx(focal.item(), rel=1e-6)
    assert ("radius" in got) == hypersphere
    if hypersphere:
        assert got["radius"].item() == pytest.approx(radius, rel=1e-6)


@pytest.mark.parametrize("adapts", [True, False])
def test_every_parameter_learns(adapts: bool) -> None:
    made = objective(adapts=adapts)
    made.loss(drawn())["loss"].backward()
    assert all(bool(parameter.grad.abs().sum() > 0) for parameter in made.parameters())
    groups = made.optimiser().param_groups
    assert [group["lr"] for group in groups] == ([2e-4, 1e-4] if adapts else [2e-4])
    assert sum(len(group["params"]) for group in groups) == len(list(made.parameters()))


def test_what_is_planted_is_marked_and_drawn_by_position() -> None:
    made = objective().float()
    batch = {"images": torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))}
    first, again, other = (made.prepare(batch, Position(0, n, 2)) for n in (0, 0, 2))
    assert {name: tuple(value.shape) for name, value in first.items()} == {
        "good": (2 * P, D), "planted": (2 * P, D), "mask": (2 * P,), "noise": (2 * P, D),
    }  # fmt: skip
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["noise"], other["noise"])
    differs = (first["good"] != first["planted"]).any(1)
    assert first["mask"].any()
    assert not bool((differs & ~first["mask"]).any())  # cells of this extractor see one pixel each


def test_textures_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(EmptyData, match="holds no images"):
        Textures(str(tmp_path), (16, 24))
    values = np.zeros((20, 20, 3), np.uint8)
    values[..., 0] = 255
    Image.fromarray(values).save(tmp_path / "red.png")
    generators = Position(0, 0, 3).generators(0)
    for folder in (str(tmp_path), None):
        textures = Textures(folder, (16, 24)).drawn(generators)
        assert textures.shape == (3, 3, 16, 24)
        assert textures.min() >= 0
        assert textures.max() <= 1
    options = {**SMALL, "iterations": 2}
    fitted = kizu.detector("glass", "random/resnet10t@2", textures=tmp_path, **options).fit(images(4))
    drawn_ones = kizu.detector("glass", "random/resnet10t@2", **options).fit(images(4))
    assert not torch.equal(fitted.predict(images(2)).map, drawn_ones.predict(images(2)).map)
    (tmp_path / "red.png").unlink()
    again = kizu.load(fitted.save(tmp_path / "model"))  # it needs its textures no more
    assert torch.equal(again.predict(images(2)).map, fitted.predict(images(2)).map)
    with pytest.raises(EmptyData):
        again.clone().fit(images(4))


@pytest.mark.slow
def test_resumed_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(step: int, _: object) -> dict[str, float]:
        if step == 5:
            raise Stop
        return {}

    options = FitOptions(folder=tmp_path, checkpoint_every=3, evaluate=stop, evaluate_every=5)
    whole = kizu.detector("glass", "random/resnet10t@2", **SMALL).fit(images(5))
    with pytest.raises(Stop):
        kizu.detector("glass", "random/resnet10t@2", **SMALL).fit(images(5), options=options)
    resumed = kizu.detector("glass", "random/resnet10t@2", **SMALL)
    resumed.fit(images(5), options=FitOptions(folder=tmp_path, resume=True))
    assert all(torch.equal(value, whole._state()[name]) for name, value in resumed._state().items())


@pytest.mark.slow
def test_it_finds_what_is_foreign_with_trained_weights(tiny_planted: Samples) -> None:
    """A square that is painted over. (A manifold's displacements have fixed lengths, too short for features
    of this scale: there it finds nothing in so few steps.)"""
    options = {**SMALL, "iterations": 60, "hidden": 64}
    detector = kizu.detector("glass", "kizu/starter@2,3", **options).fit(tiny_planted.train)
    stacked = [torch.from_numpy(open_image(path)) for path in tiny_planted.test.normal.paths]
    good = torch.stack(stacked).permute(0, 3, 1, 2).float() / 255
    painted = good.clone()
    painted[:, :, 16:48, 16:48] = torch.tensor([0.9, 0.1, 0.8])[:, None, None]
    foreign = detector.predict(painted)
    assert foreign.score.min() > detector.predict(good).score.median()
    assert foreign.map[:, 16:48, 16:48].mean() > foreign.map[:, :8].mean()


def test_pooled_dimensions_and_no_adapter() -> None:
    options = {**SMALL, "iterations": 2, "dimensions": 24, "adapter": False}
    detector = kizu.detector("glass", "random/resnet10t@2,3", **options).fit(images(4))
    assert detector.network_.discriminator[0].in_features == 24
    assert not list(detector.network_.adapter.parameters())
    features = detector.representation_.inference_copy("fp32")(images(2))
    windows = [functional.unfold(level, 3, padding=1) for level in features]
    pooled = [functional.adaptive_avg_pool1d(one.mT, 24).mT.unflatten(2, level.shape[2:])
              for one, level in zip(windows, features, strict=True)]  # fmt: skip
    wide = functional.interpolate(pooled[1], size=pooled[0].shape[2:], mode="bilinear")
    stacked = torch.cat([pooled[0], wide], dim=1).permute(0, 2, 3, 1).flatten(0, 2)
    expected = stacked.unflatten(1, (24, 2)).mean(2)
    got = detector.network_.patches(features).permute(0, 2, 3, 1).flatten(0, 2)
    assert torch.allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise": 0.0}, {"hidden": 0}, {"ascent_steps": -1}, {"ascent_step": float("nan")}, {"radius": 1.5},
        {"distance": 0.1}, {"hard": -0.1}, {"gamma": -1.0}, {"learning_rate": 0.0}, {"iterations": 0},
        {"adapter_learning_rate": -1e-4}, {"weight_decay": float("inf")}, {"sigma": -1.0},
        {"neighbourhood": 0}, {"dimensions": 0}, {"adapter": "no"}, {"training_precision": "fp8"},
        {"radius": 0.5, "distribution": "manifold"}, {"adapter_learning_rate": 1e-3, "adapter": False},
        {"ascent_step": 0.01, "ascent_steps": 0},
    ],
)  # fmt: skip
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        kizu.detector("glass", "random/resnet10t@2", **{**SMALL, **wrong})


def test_an_unknown_distribution() -> None:
    with pytest.raises(UnknownName, match="manifold"):
        kizu.detector("glass", "random/resnet10t@2", distribution="sphere")
