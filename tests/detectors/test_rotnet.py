"""RotNet: its task and its scores against slow definitions, what it finds, resuming, and nonsense."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import gammaln
from torch import Tensor
from torch.nn import functional

import kizu
from kizu.detectors._rotation_parts import RotNetObjective
from kizu.detectors.rotnet import RotNet
from kizu.errors import KizuError, ShapeError, TooFewImages, UnknownName, UsageError
from kizu.nn.transformations import transform, transformations
from kizu.training import FitOptions, Position

SMALL: dict[str, Any] = {
    "image_size": 32, "batch_size": 4, "iterations": 12, "sigma": 1.0, "precision": "fp32",
    "training_precision": "fp32",
}  # fmt: skip
NET = "small/lenet"


def images(count: int, seed: int = 0, side: int = 32) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def upright(count: int, seed: int) -> Tensor:
    """Bright above, dark below, with noise: images that know where up is."""
    ramp = torch.linspace(0.8, 0.2, 32)[None, None, :, None]
    return (ramp + 0.15 * (images(count, seed) - 0.5)).clamp(0, 1)


def detector(**given: Any) -> RotNet:
    made: RotNet = kizu.detector("rotnet", NET, **{**SMALL, **given})
    return made


def objective(**given: Any) -> RotNetObjective:
    made = detector(**given)
    return made.objective(made.network())


def position(step: int = 3) -> Position:
    return Position(step, 4 * step, 4)


def test_every_image_is_seen_in_every_turn_with_its_label() -> None:
    batch = images(4)
    views, labels = objective().prepare({"images": batch}, position())
    assert views.shape == (16, 3, 32, 32)
    for number, (view, label) in enumerate(zip(views, labels, strict=True)):
        assert torch.equal(view, torch.rot90(batch[number // 4], int(label), (1, 2)))
    assert (labels.reshape(4, 4).sort(1).values == torch.arange(4)).all()


def test_some_of_72_are_drawn_without_repetition_by_position() -> None:
    made, batch = objective(transforms="geometric", drawn=5), images(4)
    views, labels = made.prepare({"images": batch}, position())
    ways = transformations("geometric")
    assert labels.shape == (20,)
    assert all(len(set(row.tolist())) == 5 for row in labels.reshape(4, 5))
    for number, label in enumerate(labels.tolist()):
        assert torch.equal(views[number], transform(batch[number // 5 : number // 5 + 1], ways[label])[0])
    again, other = (made.prepare({"images": batch}, position(step))[1] for step in (3, 4))
    assert torch.equal(again, labels)
    assert not torch.equal(other, labels)


def test_a_flip_is_no_augmentation_where_it_is_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    from kizu.detectors import _rotation_parts

    seen: list[float] = []

    def noted(images: Tensor, *, generator: object, flip_chance: float) -> Tensor:
        seen.append(flip_chance)
        return images

    monkeypatch.setattr(_rotation_parts, "weak", noted)
    for transforms in ("rotations", "geometric"):
        made = objective(transforms=transforms, augmentation="weak")
        made.prepare({"images": images(4)}, position())
    assert seen == [0.5, 0.0]


@torch.no_grad()
def test_the_loss_in_float64_against_the_formula() -> None:
    made = objective().double().eval()
    views, labels = made.prepare({"images": images(4).double()}, position())
    network = made.network
    expected = 0.0
    for view, label in zip(views, labels, strict=True):
        feature = network.encoder(view[None])[0][0].mean((1, 2))
        logits = network.head.weight @ feature + network.head.bias
        right = (logits.exp()[label] / logits.exp().sum()).detach()
        expected -= math.log(float(right)) / len(views)
    assert float(made.loss((views, labels))["loss"]) == pytest.approx(expected, rel=1e-9)


def answers(fitted: RotNet, image: Tensor) -> list[Tensor]:
    """Probabilities (K,) for each transformation of one image, by the trained network in float64."""
    net = fitted.network_.double()
    found = []
    for way in transformations(fitted.transforms):
        feature = net.encoder(transform(image[None].double(), way, fitted.shift))[0].mean((2, 3))
        found.append(functional.softmax(net.head(feature)[0], dim=0))
    return found


@pytest.mark.parametrize("transforms", ["rotations", "geometric"])
def test_softmax_score_by_hand(transforms: str) -> None:
    fitted = detector(transforms=transforms).fit(images(6))
    batch = images(3, 5)
    scores = fitted.predict(batch).score
    for image, score in zip(batch, scores, strict=True):
        right = [float(answer[number]) for number, answer in enumerate(answers(fitted, image))]
        assert float(score) == pytest.approx(1 - sum(right) / len(right), abs=1e-5)


def test_dirichlet_score_by_hand() -> None:
    good, batch = images(12), images(2, 5)
    fitted = detector(score="dirichlet").fit(good)
    scores = fitted.predict(batch).score
    learned = np.log(np.array([[a.numpy() for a in answers(fitted, image)] for image in good])).mean(0)
    alpha = np.stack([most_likely(means) for means in learned])
    for image, score in zip(batch, scores, strict=True):
        log = np.log(np.array([answer.numpy() for answer in answers(fitted, image)]))
        assert float(score) == pytest.approx(-((alpha - 1) * log).sum(1).mean(), rel=2e-3)


def most_likely(means: np.ndarray) -> np.ndarray:
    """By scipy."""

    def loss(log_alpha: np.ndarray) -> float:
        alpha = np.exp(log_alpha)
        return -(gammaln(alpha.sum()) - gammaln(alpha).sum() + ((alpha - 1) * means).sum())

    found = minimize(loss, np.full(len(means), 3.0), method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-8})
    return np.exp(found.x)


def test_gaussian_score_is_the_density_of_the_trained_features() -> None:
    good = images(12)
    fitted = detector(score="gaussian").fit(good)
    with torch.no_grad():
        rows, query = (fitted.network_.encoder(x)[0].mean((2, 3)).double() for x in (good, images(2, 5)))
    rows, query = (functional.normalize(x, dim=1) for x in (rows, query))
    from sklearn.covariance import LedoitWolf

    expected = LedoitWolf().fit(rows.numpy()).mahalanobis(query.numpy()) ** 0.5
    assert fitted.predict(images(2, 5)).score.numpy() == pytest.approx(expected, rel=0.01)


def test_turned_images_are_found_and_so_is_their_place() -> None:
    """Good images know where up is; those that were turned, and halves that were, do not fit."""
    fitted = detector(iterations=60, batch_size=8).fit(upright(24, 0))
    good, turned = fitted.predict(upright(12, 1)), fitted.predict(upright(12, 2).rot90(2, (2, 3)))
    assert turned.score.min() > good.score.max()
    half = upright(8, 3)
    half[:, :, :, 16:] = half[:, :, :, 16:].flip(2)
    found = fitted.predict(half).map
    assert (found[:, :, 20:].mean((1, 2)) > found[:, :, :12].mean((1, 2))).all()


@pytest.mark.parametrize("given", [{}, {"transforms": "geometric"}, {"score": "dirichlet"}])
def test_an_image_is_scored_as_alone(given: dict[str, Any]) -> None:
    fitted, batch = detector(**given).fit(images(6)), images(5, 7)
    together = fitted.predict(batch)
    for number in range(5):
        alone = fitted.predict(batch[number : number + 1])
        assert torch.allclose(alone.score[0], together.score[number], rtol=1e-4, atol=1e-5)
        assert torch.allclose(alone.map[0], together.map[number], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "given", [{"score": "dirichlet"}, {"score": "gaussian", "covariance": "ridge", "optimiser": "sgd"}]
)
def test_what_is_computed_after_training_is_saved(tmp_path: Path, given: dict[str, Any]) -> None:
    fitted = detector(**given).fit(images(6))
    loaded = kizu.load(fitted.save(tmp_path / "model.kizu"))
    assert torch.equal(loaded.predict(images(3, 4)).score, fitted.predict(images(3, 4)).score)
    assert torch.equal(loaded.predict(images(3, 4)).map, fitted.predict(images(3, 4)).map)


@pytest.mark.parametrize("given", [{"score": "dirichlet"}, {"transforms": "geometric", "drawn": 3}])
def test_resumed_is_the_same_bit_for_bit(tmp_path: Path, given: dict[str, Any]) -> None:
    class Stop(Exception):
        pass

    def stop(step: int, _: object) -> dict[str, float]:
        if step == 8:
            raise Stop
        return {}

    whole = detector(**given).fit(images(6))
    options = FitOptions(folder=tmp_path, checkpoint_every=4, evaluate=stop, evaluate_every=8)
    with pytest.raises(Stop):
        detector(**given).fit(images(6), options=options)
    resumed = detector(**given).fit(images(6), options=FitOptions(folder=tmp_path, resume=True))
    states = zip(resumed._state().items(), whole._state().items(), strict=True)
    for (name, value), (other, expected) in states:
        assert name == other
        assert torch.equal(value, expected), name


def test_images_that_cannot_be_turned() -> None:
    with pytest.raises(ShapeError, match="square"):
        detector().fit(torch.rand(3, 3, 32, 40))
    fitted = detector().fit(images(4))
    with pytest.raises(ShapeError, match="square"):
        fitted.predict(torch.rand(1, 3, 32, 40))
    with pytest.raises(ShapeError, match="coarsest"):
        fitted.predict(images(1, side=4))
    with pytest.raises(TooFewImages, match="at least 2; got 1"):
        detector(score="dirichlet").fit(images(1))
    with pytest.raises(UsageError, match="at least 2 positions"):
        detector(batch_size=1, drawn=1).fit(images(2, side=8))


@pytest.mark.parametrize(
    "wrong",
    [
        {"transforms": "turns"}, {"score": "max"}, {"augmentation": "strong"}, {"optimiser": "lars"},
        {"drawn": 0}, {"drawn": 5}, {"transforms": "geometric", "drawn": 73}, {"shift": 0.1},
        {"transforms": "geometric", "shift": 0.6}, {"covariance": "ridge"}, {"covariance": "x"},
        {"learning_rate": 0.0}, {"weight_decay": -1.0}, {"sigma": -1.0}, {"iterations": 0},
        {"training_precision": "fp8"},
    ],
)  # fmt: skip
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((UsageError, UnknownName), match=list(wrong)[-1]):
        detector(**wrong)
    assert issubclass(UnknownName, KizuError)


def test_half_precision_scores_nearly_the_same_and_after_opening_the_very_same(tmp_path: Path) -> None:
    given: dict[str, Any] = {**{"score": "dirichlet"}, "training_precision": "bf16"}
    half = detector(**given, precision="bf16").fit(images(6))
    loaded = kizu.load(half.save(tmp_path / "model.kizu"))
    found = half.predict(images(3, 5))
    assert torch.equal(loaded.predict(images(3, 5)).map, found.map)
    full = kizu.load(tmp_path / "model.kizu", precision="fp32").predict(images(3, 5))
    assert torch.allclose(full.score, found.score, rtol=0.05, atol=0.05)
