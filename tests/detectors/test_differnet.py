"""DifferNet: loss, score and gradient by formulas in float64, turns, resuming, what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import kizu
from kizu.detectors.differnet import DifferNet, DifferNetObjective, DifferNetScorer, turns
from kizu.errors import ShapeError, UnknownName, UsageError
from kizu.nn.flows import Flow, permuted_flow
from kizu.nn.rotation import rotate
from kizu.samples import Samples
from kizu.training import FitOptions, Position

NET = "random/resnet10t@2"
SMALL: dict[str, Any] = {
    "image_size": 64, "batch_size": 4, "scales": 2, "coupling_blocks": 2, "hidden": 16, "layers": 2,
    "train_rotations": 2, "test_rotations": 4, "map_rotations": 2, "iterations": 8, "learning_rate": 1e-3,
    "precision": "fp32", "training_precision": "fp32",
}  # fmt: skip


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


class Eyes(nn.Module):
    """A small smooth network: one level of stride 4."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Conv2d(3, 4, 4, stride=4)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [torch.tanh(self.net(images))]


def flow(D: int = 8) -> Flow:
    return permuted_flow(D, blocks=2, clamp=3.0, width=6, layers=2)


@pytest.fixture
def parts() -> tuple[Flow, Eyes]:
    """Flow and frozen network, float64, with numbers far from where they start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made, eyes = flow().double(), Eyes().double().requires_grad_(False)
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.requires_grad:
                    parameter += 0.3 * torch.randn_like(parameter)
    return made, eyes


def scorer(parts: tuple[Flow, Eyes], **more: Any) -> DifferNetScorer:
    given = {"coarsest": 4, "scales": 2, "rotations": 3, "map_rotations": 2, "sigma": 0.0, **more}
    return DifferNetScorer(parts[0], parts[1], parts[1], **given).eval().requires_grad_(False)


def pooled(eyes: Eyes, images: Tensor) -> Tensor:
    half = functional.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
    return torch.cat([eyes(part)[0].mean((2, 3)) for part in (images, half)], dim=1)


def small_images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def unlikely(made: Flow, y: Tensor) -> Tensor:
    """-log p (N,) by autograd's Jacobian."""
    values = []
    for row in y:
        jacobian = torch.autograd.functional.jacobian(lambda v: made(v[None])[0][0], row)
        z = made(row[None])[0][0]
        values.append(
            0.5 * z @ z + 0.5 * len(row) * math.log(2 * math.pi) - torch.linalg.slogdet(jacobian)[1]
        )
    return torch.stack(values)


def test_the_loss_in_float64_against_the_formula(parts: tuple[Flow, Eyes]) -> None:
    made = DifferNetObjective(
        parts[0], parts[1], coarsest=4, scales=2, rotations=1, learning_rate=1e-3, seed=0
    )
    y = pooled(parts[1], small_images(3))
    expected = (unlikely(parts[0], y) - 4 * math.log(2 * math.pi)).mean() / 8
    terms = made.loss(y)
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-9)
    assert terms["distance"].item() == pytest.approx(parts[0](y)[0].square().mean().item())


def test_the_score_is_the_mean_over_turned_copies(parts: tuple[Flow, Eyes]) -> None:
    pictures = small_images()
    _, score = scorer(parts)([pictures], (16, 16))
    expected = [
        parts[0](pooled(parts[1], rotate(pictures, degrees)))[0].square().mean(1) for degrees in (0, 120, 240)
    ]
    assert torch.allclose(score, torch.stack(expected).mean(0))


def test_the_gradient_beside_finite_differences(parts: tuple[Flow, Eyes]) -> None:
    pictures, step = small_images(1), 1e-5
    for degrees in (0.0, 90.0, 30.0):
        gradient = scorer(parts).gradient(pictures, degrees)
        for channel, y, x in [(0, 3, 5), (1, 15, 0), (2, 8, 8)]:
            moved = [pictures.clone(), pictures.clone()]
            for picture, sign in zip(moved, (1, -1), strict=True):
                picture[0, channel, y, x] += sign * step
            high, low = (float(unlikely(parts[0], pooled(parts[1], rotate(one, degrees)))) for one in moved)
            assert gradient[0, channel, y, x].item() == pytest.approx((high - low) / (2 * step), rel=1e-4)


