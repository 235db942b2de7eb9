"""The two-class network: score and map of one linear layer, what learns, what is refused, and exact
resuming."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch.nn import functional

import kizu
from kizu.detectors.classifier import (
    Classifier,
    ClassifierObjective,
    ClassifierScorer,
    LinearHead,
    image_logits,
)
from kizu.detectors.runtime import Runtime
from kizu.errors import UnknownName, UsageError
from kizu.images import open_image
from kizu.losses.focal import focal
from kizu.metrics.image_metrics import image_metrics
from kizu.representations.base import Representation
from kizu.representations.sources import open_representation
from kizu.samples import Samples
from kizu.training import FitOptions, Position
from kizu.types import Batch

FAST: dict[str, Any] = {"iterations": 6, "learning_rate": 0.05, "training_precision": "fp32"}
SMALL = Runtime(image_size=32, precision="fp32", batch_size=4)


@pytest.fixture(scope="module")
def net() -> Representation:
    return open_representation("random/resnet10t@1,2")


def images(count: int = 6, seed: int = 0, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def labelled(count: int = 6, seed: int = 0) -> Batch:
    """Every second image is anomalous: red."""
    given, labels = images(count, seed), torch.arange(count) % 2
    given[labels == 1, 0] = 1.0
    return Batch(given, labels=labels)


def features(*shapes: tuple[int, ...], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def test_the_score_is_a_linear_layer_on_pooled_features() -> None:
    """ResNet's head (He et al.): global average pooling, then one linear layer."""
    given = features((3, 5, 8, 8), (3, 7, 4, 4))
    head = LinearHead((5, 7), seed=1)
    first, second = head.levels
    weight = torch.cat([first.weight.flatten(), second.weight.flatten()])
    pooled = torch.cat([level.flatten(2).mean(2) for level in given], dim=1)
    expected = functional.linear(pooled, weight[None], first.bias)[:, 0]
    assert torch.allclose(image_logits(head(given)), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (32, 64), (24, 40)])
def test_the_mean_of_the_map_is_the_score(size: tuple[int, int]) -> None:
    scorer = ClassifierScorer(LinearHead((5, 7), seed=1))
    maps, scores = scorer(features((3, 5, 8, 8), (3, 7, 4, 4)), size)
    assert maps.shape == (3, *size)
    assert torch.allclose(maps.mean(dim=(1, 2)), scores, atol=1e-5)


def test_a_position_with_more_evidence_is_hotter() -> None:
    head = LinearHead((1,), seed=0)
    with torch.no_grad():
        head.levels[0].weight.fill_(2.0)
        head.levels[0].bias.fill_(-1.0)
    level = torch.zeros(1, 1, 4, 4)
    level[0, 0, 1, 2] = 8.0
    maps, scores = ClassifierScorer(head)([level], (16, 16))
    assert scores.item() == pytest.approx(2.0 * 8 / 16 - 1)
    assert divmod(int(maps[0].argmax()), 16) in {(y, x) for y in range(4, 8) for x in range(8, 12)}


