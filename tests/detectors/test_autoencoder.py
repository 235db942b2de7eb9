"""Autoencoder: its loss and windows by hand, crops by position, exact resuming, what it finds."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import kizu
from kizu.detectors._windows import corners
from kizu.detectors.autoencoder import Autoencoder, residual
from kizu.errors import ShapeError, UnknownName, UsageError
from kizu.losses.ssim import ssim
from kizu.nn.windows import random_windows
from kizu.samples import Samples
from kizu.training import FitOptions, Position

SMALL: dict[str, Any] = {
    "image_size": 32, "batch_size": 3, "latent": 6, "iterations": 12, "learning_rate": 1e-3,
    "precision": "fp32", "training_precision": "fp32",
}  # fmt: skip
NET = "small/ssim_ae"


def images(count: int = 5, seed: int = 0, size: tuple[int, int] = (32, 32)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def detector(**parameters: Any) -> Autoencoder:
    return kizu.detector("autoencoder", NET, **{**SMALL, **parameters})


@pytest.fixture(scope="module")
def cropped() -> Autoencoder:
    """Learns crops of 32 pixels of images of 40 x 48."""
    given = {"crop": 32, "stride": 5, "image_size": (40, 48)}
    return detector(**given).fit(images(size=(40, 48)))


@pytest.mark.parametrize("loss", ["l2", "ssim"])
def test_the_loss_in_float64(loss: str) -> None:
    fitted = detector(loss=loss, iterations=1).fit(images())
    net = fitted.network_.double()
    given = images(2).double()
    made = fitted.objective(net)
    feature = net.encoder.net(given * 2 - 1)[-1]
    rebuilt = net.head.decoder(net.head.bottleneck(feature), (32, 32))
    expected = ((rebuilt - given) ** 2).sum() / (2 * 3 * 32 * 32) if loss == "l2" else ssim(rebuilt, given)
    got = made.loss(made.prepare({"images": given}, Position(0, 0, 2)))["loss"]
    assert got.dtype == torch.float64
    assert got.item() == pytest.approx(expected.item(), rel=1e-12)


def test_residual_by_hand() -> None:
    rebuilt, given = images(1, 0).double(), images(1, 1).double()
    expected = sum((rebuilt[0, c, 3, 4] - given[0, c, 3, 4]) ** 2 for c in range(3)) / 3
    assert residual(rebuilt, given, "l2")[0, 3, 4].item() == pytest.approx(float(expected), rel=1e-12)
    assert residual(rebuilt, rebuilt, "ssim").abs().max() < 1e-9


@pytest.mark.parametrize(
    ("size", "crop", "stride"), [((9, 12), 4, 3), ((9, 12), 9, 30), ((8, 8), 8, 4), ((20, 9), 5, 4)]
)
def test_windows_cover_every_pixel_and_none_is_cut(size: tuple[int, int], crop: int, stride: int) -> None:
    places = corners(size, crop, stride)
    covered = torch.zeros(size)
    for top, left in places:
        assert 0 <= top <= size[0] - crop
        assert 0 <= left <= size[1] - crop
        covered[top : top + crop, left : left + crop] += 1
    assert covered.min() >= 1
    assert len(set(places)) == len(places)
    rows = sorted({top for top, _ in places})
    assert all(b - a <= stride for a, b in itertools.pairwise(rows))


def test_the_map_is_the_mean_over_windows(cropped: Autoencoder) -> None:
    """Each window alone through encoder and head, by a loop over pixels' windows."""
    given = images(2, 7, (40, 48))
    net, total, count = cropped.network_, torch.zeros(2, 40, 48), torch.zeros(40, 48)
    for top in (0, 5, 8):
        for left in (0, 5, 10, 15, 16):
            part = given[:, :, top : top + 32, left : left + 32]
            rebuilt = net.head(net.encoder(part)[-1], (32, 32))
            total[:, top : top + 32, left : left + 32] += residual(rebuilt, part, "ssim")
            count[top : top + 32, left : left + 32] += 1
    got = cropped.predict(given)
    assert torch.allclose(got.map, total / count, atol=1e-5)
    assert torch.allclose(got.score, (total / count).mean((1, 2)), atol=1e-5)


def test_crops_are_a_function_of_the_position() -> None:
    given = torch.arange(12.0 * 10).reshape(1, 1, 12, 10).expand(4, 3, 12, 10)
    first = random_windows(given, 8, Position(3, 12, 4).generators(5))
    again = random_windows(given, 8, Position(3, 12, 4).generators(5))
    other = random_windows(given, 8, Position(4, 16, 4).generators(5))
    assert first.shape == (4, 3, 8, 8)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    places = {int(crop[0, 0, 0]) for n in range(60) for crop in random_windows(
        given, 8, Position(n, 4 * n, 4).generators(0)
    )}  # fmt: skip
    assert places == {10 * top + left for top in range(5) for left in range(3)}
    assert all(torch.equal(crop[0, 1] - crop[0, 0], torch.full((8,), 10.0)) for crop in first)


def test_score_rules_and_smoothing() -> None:
    fitted, given = detector(loss="l2").fit(images()), images(2, 3)
    plain = fitted.predict(given)
    assert torch.allclose(plain.score, plain.map.mean((1, 2)))
    for rule in ("max", "top"):
        fitted.score_rule = rule
        fitted._prepare_scoring()
        flat = fitted.predict(given).map.flatten(1)
        expected = flat.amax(1) if rule == "max" else flat.sort(dim=1).values[:, -10:].mean(1)
        assert torch.allclose(fitted.predict(given).score, expected)
    fitted.sigma = 3.0
    fitted._prepare_scoring()
    assert fitted.predict(given).map.std() < plain.map.std() / 2


