"""Deep SVDD: sphere, centre, radius and shares by hand; phases, exact resuming in each; collapse is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import kizu
from kizu.detectors._svdd import SvddHead, SvddObjective, moved_from_zero, radius_of, sphere_loss
from kizu.detectors.deep_svdd import DeepSVDD
from kizu.errors import Collapsed, ShapeError, UnknownName, UsageError
from kizu.training import FitOptions, Position, SampleStore
from kizu.types import Batch

SMALL: dict[str, Any] = {
    "image_size": 32, "batch_size": 3, "iterations": 12, "learning_rate": 1e-3, "precision": "fp32",
    "training_precision": "fp32",
}  # fmt: skip
PAPER: dict[str, Any] = {"embedding": 16, "batch_norm": "train", "contrast": True, "pretraining": 5}
SOFT: dict[str, Any] = {"variant": "soft_boundary", "nu": 0.25, "warm_up": 0.3}
NET = "small/lenet"


def images(count: int = 7, seed: int = 0, side: int = 32) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def detector(net: str = NET, **parameters: Any) -> DeepSVDD:
    return kizu.detector("deep_svdd", net, **{**SMALL, **parameters})


def begun(**parameters: Any) -> SvddObjective:
    """The objective of a detector as `fit` makes it, before the first step."""
    made = detector(**parameters)
    made._samples = SampleStore()
    made._samples.add(Batch(images()))
    made._first_features(made._samples)
    return made.objective(made.network())


# -- the mathematics -----------------------------------------------------------------------------------------


def test_losses_in_float64_against_the_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    f, c = torch.randn(9, 5, generator=generator, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    squared = [float(sum((f[i, d] - c[d]) ** 2 for d in range(5))) for i in range(9)]
    distances, radius = (f - c).square().sum(1), torch.tensor(2.0, dtype=torch.float64)
    assert float(sphere_loss(distances, radius, None)) == pytest.approx(sum(squared) / 9, rel=1e-12)
    soft = 4.0 + sum(max(0.0, value - 4.0) for value in squared) / 9 / 0.1
    assert float(sphere_loss(distances, radius, 0.1)) == pytest.approx(soft, rel=1e-12)


@pytest.mark.parametrize("nu", [0.01, 0.1, 0.5, 1.0])
def test_the_radius_is_numpys_quantile(nu: float) -> None:
    squared = torch.rand(23, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = np.quantile(np.sqrt(squared.numpy()), 1 - nu)
    assert float(radius_of(squared, nu)) == pytest.approx(float(expected), rel=1e-12)


def test_at_the_best_radius_a_share_nu_lies_outside() -> None:
    """The quantile minimises the soft boundary's loss over R (the paper's proposition 4)."""
    squared = torch.rand(1000, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 4
    radius = radius_of(squared, 0.1)
    best = float(sphere_loss(squared, radius, 0.1))
    for other in np.linspace(0.1, 2.5, 60):
        assert float(sphere_loss(squared, torch.tensor(other), 0.1)) >= best - 1e-3
    assert float((squared > radius**2).double().mean()) == pytest.approx(0.1, abs=0.002)


def test_the_centre_is_moved_from_zero() -> None:
    centre = torch.tensor([-0.3, -0.05, -0.0, 0.0, 0.0999, 0.1, 2.0], dtype=torch.float64)
    moved = moved_from_zero(centre, 0.1)
    assert moved.tolist() == pytest.approx([-0.3, -0.1, 0.1, 0.1, 0.1, 0.1, 2.0])
    assert torch.equal(moved_from_zero(centre, 0.0), centre)


@pytest.mark.parametrize("embedding", [None, 6])
def test_the_shares_average_to_the_feature(embedding: int | None) -> None:
    head = SvddHead(4, (3, 2), embedding).double()
    feature = torch.rand(5, 4, 3, 2, dtype=torch.float64)
    f = head(feature)
    if embedding is None:
        assert torch.allclose(f, feature.flatten(2).mean(2))
    else:
        assert torch.allclose(f, feature.flatten(1) @ head.embedding.weight.flatten(1).T)
        with pytest.raises(ShapeError, match="grid of 3 x 2"):
            head(feature[:, :, :2])
    assert torch.allclose(head.shares(feature).mean((2, 3)), f)


def test_the_embedding_has_no_bias() -> None:
    """The paper's network: LeNet on 32 pixels has 2048 values before the layer of 128."""
    fitted = detector(embedding=128, iterations=1).fit(images())
    weight = fitted.network_.head.embedding.weight
    assert weight.flatten(1).shape == (128, 2048)
    assert all("bias" not in name for name, _ in fitted.network_.named_parameters())


