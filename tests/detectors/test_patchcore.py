"""PatchCore against its definition, written out."""

from __future__ import annotations

import pytest
import torch

import kizu
from kizu.errors import UsageError
from kizu.neighbours import greedy_coreset
from kizu.nn.patches import align_levels, local_mean, to_rows
from kizu.representations.base import Representation
from kizu.representations.sources import open_representation
from kizu.training import FitOptions
from kizu.types import Batch


@pytest.fixture(scope="module")
def net() -> Representation:
    return open_representation("random/resnet10t@2,3")


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def rows_of(net: Representation, batch: torch.Tensor) -> torch.Tensor:
    return to_rows(align_levels([local_mean(level, 3) for level in net.inference_copy("fp32")(batch)]))


def fitted(net: Representation, **parameters: object) -> object:
    settings = {"image_size": 64, "precision": "fp32", **parameters}
    return kizu.detector("patchcore", net, **settings).fit(images(5))


def test_scores_are_nearest_distances(net: Representation) -> None:
    detector = fitted(net, coreset=1.0)
    bank, query = rows_of(net, images(5)), rows_of(net, images(2, seed=1))
    expected = torch.cdist(query.double(), bank.double()).amin(1).reshape(2, 64).amax(1)
    assert torch.allclose(detector.predict(images(2, seed=1)).score.double(), expected, rtol=1e-5)
    assert torch.allclose(detector.predict(images(2)).score, torch.zeros(2), atol=1e-3), (
        "what was learned is at distance 0"
    )


def test_the_bank_is_the_greedy_selection(net: Representation) -> None:
    detector = fitted(net, coreset=0.2, projection=None)
    rows = rows_of(net, images(5))
    assert torch.equal(detector.bank_, rows[greedy_coreset(rows, 64)])
    assert len(fitted(net, coreset=0.2, projection=16).bank_) == 64


def test_k_neighbours_and_squares(net: Representation) -> None:
    bank, query = rows_of(net, images(5)), rows_of(net, images(1, seed=1))
    nearest = torch.cdist(query.double(), bank.double()).sort(1).values[:, :5]
    assert torch.allclose(
        fitted(net, coreset=1.0, neighbours=5).predict(images(1, seed=1)).score.double(),
        nearest.mean(1).max(),
        rtol=1e-5,
    )
    squared = fitted(net, coreset=1.0, squared=True).predict(images(1, seed=1)).score.double()
    assert torch.allclose(squared, nearest[:, 0].square().max(), rtol=1e-5)


def test_reweighting_is_equation_7(net: Representation) -> None:
    plain, weighted = fitted(net, coreset=1.0), fitted(net, coreset=1.0, reweight=3)
    bank, query = rows_of(net, images(5)).double(), rows_of(net, images(1, seed=1)).double()
    distance = torch.cdist(query, bank)
    top = distance.amin(1).argmax()
    star = distance[top].argmin()
    around = torch.cdist(bank[star][None], bank)[0].argsort()[:3]
    weight = 1 - distance[top, star].exp() / distance[top, around].exp().sum()
    score = plain.predict(images(1, seed=1)).score.double()
    assert torch.allclose(weighted.predict(images(1, seed=1)).score.double(), weight * score, rtol=1e-4)
    assert 0 < weight < 1


def test_released_dimensions(net: Representation) -> None:
    detector = fitted(net, dimensions=100, coreset=1.0)
    assert detector.bank_.shape == (5 * 64, 100)
    single = kizu.detector(
        "patchcore",
        open_representation("random/resnet10t@2"),
        dimensions=100,
        image_size=64,
        precision="fp32",
    ).fit(images(2))
    assert single.bank_.shape[1] == 100


def test_bounded_memory_still_covers(net: Representation) -> None:
    many = images(40)
    whole = kizu.detector("patchcore", net, image_size=64, precision="fp32", coreset=0.05).fit(many)
    bounded = kizu.detector(
        "patchcore", net, image_size=64, precision="fp32", coreset=0.05, memory=0.0025
    ).fit(many)
    assert whole.reductions_ == 0
    assert bounded.reductions_ > 0
    assert len(bounded.bank_) == len(whole.bank_) == 128
    fresh = images(4, seed=7)
    assert bounded.predict(fresh).score.mean() < 1.15 * whole.predict(fresh).score.mean()


@pytest.mark.parametrize(
    "parameters",
    [
        {"coreset": 0.0},
        {"coreset": 1.5},
        {"neighbours": 0},
        {"selection": "random"},
        {"memory": -1.0},
        {"reweight": 0},
    ],
)
def test_parameters_out_of_range(net: Representation, parameters: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        kizu.detector("patchcore", net, **parameters)
    with pytest.raises(UsageError, match="odd"):
        fitted(net, neighbourhood=2)


def test_rotations_are_learned_beside_the_images(net: Representation) -> None:
    turned = torch.cat([torch.rot90(images(5), turn, (2, 3)) for turn in range(4)])
    detector = fitted(net, coreset=1.0, rotations=4)
    expected = fitted(net, coreset=1.0).fit(turned)
    assert torch.equal(detector.bank_.sort(0).values, expected.bank_.sort(0).values)
    assert detector.images_seen_ == 5
    assert float(detector.predict(turned).score.max()) < 1e-2 < float(fitted(net).predict(turned).score.max())
    assert not detector.takes_features, "images are needed, features cannot be turned"
    with pytest.raises(UsageError, match="images"):
        detector.fit(Batch(None, features=net(images(2))))


def test_approximate_selection_is_by_name(net: Representation) -> None:
    detector = fitted(net, selection="approximate", coreset=0.1)
    assert len(detector.bank_) == 32
    assert torch.equal(detector.bank_, fitted(net, selection="approximate", coreset=0.1).bank_)
    assert not torch.equal(detector.bank_, fitted(net, coreset=0.1).bank_)


@pytest.mark.parametrize("selection", ["exact", "approximate"])
def test_the_share_of_the_coreset_is_reported(net: Representation, selection: str) -> None:
    """Up to all of it, in order; and the bank is the same with it as without."""
    said: list[str] = []
    options = FitOptions(progress=lambda done, what: said.append(f"{done} {what}"))
    settings = {"image_size": 64, "precision": "fp32", "selection": selection, "coreset": 0.4}
    detector = kizu.detector("patchcore", net, **settings).fit(images(6), options=options)
    assert "6 building the model" in said
    shares = [int(line.split()[-2]) for line in said if line.endswith("%")]
    assert shares
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert torch.equal(detector.bank_, fitted(net, selection=selection, coreset=0.4).fit(images(6)).bank_)
    assert detector._building is None  # nothing of the caller's is kept
