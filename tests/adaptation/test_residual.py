"""Residual features: each minus its nearest reference, by brute force; saved and opened over every base."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import kizu
from kizu.adaptation._references import spread
from kizu.adaptation.base import Adaptation
from kizu.errors import (
    EmptyData,
    ModelFileError,
    ShapeError,
    TooFewImages,
    UnknownName,
    UnknownParameter,
    UsageError,
)
from kizu.images import image_digest
from kizu.nn.patches import to_rows
from kizu.representations.base import Representation
from kizu.representations.residual import Residual
from kizu.representations.sources import open_representation, save_representation
from kizu.representations.stacked import Stacked
from kizu.samples import Samples
from kizu.training import SampleStore
from kizu.types import Batch

BASES = ("random", "file", "starter")


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def store(count: int = 6) -> SampleStore:
    good = SampleStore()
    good.add(Batch(images(count)))
    return good


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Representation]:
    import safetensors.torch

    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    source = open_representation("random/resnet10t@2,3", seed=5)
    weights = {name.removeprefix("net."): value for name, value in source.state_dict().items()}
    safetensors.torch.save_file(weights, path)
    opened = {
        "random": open_representation("random/resnet10t@2,3"),
        "file": open_representation(f"resnet10t:{path}@2,3"),
        "starter": open_representation("kizu/starter@2,3"),
    }
    return {name: net.eval() for name, net in opened.items()}  # in training, a forward pass changes norms


@pytest.mark.parametrize("matching", ["l2", "cosine"])
def test_each_feature_minus_its_nearest_reference(matching: str, bases: dict[str, Representation]) -> None:
    base = bases["random"].eval()
    good = store(4)
    net = Adaptation("residual", {"shots": 2, "matching": matching}).adapt(base, good).eval()
    assert isinstance(net, Residual)
    assert (net.channels, net.strides) == (base.channels, base.strides)
    queries = images(3, seed=9)
    for level, residual, bank in zip(base(queries), net(queries), net.references, strict=True):
        rows, banked = to_rows(level).double(), bank.double()
        if matching == "l2":
            nearest = torch.cdist(rows, banked).argmin(1)
        else:
            nearest = (functional.normalize(rows) @ functional.normalize(banked).T).argmax(1)
        expected = rows - banked[nearest]
        assert torch.allclose(to_rows(residual).double(), expected, rtol=1e-4, atol=1e-4)
    one, three = net(queries[1:2]), net(queries)
    assert all(torch.allclose(a[0], b[1], rtol=1e-4, atol=1e-4) for a, b in zip(one, three, strict=True))


def test_references_have_no_residual(bases: dict[str, Representation]) -> None:
    net = Adaptation("residual", {"shots": 8}).adapt(bases["random"], store(4))
    assert net.card["shots"] == 4
    for level, features in zip(
        net.inference_copy("fp32", "cpu")(images(4)), bases["random"](images(4)), strict=True
    ):
        assert level.abs().max() < 1e-3 * features.abs().max()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("base", BASES)
def test_saved_and_opened_over_every_base(
    base: str, precision: str, bases: dict[str, Representation], tmp_path: Path
) -> None:
    net = Adaptation("residual", {"shots": 2}).adapt(bases[base], store())
    again = kizu.representation(save_representation(net, tmp_path / "net.kizu"))
    assert isinstance(again, Residual)
    assert again.base.card["name"] == bases[base].card["name"]
    expected, got = (one.inference_copy(precision, "cpu")(images(2, 7)) for one in (net, again))
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    assert all(level.dtype == torch.float32 and bool(level.isfinite().all()) for level in got)


def test_bf16_moves_residuals_no_more_than_features(bases: dict[str, Representation]) -> None:
    """The distance to the nearest reference is 1-Lipschitz: |x| moves it by at most as much as x moves."""
    base = bases["starter"]
    net = Adaptation("residual", {"shots": 2}).adapt(base, store())
    exact, rounded = (net.inference_copy(precision, "cpu")(images(2, 7)) for precision in ("fp32", "bf16"))
    features = [base.inference_copy(precision, "cpu")(images(2, 7)) for precision in ("fp32", "bf16")]
    for a, b, x, y in zip(exact, rounded, *features, strict=True):
        moved = (a.norm(dim=1) - b.norm(dim=1)).abs()
        assert bool((moved <= (x - y).norm(dim=1) + 1e-4 * x.norm(dim=1) + 1e-5).all())
        assert moved.max() > 0


def test_it_nests(bases: dict[str, Representation], tmp_path: Path) -> None:
    inner = Adaptation("residual", {"shots": 1}).adapt(bases["random"], store())
    outer = Adaptation("residual", {"shots": 1}).adapt(inner, store())
    both = Stacked([outer, bases["starter"]])
    again = kizu.representation(save_representation(both, tmp_path / "both"))
    expected, got = (one.inference_copy("fp32", "cpu")(images(2, 3)) for one in (both, again))
    assert len(got) == 4
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


def test_the_base_is_left_alone(bases: dict[str, Representation]) -> None:
    base = bases["random"]
    before = {name: value.clone() for name, value in base.state_dict().items()}
    Adaptation("residual", {"selection": "kmeans", "shots": 2}).adapt(base, store())
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def test_kmeans_spreads_the_references() -> None:
    """Three clusters far from each other: one row of each, the nearest to the mean."""
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    rows = np.concatenate([centre + rng.normal(size=(7, 2)) for centre in centres])
    expected = []
    for cluster in range(3):
        mine = np.arange(7 * cluster, 7 * cluster + 7)
        distances = np.linalg.norm(rows[mine] - rows[mine].mean(0), axis=1)
        expected.append(int(mine[distances.argmin()]))
    assert spread(rows, 3, seed=1) == expected
    with pytest.raises(TooFewImages, match="as many good images as shots"):
        spread(rows[:2], 3, seed=1)


def test_same_seed_same_references(bases: dict[str, Representation]) -> None:
    first, same, other = (
        Adaptation("residual", {"shots": 2}, seed=seed).adapt(bases["random"], store(12))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first.state()["references.0"], same.state()["references.0"])
    assert not torch.equal(first.state()["references.0"], other.state()["references.0"])


def test_misuse_teaches(bases: dict[str, Representation], tmp_path: Path) -> None:
    base = bases["random"]
    for shots in (0, -1, 1.5, True):
        with pytest.raises(UsageError, match="shots"):
            Adaptation("residual", {"shots": shots})
    with pytest.raises(UnknownName, match="kmeans"):
        Adaptation("residual", {"selection": "k-means"})
    with pytest.raises(UnknownName, match="cosine"):
        Adaptation("residual", {"matching": "cos"})
    with pytest.raises(UnknownParameter, match="shots"):
        Adaptation("residual", {"shot": 2})
    with pytest.raises(UnknownName, match="residual"):
        Adaptation("residua")
    with pytest.raises(EmptyData):
        Adaptation("residual").adapt(base, SampleStore())
    with pytest.raises(ShapeError, match="a bank a level"):
        Residual(base, [torch.zeros(3, 5)])
    with pytest.raises(ModelFileError):
        Residual.from_card({"kind": "residual", "base": base.sealed_card()}, {})


def test_adapt_lists_the_images_it_has_seen(tiny_planted: Samples) -> None:
    good = tiny_planted.train.take(range(3))
    net = kizu.adapt("residual", "random/resnet10t@2", good, image_size=64, shots=2)
    assert net.card["images_seen"] == [image_digest(path) for path in good.paths]
    assert net.card["adapted_by"] == {
        "name": "residual",
        "parameters": {
            **{"shots": 2, "selection": "random", "matching": "l2", "projector": None},
            **{"references": "fixed", "matcher": None, "grid": 5, "centres": 5},
        },
        "seed": 0,
        "white_level": None,
    }
    with pytest.raises(UsageError, match="good images only"):
        kizu.adapt("residual", "random/resnet10t@2", tiny_planted.test, image_size=64)