@pytest.mark.parametrize("given", [{}, {"embedding": 8}, SOFT, {**PAPER, **SOFT}])
def test_score_and_map(given: dict[str, Any]) -> None:
    """|f - c|^2 (- R^2) from the trained network by hand; the mean of the unsmoothed map is the score."""
    fitted, new = detector(sigma=0.0, alignment="grid", **given).fit(images()), images(3, 5)
    head = fitted.network_.head
    shown = new
    if fitted.contrast:
        flat = new.flatten(1) - new.flatten(1).mean(1, keepdim=True)
        flat = flat / flat.abs().mean(1, keepdim=True)
        low, high = head.bounds
        shown = ((flat - low) / (high - low)).reshape(new.shape)
    feature = fitted.network_.encoder(shown)[-1]
    f = feature.mean((2, 3))
    if fitted.embedding:
        f = feature.flatten(1) @ head.embedding.weight.flatten(1).T
    expected = ((f - head.centre) ** 2).sum(1) - head.radius**2
    got = fitted.predict(new)
    assert torch.allclose(got.score, expected, rtol=1e-3, atol=1e-5)
    assert torch.allclose(got.map.mean((1, 2)), got.score, rtol=1e-2, atol=1e-4)


# -- learning ------------------------------------------------------------------------------------------------


def test_the_centre_is_the_mean_of_the_first_outputs() -> None:
    made = begun(embedding=8, least_centre=0.0)
    made.train()
    made.prepare({"images": images(3)}, Position(0, 0, 3))
    made.network.eval()
    with torch.no_grad():
        outputs = made.head(made.network.encoder(images())[-1]).double()
    assert torch.allclose(made.head.centre.double(), outputs.mean(0), atol=1e-6)
    assert float(made.head.spread) == pytest.approx(float(outputs.var(0, correction=0).sum()), rel=1e-4)


def test_contrast_bounds_are_those_of_all_good_images() -> None:
    made = begun(contrast=True)
    flat = images().double().flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    flat = flat / flat.abs().mean(1, keepdim=True)
    assert made.head.bounds.tolist() == pytest.approx([float(flat.min()), float(flat.max())], rel=1e-5)
    shown, _ = made.prepare({"images": images(3)}, Position(0, 0, 3))
    assert shown.min() >= -1e-6
    assert shown.max() <= 1 + 1e-6


@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_batch_norms_keep_or_learn_their_statistics(batch_norm: str) -> None:
    fitted = detector(batch_norm=batch_norm).fit(images())
    before = fitted.representation.state_dict()
    kept = [
        torch.equal(value, before[name])
        for name, value in fitted.network_.encoder.state_dict().items()
        if "running" in name
    ]
    assert all(kept) if batch_norm == "eval" else not any(kept)


def test_phases_of_the_training() -> None:
    """The auto-encoder first; a radius from the end of the warm-up on; the rates in either phase."""
    fitted = detector(iterations=40, **{**PAPER, **SOFT, "pretraining": 10})
    radii: dict[int, float] = {}

    def watch(step: int, copy: DeepSVDD) -> dict[str, float]:
        radii[step] = float(copy.network_.head.radius)
        assert copy._state()["grid"].tolist() == [4, 4]
        return {"centred": float(copy.network_.head.centred)}

    fitted.fit(images(), options=FitOptions(evaluate=watch, evaluate_every=1))
    centred = {row["step"]: row["centred"] for row in fitted.log_}
    assert [step for step, value in centred.items() if not value] == list(range(1, 11))
    assert all(radii[step] == 0.0 for step in range(1, 20))  # 10 of pretraining, 9 = 0.3 * 30 of warm-up
    assert all(radii[step] > 0.0 for step in range(20, 41))
    made = begun(iterations=40, **{**PAPER, "pretraining": 10})
    rates = [made.lr_scale(step, 40) for step in range(40)]
    assert rates == pytest.approx([1.0] * 8 + [0.1] * 2 + [1.0] * 10 + [0.1] * 20)


def test_the_radius_is_that_of_the_last_batch() -> None:
    made = begun(**SOFT).train()
    batch = made.prepare({"images": images(5)}, Position(11, 33, 5))
    made.loss(batch)
    made.after_step(2, 12)
    assert float(made.head.radius) == 0.0
    made.after_step(11, 12)
    with torch.no_grad():
        f = made.head(made.network.encoder(images(5))[-1])
    distances = (f - made.head.centre).norm(dim=1).numpy()
    assert float(made.head.radius) == pytest.approx(float(np.quantile(distances, 0.75)), rel=1e-4)


def test_it_brings_good_images_nearer() -> None:
    fitted = detector(iterations=60, batch_size=7).fit(images())
    assert fitted.log_[-1]["loss"] < fitted.log_[0]["loss"] / 2