def test_the_loss_is_the_focal_loss_and_reaches_what_learns(net: Representation) -> None:
    batch = labelled()
    for train in ("network", "head"):
        detector = Classifier(net, train=train, augmentation="none", runtime=SMALL, **FAST)
        network = detector.network()
        objective = detector.objective(network).eval()
        given = objective.prepare({"images": batch.images, "labels": batch.labels}, Position(0, 0, 6))
        losses = objective.loss(given)
        with torch.no_grad():
            maps = (network.encoder or net).eval()(batch.images)
            z = image_logits(network.head(maps)).double()
        p_t = torch.where(batch.labels == 1, z.sigmoid(), 1 - z.sigmoid())
        weight = torch.where(batch.labels == 1, 0.25, 0.75)
        assert losses["loss"].item() == pytest.approx(
            float((-weight * (1 - p_t) ** 2 * p_t.log()).mean()), rel=1e-5
        )
        losses["loss"].backward()
        assert all(parameter.grad is not None for parameter in network.head.parameters())
        assert (network.encoder is not None) == (train == "network")
        if network.encoder is not None:
            assert all(parameter.grad is not None for parameter in network.encoder.parameters())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_linear_probe_is_sgd_on_fixed_features(net: Representation) -> None:
    """Three steps by hand on features computed once."""
    batch = labelled(4)
    detector = Classifier(net, train="head", augmentation="none", runtime=SMALL, **{**FAST, "iterations": 3})
    detector.fit(batch)
    head = LinearHead(net.channels, seed=0)
    with torch.no_grad():
        maps = [level.detach() for level in copy.deepcopy(net).eval()(batch.images)]
    sgd = torch.optim.SGD(head.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    for _ in range(3):  # a batch is all images, in another order
        sgd.zero_grad()
        focal(image_logits(head(maps)), batch.labels, alpha=0.25).backward()
        sgd.step()
    with torch.no_grad():
        expected = image_logits(head(maps))
    assert torch.allclose(detector.predict(batch.images).score, expected, rtol=1e-3, atol=1e-4)


def test_augmentation_is_a_function_of_seed_and_place(net: Representation) -> None:
    detector = Classifier(net, runtime=SMALL, **FAST)
    objective = detector.objective(detector.network())
    assert isinstance(objective, ClassifierObjective)
    batch = {"images": images(4), "labels": torch.tensor([0, 1, 0, 1])}
    whole, labels = objective.prepare(batch, Position(3, 12, 4))
    half = {"images": images(4)[2:], "labels": batch["labels"][2:]}
    part, _ = objective.prepare(half, Position(3, 14, 2))
    assert torch.allclose(whole[2:], part, atol=1e-6)
    assert not torch.allclose(whole, objective.prepare(batch, Position(4, 16, 4))[0])
    assert torch.equal(labels, batch["labels"])
    plain = Classifier(net, augmentation="none", runtime=SMALL, **FAST)
    kept, _ = plain.objective(plain.network()).prepare(batch, Position(0, 0, 4))
    assert torch.equal(kept, batch["images"])


@pytest.mark.parametrize("train", ["network", "head"])
def test_it_learns_the_classes(net: Representation, train: str) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    detector = Classifier(
        net, train=train, runtime=SMALL, **{**FAST, "iterations": 40, "learning_rate": 0.01}
    )
    assert detector.fit(labelled(16)) is detector
    test = labelled(20, seed=9)
    assert image_metrics(detector.predict(test.images).score, test.labels)["auroc"] == 1.0
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_map_is_hot_where_the_foreign_patch_lies(tiny_planted: Samples) -> None:
    """A linear probe on trained features; the patch lies elsewhere in training."""
    good = torch.stack([torch.from_numpy(open_image(path)) for path in tiny_planted.normal.paths[:24]])
    good = good.permute(0, 3, 1, 2).float() / 255
    painted = good.clone()
    painted[:12, :, 32:56, 8:32] = torch.tensor([0.9, 0.1, 0.8])[:, None, None]
    painted[12:, :, 8:32, 32:56] = torch.tensor([0.9, 0.1, 0.8])[:, None, None]
    learn = Batch(torch.cat([good[:12], painted[:12]]), labels=torch.arange(24) // 12)
    detector = Classifier(
        "kizu/starter@2,3", train="head", iterations=40, learning_rate=0.1, training_precision="fp32",
        runtime=Runtime(image_size=64, precision="fp32", batch_size=8),
    ).fit(learn)  # fmt: skip
    flawed = detector.predict(painted[12:])
    assert flawed.score.min() > detector.predict(good[12:]).score.max()
    assert flawed.map[:, 8:32, 32:56].mean() > flawed.map[:, 32:56, 8:32].mean()


@pytest.mark.parametrize("train", ["network", "head"])
def test_save_and_load(net: Representation, train: str, tmp_path: Path) -> None:
    detector = Classifier(net, train=train, runtime=SMALL, **FAST).fit(labelled())
    loaded = kizu.load(detector.save(tmp_path / "model.kizu"))
    assert torch.equal(loaded.predict(images()).score, detector.predict(images()).score)
    assert torch.equal(loaded.predict(images()).map, detector.predict(images()).map)
    assert loaded.parameters == detector.parameters


def test_with_a_residual_adaptation(net: Representation, tmp_path: Path) -> None:
    """Adapted to the good images among the labelled ones."""
    detector = Classifier(
        net, adaptation=kizu.Adaptation("residual", {"shots": 1}), runtime=SMALL, **FAST
    ).fit(labelled())
    assert detector.representation_.card["kind"] == "residual"
    loaded = kizu.load(detector.save(tmp_path / "model"))
    assert torch.equal(loaded.predict(images()).score, detector.predict(images()).score)


def test_fitting_again_begins_anew(net: Representation) -> None:
    detector = Classifier(net, runtime=SMALL, **FAST).fit(labelled())
    first = detector.predict(images()).score
    detector.fit(labelled(8, seed=5))
    assert not torch.equal(detector.predict(images()).score, first)
    assert torch.equal(detector.fit(labelled()).predict(images()).score, first)


class _Interrupted(Exception):
    pass


@pytest.mark.parametrize("train", ["network", "head"])
def test_resumed_is_uninterrupted(net: Representation, train: str, tmp_path: Path) -> None:
    def stop(step: int, fitted: Classifier) -> dict[str, float]:
        assert torch.isfinite(fitted.predict(images(1)).score).all()
        if step == 4:
            raise _Interrupted
        return {}

    detector = Classifier(net, train=train, runtime=SMALL, **FAST)
    whole = detector.clone().fit(labelled())
    options = FitOptions(folder=tmp_path, checkpoint_every=2, evaluate=stop, evaluate_every=2)
    with pytest.raises(_Interrupted):
        detector.fit(labelled(), options=options)
    resumed = detector.clone().fit(labelled(), options=FitOptions(folder=tmp_path, resume=True))
    for name, value in whole.network_.state_dict().items():
        assert torch.equal(resumed.network_.state_dict()[name], value), name


def test_both_classes_must_be_there(net: Representation, tiny_planted: Samples) -> None:
    detector = Classifier(net, runtime=SMALL, **FAST)
    good = Batch(images(), labels=torch.zeros(6, dtype=torch.int64))
    with pytest.raises(UsageError, match="got 6 good and 0 anomalous"):
        detector.fit(good)
    with pytest.raises(UsageError, match="got 0 good and 12 anomalous"):
        detector.fit(tiny_planted.anomalous)
    with pytest.raises(UsageError, match="6 of 6 images have no label"):
        detector.fit(images())
    rows = tiny_planted.test.table.drop("defect")
    unknown = pl.when(pl.int_range(pl.len()) == 3).then(None).otherwise(pl.col("label"))
    with pytest.raises(UsageError, match="1 of 24 images have no label"):
        detector.fit(Samples(rows.with_columns(unknown.cast(pl.Int8).alias("label"))))
    assert not detector.fitted_


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gamma", -1.0), ("gamma", math.nan), ("alpha", 1.5), ("alpha", math.nan), ("learning_rate", 0.0),
        ("momentum", -0.1), ("momentum", 1.5), ("weight_decay", -1.0), ("iterations", 0),
        ("training_precision", "fp8"),
    ],
)  # fmt: skip
def test_values_out_of_range(net: Representation, name: str, value: object) -> None:
    with pytest.raises(UsageError, match=name):
        Classifier(net, **{name: value})


def test_unknown_names(net: Representation) -> None:
    with pytest.raises(UnknownName, match="'network'"):
        Classifier(net, train="networks")
    with pytest.raises(UnknownName, match="'weak'"):
        Classifier(net, augmentation="week")