@pytest.mark.parametrize("crop", [None, 16])
def test_resumed_is_the_same_bit_for_bit(tmp_path: Path, crop: int | None) -> None:
    class Stop(Exception):
        pass

    def stop(step: int, _: object) -> dict[str, float]:
        if step == 7:
            raise Stop
        return {}

    whole = detector(crop=crop).fit(images())
    options = FitOptions(folder=tmp_path, checkpoint_every=3, evaluate=stop, evaluate_every=7)
    with pytest.raises(Stop):
        detector(crop=crop).fit(images(), options=options)
    resumed = detector(crop=crop).fit(images(), options=FitOptions(folder=tmp_path, resume=True))
    states = zip(resumed._state().items(), whole._state().items(), strict=True)
    assert all(name == other and torch.equal(value, expected) for (name, value), (other, expected) in states)


def test_it_learns_and_the_given_network_stays() -> None:
    made = detector(iterations=60, loss="l2")
    before = {name: value.clone() for name, value in made.representation.state_dict().items()}
    made.fit(images(3))
    assert made.log_[-1]["loss"] < made.log_[0]["loss"] / 2
    after = made.representation.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    moved = made.network_.encoder.state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in moved.items())


def test_saved_cropped_models_and_bf16(tmp_path: Path, cropped: Autoencoder) -> None:
    given = images(2, 5, (40, 48))
    loaded = kizu.load(cropped.save(tmp_path / "m.kizu"))
    assert torch.equal(loaded.predict(given).map, cropped.predict(given).map)
    half = kizu.load(tmp_path / "m.kizu", precision="bf16").predict(given)
    assert torch.allclose(half.score, cropped.predict(given).score, atol=0.03)
    trained = detector(training_precision="bf16", iterations=3).fit(images())
    assert torch.isfinite(trained.predict(images(1)).score).all()


def test_images_of_another_size_are_refused(cropped: Autoencoder) -> None:
    whole = detector(iterations=1).fit(images())
    with pytest.raises(ShapeError, match="grid of 2 x 2"):
        whole.predict(images(1, size=(48, 48)))
    assert cropped.predict(images(1, size=(50, 33))).map.shape == (1, 50, 33)
    with pytest.raises(ShapeError, match="smaller than a window of 32"):
        cropped.predict(images(1, size=(24, 48)))
    with pytest.raises(ShapeError, match="smaller than a window of 64"):
        detector(crop=64).fit(images())


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["l2", "ssim"])
def test_what_was_never_seen_is_not_rebuilt(loss: str) -> None:
    """Stripes are learned; a patch of noise is found, and where it is."""
    phase = torch.linspace(0, 6, 12)[:, None, None, None]
    wave = torch.sin(torch.arange(32.0) / 2 + phase) / 2 + 0.5
    stripes = wave.expand(12, 3, 32, 32).contiguous()
    fitted = detector(loss=loss, iterations=150, batch_size=8).fit(stripes)
    flawed = stripes.clone()
    flawed[:, :, 8:20, 8:20] = images(12, 4)[:, :, 8:20, 8:20]
    good, bad = fitted.predict(stripes), fitted.predict(flawed)
    assert bad.score.min() > good.score.max()
    assert bad.map[:, 8:20, 8:20].mean() > 2 * bad.map[:, 24:].mean()


@pytest.mark.parametrize(
    "wrong",
    [
        {"latent": 0}, {"crop": 4}, {"stride": 2, "crop": 16}, {"learning_rate": 0.0}, {"iterations": 0},
        {"weight_decay": -1.0}, {"sigma": float("nan")}, {"training_precision": "fp8"}, {"stride": 8},
    ],
)  # fmt: skip
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        detector(**wrong)


def test_unknown_choices_are_named() -> None:
    for wrong in ({"loss": "l3"}, {"score_rule": "median"}):
        with pytest.raises(UnknownName, match=next(iter(wrong))):
            detector(**wrong)
    with pytest.raises(UsageError, match="one number a channel"):
        detector(image_size=16, batch_size=1).fit(images(size=(16, 16)))


@pytest.mark.slow
def test_it_finds_what_is_painted_over_on_the_default_representation(tiny_planted: Samples) -> None:
    """On random features 40 steps do not do: this is what the contract tests ask of others."""
    from kizu.images import open_image

    fitted = kizu.detector(
        "autoencoder", image_size=64, batch_size=8, latent=16, iterations=60,
        precision="fp32", training_precision="fp32",
    ).fit(tiny_planted.train)  # fmt: skip
    painted = torch.stack([torch.from_numpy(open_image(path)) for path in tiny_planted.test.normal.paths])
    painted = painted.permute(0, 3, 1, 2).float() / 255
    painted[:, :, 16:48, 16:48] = torch.tensor([0.9, 0.1, 0.8])[:, None, None]
    good, foreign = fitted.predict(tiny_planted.test.normal), fitted.predict(painted)
    assert foreign.score.min() > good.score.max()
    assert foreign.map[:, 16:48, 16:48].mean() > foreign.map[:, :8].mean()