def test_the_map_is_the_mean_of_smoothed_gradients(parts: tuple[Flow, Eyes]) -> None:
    from scipy.ndimage import gaussian_filter

    pictures, made = small_images(), scorer(parts, sigma=1.5)
    with torch.inference_mode():
        map_, _ = made([pictures.clone()], (16, 16))
    expected = torch.zeros(2, 16, 16, dtype=torch.float64)
    for degrees in (0.0, 180.0):
        gradient = made.gradient(pictures, degrees).numpy()
        smooth = torch.from_numpy(gaussian_filter(gradient, (0, 0, 1.5, 1.5)))
        expected += smooth.abs().mean(1) / 2
    assert torch.allclose(map_, expected.float(), rtol=1e-4)


def test_quarter_turns_of_an_image_have_its_score() -> None:
    """Four evenly spread turns are the same four for an image turned by 90 degrees."""
    detector = kizu.detector("differnet", NET, **SMALL).fit(images(4))
    score = detector.predict(images(2, 5)).score
    turned = detector.predict(torch.rot90(images(2, 5), 1, (2, 3))).score
    assert torch.allclose(score, turned, rtol=1e-4)
    once = kizu.detector("differnet", NET, **{**SMALL, "test_rotations": 1}).fit(images(4))
    assert not torch.allclose(
        once.predict(images(2, 5)).score,
        once.predict(torch.rot90(images(2, 5), 1, (2, 3))).score, rtol=1e-4,
    )  # fmt: skip


