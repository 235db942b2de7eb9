"""CutPaste: its task and its scores against slow definitions, what it finds, resuming, and nonsense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor
from torch.nn import functional

import kizu
from kizu.detectors._cutpaste_parts import CutPasteObjective, CutPasteScorer, WindowScorer
from kizu.detectors._density_scorer import DensityScorer
from kizu.detectors.cutpaste import CutPaste
from kizu.errors import UnknownName, UsageError
from kizu.training import FitOptions, Position

SMALL: dict[str, Any] = {
    "image_size": 32, "batch_size": 4, "hidden": 8, "iterations": 8, "frozen": 2, "precision": "fp32",
    "training_precision": "fp32",
}  # fmt: skip
NET = "small/lenet"


def images(count: int, seed: int = 0, side: int = 32) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def detector(**given: Any) -> CutPaste:
    made: CutPaste = kizu.detector("cutpaste", NET, **{**SMALL, **given})
    return made


def objective(**given: Any) -> CutPasteObjective:
    made = detector(**given)
    return made.objective(made.network())


def position(step: int = 3) -> Position:
    return Position(step, 4 * step, 4)


@pytest.mark.parametrize(("task", "classes"), [("3way", 3), ("binary", 2), ("scar", 2), ("union", 2)])
def test_the_first_class_is_good_and_the_others_have_a_paste(task: str, classes: int) -> None:
    made, batch = objective(task=task, jitter=0.0), images(4, side=128)
    views, labels, frozen = made.prepare({"images": batch}, position())
    assert views.shape == (4 * classes, 3, 128, 128)
    assert labels.tolist() == [number for number in range(classes) for _ in range(4)]
    assert torch.equal(views[:4], batch)
    changed = (views[4:] != batch.repeat(classes - 1, 1, 1, 1)).any(1).float().mean((1, 2))
    assert (changed > 0).all()
    assert (changed < 0.2).all(), "a patch has at most 0.15 of the area"
    assert not frozen
    assert made.network.head.layers[-1].out_features == classes


def test_views_are_a_function_of_the_position() -> None:
    made, batch = objective(crop=16), {"images": images(4)}
    views, again, other = (made.prepare(batch, position(step))[0] for step in (3, 3, 4))
    assert views.shape == (12, 3, 16, 16)
    assert torch.equal(views, again)
    assert not torch.equal(views, other)


def test_windows_in_training_are_windows_of_the_image() -> None:
    made, batch = objective(crop=16, jitter=0.0), images(4)
    for step in range(5):
        for image, view in zip(batch, made.prepare({"images": batch}, position(step))[0][:4], strict=True):
            cuts = image.unfold(1, 16, 1).unfold(2, 16, 1)  # (3, 17, 17, 16, 16)
            assert (cuts == view[:, None, None]).all(4).all(3).all(0).any()


@torch.no_grad()
def test_the_loss_in_float64_against_the_formula() -> None:
    made = objective().double().eval()
    views, labels, _ = made.prepare({"images": images(4).double()}, position())
    net = made.network
    feature = torch.stack([net.encoder(view[None])[0][0].mean((1, 2)) for view in views])
    for linear, norm in ((net.head.layers[0], net.head.layers[1]), (net.head.layers[3], net.head.layers[4])):
        feature = feature @ linear.weight.T
        feature = (feature - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        feature = (feature * norm.weight + norm.bias).clamp(min=0)
    logits = feature @ net.head.layers[-1].weight.T + net.head.layers[-1].bias
    right = logits.exp()[torch.arange(12), labels] / logits.exp().sum(1)
    found = float(made.loss((views, labels, False))["loss"].detach())
    assert found == pytest.approx(-float(right.log().mean().detach()), rel=1e-9)


def test_the_encoder_stays_while_it_is_frozen() -> None:
    before = detector().network().encoder.state_dict()
    weights = [name for name in before if name.endswith("weight") and "head" not in name]
    for iterations, stays in ((2, True), (3, False)):
        after = detector(iterations=iterations).fit(images(6)).network_.encoder.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in weights) is stays


def features(encoder: Any, batch: Tensor) -> Tensor:
    with torch.no_grad():
        return functional.normalize(encoder(batch)[0].mean((2, 3)).double(), dim=1)


def test_the_score_is_the_density_of_the_trained_features() -> None:
    good, batch = images(12), images(3, 5)
    fitted = detector().fit(good)
    encoder = fitted.network_.encoder
    expected = LedoitWolf().fit(features(encoder, good).numpy()).mahalanobis(features(encoder, batch).numpy())
    assert fitted.predict(batch).score.numpy() == pytest.approx(expected**0.5, rel=0.01)


def test_windows_are_scored_one_by_one_by_one_density() -> None:
    good, batch = images(3), images(2, 5)
    fitted = detector(crop=16, stride=8).fit(good)

    def windows(image: Tensor, stride: int) -> Tensor:
        places = range(0, 17, stride)
        return torch.stack([image[:, y : y + 16, x : x + 16] for y in places for x in places])

    encoder = fitted.network_.encoder
    rows = torch.cat([features(encoder, windows(image, 8)) for image in good])
    truth = LedoitWolf().fit(rows.numpy())
    found = fitted.predict(batch)
    for image, score, map_ in zip(batch, found.score, found.map, strict=True):
        expected = truth.mahalanobis(features(encoder, windows(image, 8)).numpy()) ** 0.5
        assert float(score) == pytest.approx(expected.max(), rel=0.01)
        assert float(map_[0, 0]) == pytest.approx(expected[0], rel=0.01), "one window alone sees the corner"
        assert map_.max() <= score * 1.001


def test_grad_cam_is_the_gradient_of_the_class() -> None:
    """The closed form against autograd through the feature map, Eq. 1-2 of Grad-CAM."""
    head = detector().network().head.eval()
    density = DensityScorer(torch.zeros(128), torch.eye(128), sigma=0.0)
    scorer = CutPasteScorer(density, head).eval().requires_grad_(False)
    grid = torch.rand(2, 128, 4, 4, generator=torch.Generator().manual_seed(2)).requires_grad_(True)
    logits = head(grid.mean((2, 3)))
    odds = (logits.softmax(1)[:, 1:].sum(1) / logits.softmax(1)[:, 0]).log()
    (gradient,) = torch.autograd.grad(odds.sum(), grid)
    expected = (gradient.mean((2, 3), keepdim=True) * grid).sum(1).relu().detach()
    with torch.inference_mode():
        map_, score = scorer([grid.detach()], (4, 4))
    assert torch.allclose(map_, expected, atol=1e-7)
    assert map_.max() > 0
    assert torch.allclose(score, torch.ones(2), atol=1e-5), "the length of a normalised feature about 0"


def test_grad_cam_leaves_the_score() -> None:
    share, cam = (
        detector(localise=name).fit(images(6)).predict(images(3, 5)) for name in ("share", "grad_cam")
    )
    assert torch.equal(share.score, cam.score)
    assert cam.map.min() >= 0
    assert not torch.equal(share.map, cam.map)


def test_shares_add_up_to_the_score() -> None:
    fitted = detector(sigma=0.0, alignment="grid").fit(images(6))
    found = fitted.predict(images(3, 5))
    assert torch.allclose(found.map.mean((1, 2)), found.score, rtol=1e-3)


def striped(count: int, seed: int) -> Tensor:
    stripes = 0.5 + 0.3 * torch.sin(torch.arange(32) * 0.8)[None, None, None]
    return (stripes + 0.1 * (images(count, seed) - 0.5)).clamp(0, 1)


@pytest.mark.parametrize("given", [{}, {"crop": 16, "stride": 4}])
def test_a_piece_of_another_place_is_found(given: dict[str, Any]) -> None:
    """Stripes with a piece that is turned by 90 degrees."""
    fitted = detector(iterations=40, learning_rate=0.01, **given).fit(striped(24, 0))
    good, flawed = striped(12, 1), striped(12, 2)
    flawed[:, :, 4:16, 4:16] = flawed[:, :, 4:16, 4:16].transpose(2, 3)
    found = fitted.predict(flawed)
    assert found.score.median() > fitted.predict(good).score.max()
    assert (found.map[:, 4:16, 4:16].mean((1, 2)) > found.map[:, 20:, 20:].mean((1, 2))).float().mean() > 0.8


@pytest.mark.parametrize("given", [{"crop": 16, "stride": 8}, {"localise": "grad_cam"}])
def test_saved_and_opened_and_scored_as_alone(tmp_path: Path, given: dict[str, Any]) -> None:
    fitted, batch = detector(**given).fit(images(6)), images(5, 7)
    together = fitted.predict(batch)
    loaded = kizu.load(fitted.save(tmp_path / "model.kizu")).predict(batch)
    assert torch.equal(loaded.score, together.score)
    assert torch.equal(loaded.map, together.map)
    for number in range(5):
        alone = fitted.predict(batch[number : number + 1])
        assert torch.allclose(alone.score[0], together.score[number], rtol=1e-4)
        assert torch.allclose(alone.map[0], together.map[number], rtol=1e-3, atol=1e-4)
    assert isinstance(fitted.scorer(), WindowScorer if "crop" in given else CutPasteScorer)


@pytest.mark.parametrize("given", [{}, {"crop": 16, "stride": 8, "task": "union"}])
def test_resumed_is_the_same_bit_for_bit(tmp_path: Path, given: dict[str, Any]) -> None:
    class Stop(Exception):
        pass

    def stop(step: int, _: object) -> dict[str, float]:
        if step == 6:
            raise Stop
        return {}

    whole = detector(**given).fit(images(6))
    options = FitOptions(folder=tmp_path, checkpoint_every=4, evaluate=stop, evaluate_every=6)
    with pytest.raises(Stop):
        detector(**given).fit(images(6), options=options)
    resumed = detector(**given).fit(images(6), options=FitOptions(folder=tmp_path, resume=True))
    for (name, value), (other, expected) in zip(
        resumed._state().items(), whole._state().items(), strict=True
    ):
        assert name == other
        assert torch.equal(value, expected), name


@pytest.mark.parametrize(
    "wrong",
    [
        {"task": "2way"}, {"hidden": 0}, {"head_layers": 0}, {"frozen": -1}, {"jitter": 0.6},
        {"covariance": "x"}, {"localise": "cam"}, {"crop": 4}, {"crop": 33}, {"stride": 8},
        {"crop": 16, "stride": 17}, {"crop": 16, "localise": "grad_cam"}, {"crop": 16, "sigma": 2.0},
        {"learning_rate": 0.0}, {"momentum": 1.0}, {"weight_decay": -1.0}, {"sigma": -1.0},
        {"iterations": 0}, {"training_precision": "fp8"},
    ],
)  # fmt: skip
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((UsageError, UnknownName), match=list(wrong)[-1]):
        detector(**wrong)


def test_windows_larger_than_the_images() -> None:
    with pytest.raises(UsageError, match="larger than images"):
        detector(crop=24).fit(images(3, side=16))
    with pytest.raises(UsageError, match="coarsest"):
        kizu.detector("cutpaste", "small/ssim_ae", **{**SMALL, "crop": 12}).fit(images(3))


def test_half_precision_scores_nearly_the_same_and_after_opening_the_very_same(tmp_path: Path) -> None:
    given: dict[str, Any] = {**{"localise": "grad_cam"}, "training_precision": "bf16"}
    half = detector(**given, precision="bf16").fit(images(6))
    loaded = kizu.load(half.save(tmp_path / "model.kizu"))
    found = half.predict(images(3, 5))
    assert torch.equal(loaded.predict(images(3, 5)).map, found.map)
    full = kizu.load(tmp_path / "model.kizu", precision="fp32").predict(images(3, 5))
    assert torch.allclose(full.score, found.score, rtol=0.05, atol=0.05)
