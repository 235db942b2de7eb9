"""References of each image's own, and a trained projector after the residuals: chosen by brute force, under
detectors, saved and opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import kizu
from kizu import engine
from kizu.adaptation.base import Adaptation
from kizu.errors import ModelFileError, ShapeError, TooFewImages, UnknownName, UsageError
from kizu.nn.projector import Projector
from kizu.representations.aligned_residual import AlignedResidual, References, identity
from kizu.representations.base import Representation
from kizu.representations.projected import Projected, describe_base, save_projector
from kizu.representations.residual import Residual
from kizu.representations.sources import open_representation, save_representation
from kizu.training import SampleStore
from kizu.types import Batch

NET = "random/test_resnet@1,2"
SMALL = {"references": "aligned", "shots": 3, "grid": 4, "centres": 2}


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def aligned(base: Representation, count: int = 8, seed: int = 0, **given: Any) -> AlignedResidual:
    good = SampleStore()
    good.add(Batch(images(count)))
    net = Adaptation("residual", {**SMALL, **given}, seed).adapt(base, good)
    assert isinstance(net, AlignedResidual)
    return net


@pytest.fixture(scope="module")
def base() -> Representation:
    return open_representation(NET).eval()


@pytest.fixture(scope="module")
def starter() -> Representation:
    return open_representation("kizu/starter@2,3").eval()


def chosen_by_hand(net: AlignedResidual, features: Tensor) -> list[int]:
    """The K most alike of the good images by app. C, for one image's matching level (C, h, w)."""
    h, w = features.shape[1:]
    rows = features.double().flatten(1).T
    apart = 1 - torch.nn.functional.normalize(rows) @ torch.nn.functional.normalize(net.centres.double()).T
    query = apart.clamp_min(1e-6) / apart.clamp_min(1e-6).sum(1, keepdim=True)
    distances = []
    for reference in net.histograms.double():
        divergence = (reference * (reference / query).log()).sum(1).view(h, w)
        worst = [
            [
                max(
                    float(divergence[i, j])
                    for i in range(h)
                    for j in range(w)
                    if (i * net.grid // h, j * net.grid // w) == (u, v)
                )
                for v in range(net.grid)
            ]
            for u in range(net.grid)
        ]
        distances.append(sum(map(sum, worst)) / net.grid**2)
    return sorted(range(len(distances)), key=distances.__getitem__)[: net.shots]


@pytest.mark.parametrize(("matching", "matcher"), [("l2", None), ("cosine", "random/test_resnet@2")])
def test_each_image_minus_the_nearest_of_its_own_references(
    matching: str, matcher: str | None, base: Representation
) -> None:
    net = aligned(base, matching=matching, matcher=matcher)
    queries = images(3, seed=9)
    frozen = net.inference_copy("fp32", "cpu")(queries)
    levels = base.inference_copy("fp32", "cpu")(queries)
    seen = open_representation(matcher).inference_copy("fp32", "cpu")(queries) if matcher else levels
    good = base.inference_copy("fp32", "cpu")(images(8))
    for image in range(3):
        chosen = chosen_by_hand(net, seen[0][image])
        for level, residual, bank in zip(levels, frozen, good, strict=True):
            rows = level[image].flatten(1).T.double()
            references = bank[chosen].flatten(2).transpose(1, 2).flatten(0, 1).double()
            near, far = (rows, references)
            if matching == "cosine":
                near, far = (torch.nn.functional.normalize(one) for one in (rows, references))
            expected = rows - references[torch.cdist(near, far).argmin(1)]
            assert torch.allclose(residual[image].flatten(1).T.double(), expected, rtol=1e-3, atol=1e-3)


def test_more_alike_images_are_chosen(starter: Representation) -> None:
    """Of two products, each image gets references of its own."""
    draw = torch.Generator().manual_seed(0)
    spots = torch.zeros(2, 3, 64, 64)
    spots[0, :, :32, :32], spots[1, 0, 32:, 32:] = 0.9, 0.9
    good = (
        torch.cat([spots[[0] * 5], spots[[1] * 5]]) + 0.05 * torch.rand(10, 3, 64, 64, generator=draw)
    ).clamp(0, 1)
    kept = SampleStore()
    kept.add(Batch(good))
    net = Adaptation("residual", SMALL).adapt(starter, kept).eval()
    assert isinstance(net, AlignedResidual)
    queries = (spots + 0.05 * torch.rand(2, 3, 64, 64, generator=draw)).clamp(0, 1)
    likeness = net._likeness(queries, [level.float() for level in starter(queries)])
    for product in range(2):
        chosen = net.most_alike(queries[product], likeness[product])
        assert set((chosen // 5).tolist()) == {product}


def test_an_image_is_no_reference_of_itself(base: Representation) -> None:
    net, good = aligned(base).eval(), images(8)
    assert net.identities.tolist() == [identity(image) for image in good]
    likeness = net._likeness(good, [level.float() for level in base(good)])
    for number in range(8):
        chosen = net.most_alike(good[number], likeness[number]).tolist()
        assert number not in chosen
        assert len(chosen) == 3
        other = good[number] + 2e-3  # hardly another image: the first choice is the one it was
        assert int(net.most_alike(other, likeness[number])[0]) == number
    assert all(bool((level.flatten(1).abs().amax(1) > 0).all()) for level in net(good))


def test_copies_of_one_image_have_no_residual(base: Representation) -> None:
    kept = SampleStore()
    kept.add(Batch(images(1).repeat(6, 1, 1, 1)))
    net = Adaptation("residual", SMALL).adapt(base, kept)
    assert all(float(level.abs().max()) < 1e-4 for level in net.inference_copy("fp32", "cpu")(images(1)))


def test_the_same_at_any_batch_size_and_number_of_threads(base: Representation) -> None:
    net, queries = aligned(base).inference_copy("fp32", "cpu"), images(6, seed=3)
    together, before = net(queries), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        spread = net(queries)
    finally:
        torch.set_num_threads(before)
    alone = [torch.cat(level) for level in zip(*(net(one[None]) for one in queries), strict=True)]
    for a, b, c in zip(together, alone, spread, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)
        assert torch.allclose(a, c, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "matcher"), [("base", "random/test_resnet@2"), ("starter", None)])
def test_saved_and_opened(
    name: str, matcher: str | None, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    net = aligned(request.getfixturevalue(name), count=4, matcher=matcher)
    again = kizu.representation(save_representation(net, tmp_path / "net.kizu"))
    assert isinstance(again, AlignedResidual)
    for precision in ("fp32", "bf16"):
        expected, got = (one.inference_copy(precision, "cpu")(images(2, 7)) for one in (net, again))
        assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


def test_same_seed_same_centres(base: Representation) -> None:
    first, same, other = (aligned(base, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(value, same.state()[name]) for name, value in first.state().items())
    assert not torch.equal(first.centres, other.centres)


def test_fewer_shots_are_some_of_the_same_images(base: Representation) -> None:
    good = SampleStore()
    good.add(Batch(images(12)))
    kept = []
    for shots in (2, 4, 8):
        net = Adaptation("residual", {"shots": shots}, seed=5).adapt(base, good)
        assert isinstance(net, Residual)
        kept.append({tuple(row) for row in net.references[1].reshape(shots, -1).tolist()})
    assert kept[0] < kept[1] < kept[2]


def projector_on(base: Representation, path: Path, kind: str = "mlp") -> str:
    with engine.seeded(0):
        projector = Projector(base.channels, kind=kind)
    return str(save_projector(path, projector, {"base": describe_base(base)}))


@pytest.mark.parametrize("given", [SMALL, {"shots": 3}], ids=["aligned", "fixed"])
@pytest.mark.parametrize("with_projector", [False, True], ids=["", "projector"])
def test_under_a_detector(given: dict[str, Any], with_projector: bool, tmp_path: Path) -> None:
    before = open_representation(NET)
    projector = projector_on(before, tmp_path / "projector") if with_projector else None
    adaptation = Adaptation("residual", {**given, "projector": projector})
    model = kizu.detector("gaussian", NET, adaptation=adaptation, image_size=64).fit(images(8))
    assert isinstance(model.representation_, Projected) == with_projector
    path = model.save(tmp_path / "model.kizu")
    if projector is not None:
        for file in Path(projector).iterdir():
            file.unlink()  # a model file needs nothing else
    again = kizu.load(path)
    assert torch.equal(again.predict(images(2, 5)).map, model.predict(images(2, 5)).map)
    assert again.representation.card["name"] == before.card["name"]
    assert again.clone().representation.card["kind"] == "backbone"


def test_a_projector_of_another_network_is_refused(base: Representation, tmp_path: Path) -> None:
    path = projector_on(open_representation(NET, seed=1), tmp_path / "projector")
    good = SampleStore()
    good.add(Batch(images(4)))
    with pytest.raises(UsageError, match=r"projector was trained on .* weights .*; here is .* weights"):
        Adaptation("residual", {"projector": path}).adapt(base, good)
    with pytest.raises(ModelFileError):
        Adaptation("residual", {"projector": str(tmp_path / "none")}).adapt(base, good)
    cross = projector_on(base, tmp_path / "cross", "cross_attention")
    with pytest.raises(UsageError, match="references='fixed'"):
        Adaptation("residual", {**SMALL, "projector": cross}).adapt(base, good)


def test_misuse_teaches(base: Representation) -> None:
    with pytest.raises(UnknownName, match="aligned"):
        Adaptation("residual", {"references": "semantic"})
    with pytest.raises(UsageError, match="selection has no effect with references='aligned'"):
        Adaptation("residual", {"references": "aligned", "selection": "kmeans"})
    for given in ({"grid": 4}, {"centres": 4}, {"matcher": NET}):
        with pytest.raises(UsageError, match="has no effect with references='fixed'"):
            Adaptation("residual", given)
    for given in ({"grid": 0}, {"centres": 1.5}, {"matcher": ""}, {"matcher": 5}, {"projector": "x" * 201}):
        with pytest.raises(UsageError, match=next(iter(given))):
            Adaptation("residual", {"references": "aligned", **given})
    with pytest.raises(TooFewImages, match="more than 3 are needed; there are 3"):
        aligned(base, count=3)
    with pytest.raises(UsageError, match="cannot be divided into 40 x 40"):
        aligned(base, grid=40)
    net = aligned(base)
    with pytest.raises(ShapeError, match="size of the good images"):
        net.inference_copy("fp32", "cpu")(torch.zeros(1, 3, 96, 96))
    kept = References([bank.detach() for bank in net.banks], net.histograms, net.centres, net.identities)
    given_: dict[str, Any] = {"positions": net.positions, "grid": 4, "shots": 3}
    with pytest.raises(ShapeError, match="a bank a level"):
        AlignedResidual(base, kept._replace(banks=kept.banks[:1]), **given_)
    with pytest.raises(ShapeError, match="Histograms have shape"):
        AlignedResidual(base, kept._replace(centres=net.centres[:3]), **given_)
    with pytest.raises(ShapeError, match="Centres have shape"):
        AlignedResidual(base, kept._replace(centres=net.centres[:, :3]), **given_)
    with pytest.raises(TooFewImages, match="references='fixed'"):
        AlignedResidual(base, kept, **{**given_, "shots": 8})
    with pytest.raises(UnknownName, match="cosine"):
        AlignedResidual(base, kept, matching="cos", **given_)
    state = {name: value for name, value in net.state().items() if name != "centres"}
    with pytest.raises(ModelFileError, match="do not fit"):
        AlignedResidual.from_card(net.sealed_card(), state)
