"""SimpleNet: its loss by hand, its noise by position, what it finds on the default representation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import kizu
from kizu.detectors.simplenet import Network, SimpleNet, SimpleNetObjective, truncated_l1
from kizu.errors import UsageError
from kizu.metrics import image_metrics
from kizu.samples import Samples
from kizu.training import FitOptions, Position

SMALL: dict[str, Any] = {
    "image_size": 64, "batch_size": 8, "hidden": 32, "iterations": 40, "noise": 0.3, "learning_rate": 2e-3,
    "sigma": 2.0, "precision": "fp32", "training_precision": "fp32",
}  # fmt: skip


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_truncated_l1_by_hand() -> None:
    good, false = torch.tensor([0.2, 0.9, -1.0]), torch.tensor([-0.7, 0.1, -0.4])
    expected = (0.3 + 0.0 + 1.5) / 3 + (0.0 + 0.6 + 0.1) / 3
    assert truncated_l1(good, false, 0.5).item() == pytest.approx(expected)


def objective(seed: int = 3) -> SimpleNetObjective:
    torch.manual_seed(0)
    net = Network(6, 5, 1)
    return SimpleNetObjective(net, noise=0.4, margin=0.5, rates=(1e-4, 2e-4), weight_decay=1e-5, seed=seed)


def test_the_loss_in_float64_against_the_formula() -> None:
    made = objective().double().eval()
    rows, noise = torch.randn(7, 6, dtype=torch.float64), torch.randn(7, 6, dtype=torch.float64)
    net = made.network
    adapted = rows @ net.adapter.weight.T + net.adapter.bias
    first, norm, _, last = net.discriminator

    def score(values: Tensor) -> Tensor:
        hidden = values @ first.weight.T + first.bias
        hidden = (hidden - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        return torch.where(hidden > 0, hidden, 0.2 * hidden) @ last.weight[0]

    expected = (0.5 - score(adapted)).clamp(min=0).mean() + (0.5 + score(adapted + noise)).clamp(min=0).mean()
    assert made.loss((rows, noise))["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_noise_is_a_function_of_the_position() -> None:
    made = objective()
    batch = {"features": [torch.randn(2, 6, 3, 3)]}
    rows, noise = made.prepare(batch, Position(4, 8, 2))
    again, other = made.prepare(batch, Position(4, 8, 2))[1], made.prepare(batch, Position(5, 10, 2))[1]
    assert rows.shape == noise.shape == (18, 6)
    assert torch.equal(noise, again)
    assert not torch.equal(noise, other)
    assert noise.std().item() == pytest.approx(0.4, rel=0.3)


@pytest.mark.slow
def test_it_finds_planted_flaws_with_trained_weights(tiny_planted: Samples) -> None:
    """Half the image painted over scores above every good test image, and where it is painted."""
    detector = kizu.detector("simplenet", "kizu/starter@2,3", **{**SMALL, "iterations": 150}).fit(
        tiny_planted.train
    )
    test = detector.predict(tiny_planted.test)
    assert image_metrics(test.score, tiny_planted.test.labels)["auroc"] > 0.6
    good = detector.predict(tiny_planted.test.normal)
    from kizu.images import open_image

    painted = torch.stack([torch.from_numpy(open_image(path)) for path in tiny_planted.test.normal.paths])
    painted = painted.permute(0, 3, 1, 2).float() / 255
    painted[:, :, 16:48, 16:48] = torch.tensor([0.9, 0.1, 0.8])[:, None, None]
    foreign = detector.predict(painted)
    assert foreign.score.min() > good.score.median()
    assert foreign.map[:, 16:48, 16:48].mean() > foreign.map[:, :8].mean()


def test_resumed_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(step: int, _: object) -> dict[str, float]:
        if step == 20:
            raise Stop
        return {}

    whole = kizu.detector("simplenet", "random/resnet10t@2", **SMALL).fit(images(9))
    options = FitOptions(folder=tmp_path, checkpoint_every=8, evaluate=stop, evaluate_every=20)
    with pytest.raises(Stop):
        kizu.detector("simplenet", "random/resnet10t@2", **SMALL).fit(images(9), options=options)
    resumed = kizu.detector("simplenet", "random/resnet10t@2", **SMALL)
    resumed.fit(images(9), options=FitOptions(folder=tmp_path, resume=True))
    for (name, value), (other, expected) in zip(
        resumed._state().items(), whole._state().items(), strict=True
    ):
        assert name == other
        assert torch.equal(value, expected)


def test_evaluation_on_the_way_changes_nothing() -> None:
    seen: list[int] = []

    def evaluate(step: int, fitted: SimpleNet) -> dict[str, float]:
        seen.append(step)
        return {"mean": float(fitted.predict(images(2)).score.mean())}

    plain = kizu.detector("simplenet", "random/resnet10t@2", **SMALL).fit(images(9))
    options = FitOptions(evaluate=evaluate, evaluate_every=15)
    watched = kizu.detector("simplenet", "random/resnet10t@2", **SMALL).fit(images(9), options=options)
    assert seen == [15, 30, 40]
    assert [row["step"] for row in watched.log_ if "mean" in row] == seen
    assert torch.equal(plain.predict(images(2)).map, watched.predict(images(2)).map)


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise": 0.0}, {"noise": float("nan")}, {"hidden": 0}, {"margin": -1.0}, {"learning_rate": 0.0},
        {"adapter_learning_rate": -1e-4}, {"weight_decay": float("inf")}, {"iterations": 0}, {"sigma": -1.0},
        {"neighbourhood": 0}, {"training_precision": "fp8"}, {"batch_size": 0}, {"image_size": 2},
    ],
)  # fmt: skip
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        kizu.detector("simplenet", "random/resnet10t@2", **{**SMALL, **wrong})
