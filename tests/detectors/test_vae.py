"""VAE: divergence and likelihood against torch.distributions, draws that never change, exact resuming."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

import kizu
from kizu.detectors.vae import LEAST_VARIANCE, VAE, divergence_from_prior, gaussian_surprise
from kizu.errors import ShapeError, UsageError
from kizu.samples import Samples
from kizu.training import FitOptions, Position

SMALL: dict[str, Any] = {
    "image_size": 32, "batch_size": 3, "latent": 6, "iterations": 12, "learning_rate": 1e-3, "samples": 4,
    "precision": "fp32", "training_precision": "fp32",
}  # fmt: skip
NET = "small/ssim_ae"
VARIANCES = pytest.mark.parametrize("variance", [None, 0.02])


def images(count: int = 5, seed: int = 0, side: int = 32) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def detector(**parameters: Any) -> VAE:
    return kizu.detector("vae", NET, **{**SMALL, **parameters})


def code(count: int = 3) -> tuple[Tensor, Tensor]:
    """Mean and log variance (count, 6), float64."""
    generator = torch.Generator().manual_seed(2)
    return tuple(torch.randn(2, count, 6, generator=generator, dtype=torch.float64))


def test_divergence_in_closed_form() -> None:
    mean, log_variance = code()
    expected = kl_divergence(Normal(mean, log_variance.exp().sqrt()), Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(divergence_from_prior(mean, log_variance), expected, rtol=1e-12)


def test_divergence_by_monte_carlo() -> None:
    mean, log_variance = code(1)
    q, generator = Normal(mean, log_variance.exp().sqrt()), torch.Generator().manual_seed(0)
    z = mean + q.scale * torch.randn(200_000, 6, generator=generator, dtype=torch.float64)
    ratios = (q.log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(1)
    error = 4 * float(ratios.std()) / math.sqrt(len(ratios))
    assert float(divergence_from_prior(mean, log_variance)) == pytest.approx(float(ratios.mean()), abs=error)


def test_surprise_is_minus_the_log_density() -> None:
    x, mean = images(1, 0).double(), images(1, 1).double()
    variance = images(1, 2).double() + 0.01
    expected = -Normal(mean, variance.sqrt()).log_prob(x)
    assert torch.allclose(gaussian_surprise(x, mean, variance), expected, rtol=1e-12)


def log_density(net: Any, z: Tensor, x: Tensor, variance: float | None) -> Tensor:
    """log p(x | z) of each value, from the decoder's output."""
    decoded = net.head.decoder(z, (32, 32))
    if variance is not None:
        return Normal(decoded, math.sqrt(variance)).log_prob(x)
    scale = (functional.softplus(decoded[:, 3:]) + LEAST_VARIANCE).sqrt()
    return Normal(decoded[:, :3], scale).log_prob(x)