def test_pretraining_teaches_the_encoder_to_rebuild() -> None:
    fitted = detector(**{**PAPER, "iterations": 61, "pretraining": 60, "contrast": False, "batch_size": 7})
    fitted.fit(images())
    losses = [row["loss"] for row in fitted.log_ if row["step"] <= 60]
    assert losses[-1] < losses[0] / 2
    assert not [name for name in fitted._state() if "decoder" in name]


def test_the_sphere_begins_with_a_new_optimiser() -> None:
    made = begun(**PAPER).train()
    optimiser = made.optimiser()
    made.loss(made.prepare({"images": images(3)}, Position(3, 9, 3)))["loss"].backward()
    optimiser.step()
    made.after_step(3, 12)
    assert optimiser.state
    made.after_step(4, 12)
    assert not optimiser.state


@pytest.mark.parametrize("at", [3, 6, 10])
def test_resumed_is_the_same_bit_for_bit(tmp_path: Path, at: int) -> None:
    """Stopped in the pretraining, in the warm-up, and after it."""

    class Stop(Exception):
        pass

    def stop(step: int, _: object) -> dict[str, float]:
        if step == at:
            raise Stop
        return {}

    given = {**PAPER, **SOFT}
    whole = detector(**given).fit(images())
    options = FitOptions(folder=tmp_path, checkpoint_every=2, evaluate=stop, evaluate_every=at)
    with pytest.raises(Stop):
        detector(**given).fit(images(), options=options)
    resumed = detector(**given).fit(images(), options=FitOptions(folder=tmp_path, resume=True))
    assert float(whole.network_.head.radius) > 0
    states = zip(resumed._state().items(), whole._state().items(), strict=True)
    assert all(name == other and torch.equal(value, expected) for (name, value), (other, expected) in states)


def test_a_collapse_is_told() -> None:
    """A weight decay that leaves nothing of the weights."""
    with pytest.warns(Collapsed, match="nearly one point"):
        detector(embedding=8, weight_decay=1e6, learning_rate=1e-2, iterations=40).fit(images())


# -- use -----------------------------------------------------------------------------------------------------


def test_saved_models_and_bf16(tmp_path: Path) -> None:
    fitted, new = detector(**PAPER, **SOFT).fit(images()), images(2, 5)
    loaded = kizu.load(fitted.save(tmp_path / "m.kizu"))
    assert torch.equal(loaded.predict(new).map, fitted.predict(new).map)
    assert torch.equal(loaded.predict(new).score, fitted.predict(new).score)
    trained = detector(
        training_precision="bf16", precision="bf16", iterations=6, **{**PAPER, "pretraining": 2}
    )
    assert torch.isfinite(trained.fit(images()).predict(new).score).all()


def test_a_fitted_detector_lets_go_of_the_images() -> None:
    assert detector(iterations=1).fit(images())._samples is None


@pytest.mark.slow
def test_it_finds_foreign_images_on_the_default_representation() -> None:
    """Smooth images are good; noise lies further from the centre."""
    smooth = torch.nn.functional.interpolate(images(24, 3, 4), size=64, mode="bilinear")
    fitted = kizu.detector(
        "deep_svdd", image_size=64, batch_size=8, iterations=40, precision="fp32", training_precision="fp32"
    ).fit(smooth[:16])
    good, foreign = fitted.predict(smooth[16:]), fitted.predict(images(8, 4, 64))
    assert foreign.score.min() > good.score.max()


@pytest.mark.parametrize(
    "wrong",
    [
        {**SOFT, "nu": 0.0}, {**SOFT, "nu": 1.5}, {**SOFT, "warm_up": -0.1}, {"nu": 0.2}, {"warm_up": 0.5},
        {"embedding": 0}, {"pretraining": -1}, {"pretraining": 12}, {"least_centre": -0.1},
        {"learning_rate": 0.0}, {"weight_decay": -1.0}, {"iterations": 0}, {"sigma": -1.0},
        {"training_precision": "fp8"}, {"contrast": 1},
    ],
)  # fmt: skip
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    changed = next(name for name, value in wrong.items() if SOFT.get(name) != value)
    with pytest.raises(UsageError, match=changed):
        detector(**wrong)


def test_unknown_choices_are_named() -> None:
    for wrong in ({"variant": "hard"}, {"batch_norm": "stable"}):
        with pytest.raises(UnknownName, match=next(iter(wrong))):
            detector(**wrong)


def test_what_has_nothing_to_learn_is_refused() -> None:
    with pytest.raises(UsageError, match="has nothing that learns"):
        detector("pixels").fit(images())