def test_angles_are_a_function_of_the_place_in_the_run() -> None:
    seen: list[Tensor] = []

    def encode(part: Tensor) -> list[Tensor]:
        seen.append(part.clone())
        return [part]

    made = DifferNetObjective(flow(3), encode, coarsest=1, scales=1, rotations=3, learning_rate=1e-3, seed=5)
    batch = {"images": images(2)}
    first = made.prepare(batch, Position(2, 4, 2))
    assert first.shape == (6, 3)
    again, other = made.prepare(batch, Position(2, 4, 2)), made.prepare(batch, Position(3, 6, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    alone = made.prepare({"images": images(2)[1:]}, Position(2, 5, 1))
    assert torch.equal(alone, first[3:]), "an image's turns do not depend on its neighbours"
    assert len({float(part) for part in seen[0].flatten(1).std(1)}) == 6
    expected = 360 * torch.rand(3, generator=Position(2, 4, 2).generators(5)[0])
    assert torch.equal(seen[0][:1], rotate(images(2)[:1], float(expected[0])))


def test_turns_are_evenly_spread() -> None:
    assert turns(1) == [0.0]
    assert turns(8)[1::2] == [45.0, 135.0, 225.0, 315.0]


def test_what_the_trained_flow_is_and_that_nothing_else_is_trained() -> None:
    detector = kizu.detector("differnet", NET, **SMALL)
    before = {name: tensor.clone() for name, tensor in detector.representation.state_dict().items()}
    detector.fit(images(5))
    start = detector.network().state_dict()
    for name, value in detector.network_.state_dict().items():
        assert torch.equal(value, start[name]) == ("perm" in name), name
    assert all(
        torch.equal(value, before[name]) for name, value in detector.representation_.state_dict().items()
    )
    assert not [name for name in detector._state() if "encoder" in name or "frozen" in name]


def test_without_a_map_it_is_the_score() -> None:
    plain = {key: value for key, value in SMALL.items() if key != "map_rotations"}
    detector = kizu.detector("differnet", NET, localise="none", **plain).fit(images(4))
    prediction = detector.predict(images(2, 5))
    assert torch.equal(prediction.map, prediction.score[:, None, None].expand(2, 64, 64))
    with_map = kizu.detector("differnet", NET, **SMALL).fit(images(4)).predict(images(2, 5))
    assert torch.equal(with_map.score, prediction.score)
    assert with_map.map.std() > 0


def test_the_model_file_needs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = kizu.detector("differnet", NET, **SMALL).fit(images(4))
    path = detector.save(tmp_path / "model.kizu")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded = kizu.load(path)
    assert torch.equal(loaded.predict(images(2, 5)).map, detector.predict(images(2, 5)).map)
    assert torch.equal(loaded.predict(images(2, 5)).score, detector.predict(images(2, 5)).score)


@pytest.mark.parametrize("more", [{"precision": "bf16"}, {"training_precision": "bf16"}])
def test_bf16_is_nearly_the_same(more: dict[str, str]) -> None:
    half = kizu.detector("differnet", NET, **{**SMALL, **more}).fit(images(4)).predict(images(3, 5))
    full = kizu.detector("differnet", NET, **SMALL).fit(images(4)).predict(images(3, 5))
    assert not torch.equal(half.score, full.score)
    assert torch.allclose(half.score, full.score, rtol=0.1)
    assert torch.allclose(half.map, full.map, rtol=0.5, atol=0.1 * float(full.map.max()))


def test_resumed_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(step: int, fitted: DifferNet) -> dict[str, float]:
        if step == 5:
            raise Stop
        return {"mean": float(fitted.predict(images(1)).score.mean())}

    whole = kizu.detector("differnet", NET, **SMALL).fit(images(6))
    options = FitOptions(folder=tmp_path, checkpoint_every=3, evaluate=stop, evaluate_every=1)
    with pytest.raises(Stop):
        kizu.detector("differnet", NET, **SMALL).fit(images(6), options=options)
    resumed = kizu.detector("differnet", NET, **SMALL)
    resumed.fit(images(6), options=FitOptions(folder=tmp_path, resume=True))
    for (name, value), (other, expected) in zip(
        resumed._state().items(), whole._state().items(), strict=True
    ):
        assert name == other
        assert torch.equal(value, expected), name


@pytest.mark.slow
def test_a_map_through_residual_features() -> None:
    """The nearest references are no part of the gradient."""
    adaptation = kizu.Adaptation("residual", {"shots": 2})
    detector = kizu.detector("differnet", NET, adaptation=adaptation, **SMALL).fit(images(5))
    prediction = detector.predict(images(2, 5))
    assert torch.isfinite(prediction.map).all()
    assert prediction.map.std() > 0


@pytest.mark.slow
def test_it_finds_painted_flaws_with_trained_weights(tiny_planted: Samples) -> None:
    from kizu.images import open_image

    more = {"scales": 2, "hidden": 64, "iterations": 60, "learning_rate": 2e-3, "coupling_blocks": 4}
    detector = kizu.detector("differnet", "kizu/starter@3", **{**SMALL, **more}).fit(tiny_planted.train)
    good = detector.predict(tiny_planted.test.normal)
    painted = torch.stack([torch.from_numpy(open_image(path)) for path in tiny_planted.test.normal.paths])
    painted = painted.permute(0, 3, 1, 2).float() / 255
    painted[:, :, 16:48, 16:48] = torch.tensor([0.9, 0.1, 0.8])[:, None, None]
    foreign = detector.predict(painted)
    assert foreign.score.min() > good.score.max()
    assert foreign.map[:, 16:48, 16:48].mean() > foreign.map[:, :8].mean()


def test_too_small_images_are_refused() -> None:
    with pytest.raises(ShapeError, match="at least 32 pixels"):
        kizu.detector("differnet", NET, **{**SMALL, "scales": 3, "image_size": 24}).fit(
            torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
        )
    detector = kizu.detector("differnet", NET, **SMALL).fit(images(3))
    with pytest.raises(ShapeError, match="too small for scales=2"):
        detector.predict(images(1)[:, :, :12, :12])


@pytest.mark.parametrize(
    "wrong",
    [
        {"scales": 0}, {"coupling_blocks": 0}, {"clamp": 0.0}, {"hidden": 0}, {"layers": 0},
        {"train_rotations": 0}, {"test_rotations": 0}, {"map_rotations": 0}, {"sigma": -1.0},
        {"learning_rate": float("inf")}, {"iterations": 0}, {"training_precision": "fp8"},
        {"map_rotations": 3, "localise": "none"}, {"sigma": 2.0, "localise": "none", "map_rotations": 8},
    ],
)  # fmt: skip
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        kizu.detector("differnet", NET, **{**SMALL, **wrong})


def test_unknown_maps_name_the_nearest() -> None:
    with pytest.raises(UnknownName, match="gradient"):
        kizu.detector("differnet", NET, **{**SMALL, "localise": "gradients"})