@VARIANCES
def test_the_loss_is_the_evidence_lower_bound(variance: float | None) -> None:
    fitted = detector(variance=variance, beta=2.5, iterations=1).fit(images())
    net, made = fitted.network_, fitted.objective(fitted.network_)
    given, noise = made.prepare({"images": images(2)}, Position(4, 8, 2))
    found = net.head.bottleneck(net.encoder(given)[-1])
    mean, log_variance = found[:, :6], found[:, 6:]
    q = Normal(mean, (log_variance / 2).exp())
    likelihood = log_density(net, q.loc + q.scale * noise, given, variance).sum((1, 2, 3))
    divergence = kl_divergence(q, Normal(0.0, 1.0)).sum(1)
    expected = (2.5 * divergence - likelihood).mean() / (3 * 32 * 32)
    got = made.loss((given, noise))
    assert got["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert got["surprise"].item() == pytest.approx(-likelihood.mean().item() / 3072, rel=1e-5)


def test_noise_is_a_function_of_the_position() -> None:
    fitted = detector(iterations=1).fit(images())
    made, batch = fitted.objective(fitted.network_), {"images": images(3)}
    first, again = (made.prepare(batch, Position(4, 12, 3))[1] for _ in range(2))
    other = made.prepare(batch, Position(5, 15, 3))[1]
    assert first.shape == (3, 6)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


@VARIANCES
def test_the_score_is_the_mean_over_the_draws(variance: float | None) -> None:
    fitted, given = detector(variance=variance).fit(images()), images(3, 8)
    net = fitted.network_
    found = net.head.bottleneck(net.encoder(given)[-1])
    draws = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        each = [
            -log_density(net, found[:, :6] + (found[:, 6:] / 2).exp() * noise, given, variance)
            for noise in draws
        ]
    expected = torch.stack(each).mean(0).mean(1)
    got = fitted.predict(given)
    assert torch.allclose(got.map, expected, rtol=1e-4, atol=1e-4)
    assert torch.allclose(got.score, expected.mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_predictions_do_not_change_from_call_to_call_or_with_the_batch() -> None:
    fitted, given = detector().fit(images()), images(5, 9)
    state = torch.random.get_rng_state()
    together, again = fitted.predict(given), fitted.predict(given)
    assert torch.equal(together.map, again.map)
    assert torch.equal(torch.random.get_rng_state(), state)
    for row in range(5):
        alone = fitted.predict(given[row : row + 1])
        assert torch.allclose(alone.map[0], together.map[row], atol=1e-5)
        assert torch.allclose(alone.score[0], together.score[row], atol=1e-6)


def test_resumed_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(step: int, _: object) -> dict[str, float]:
        if step == 7:
            raise Stop
        return {}

    whole = detector().fit(images())
    options = FitOptions(folder=tmp_path, checkpoint_every=3, evaluate=stop, evaluate_every=7)
    with pytest.raises(Stop):
        detector().fit(images(), options=options)
    resumed = detector().fit(images(), options=FitOptions(folder=tmp_path, resume=True))
    states = zip(resumed._state().items(), whole._state().items(), strict=True)
    assert all(name == other and torch.equal(value, expected) for (name, value), (other, expected) in states)


def test_beta_pulls_the_posterior_to_the_prior() -> None:
    loose = detector(beta=0.0, iterations=60).fit(images())
    tight = detector(beta=300.0, iterations=60).fit(images())
    assert tight.log_[-1]["divergence"] < loose.log_[-1]["divergence"] / 2


def test_bf16_and_saved_models(tmp_path: Path) -> None:
    fitted, given = detector().fit(images()), images(2, 5)
    loaded = kizu.load(fitted.save(tmp_path / "m.kizu"))
    assert torch.equal(loaded.predict(given).map, fitted.predict(given).map)
    half = kizu.load(tmp_path / "m.kizu", precision="bf16").predict(given)
    assert torch.allclose(half.score, fitted.predict(given).score, atol=0.05)
    trained = detector(training_precision="bf16", iterations=3).fit(images())
    assert torch.isfinite(trained.predict(given).score).all()


@pytest.mark.slow
@VARIANCES
def test_what_was_never_seen_is_improbable(variance: float | None) -> None:
    """Stripes of several brightnesses are learned; a patch of noise is found, and where it is."""
    brightness = torch.linspace(0.45, 0.55, 12)[:, None, None, None]
    stripes = (torch.sin(torch.arange(32.0) / 2) * 0.4 + brightness).expand(12, 3, 32, 32).contiguous()
    fitted = detector(variance=variance, iterations=250, batch_size=8).fit(stripes)
    flawed = stripes.clone()
    flawed[:, :, 8:20, 8:20] = images(12, 4)[:, :, 8:20, 8:20]
    good, bad = fitted.predict(stripes), fitted.predict(flawed)
    assert bad.score.min() > good.score.max()
    assert bad.map[:, 8:20, 8:20].mean() > bad.map[:, 24:].mean()


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ShapeError, match="grid of 2 x 2"):
        detector(iterations=1).fit(images()).predict(images(1, side=48))


@pytest.mark.parametrize(
    "wrong",
    [
        {"latent": 0}, {"samples": 0}, {"beta": -1.0}, {"variance": 0.0}, {"learning_rate": 0.0},
        {"iterations": 0}, {"weight_decay": -1.0}, {"sigma": -1.0}, {"training_precision": "fp8"},
    ],
)  # fmt: skip
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        detector(**wrong)


@pytest.mark.slow
def test_it_finds_what_is_painted_over_on_the_default_representation(tiny_planted: Samples) -> None:
    """On random features 40 steps do not do: this is what the contract tests ask of others."""
    from kizu.images import open_image

    fitted = kizu.detector(
        "vae", image_size=64, batch_size=8, latent=16, samples=2, iterations=60,
        precision="fp32", training_precision="fp32",
    ).fit(tiny_planted.train)  # fmt: skip
    painted = torch.stack([torch.from_numpy(open_image(path)) for path in tiny_planted.test.normal.paths])
    painted = painted.permute(0, 3, 1, 2).float() / 255
    painted[:, :, 16:48, 16:48] = torch.tensor([0.9, 0.1, 0.8])[:, None, None]
    good, foreign = fitted.predict(tiny_planted.test.normal), fitted.predict(painted)
    assert foreign.score.min() > good.score.max()
    assert foreign.map[:, 16:48, 16:48].mean() > foreign.map[:, :8].mean()
