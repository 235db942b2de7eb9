"""PaDiM's fast twin against inverse matrices in float64, and against the readable reference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from kizu.accel import block_whitening, nested_gaussians, nested_moments
from kizu.accel.nested_gaussians import NestedDistance, NestedGaussians, expand
from kizu.accel.nested_moments import NestedMoments
from kizu.accel.nesting import cells_of_stages, nesting_of
from kizu.detectors.padim import PositionGaussians, choose_channels, embed
from kizu.errors import EmptyData, ModelFileError
from kizu.types import grids_of

GRIDS = {
    "nested": ((8, 4), (4, 2), (2, 1)),
    "one": ((3, 4), (3, 4)),
    "across": ((6, 5), (4, 3), (3, 2)),  # no cell of the second lies in one of the third alone
    "twice": ((4, 4), (4, 2), (4, 2), (2, 2)),
    "unsorted": ((2, 2), (4, 4), (4, 2)),
}
WIDTHS = (6, 9, 9, 4)
EPS = 0.01
UNIT = 2.0**-24
"""Rounding error of float32."""


def features(name: str, count: int, seed: int = 0) -> list[torch.Tensor]:
    """Correlated channels of mean 1, [(count, d_l, h_l, w_l)]: all but some of the last level's."""
    generator = torch.Generator().manual_seed(seed)
    levels = []
    for (h, w), width in zip(GRIDS[name], WIDTHS, strict=False):
        mix = torch.eye(width) + 0.1 * torch.randn(width, width, generator=torch.Generator().manual_seed(9))
        rows = torch.randn(count, h, w, width, generator=generator)
        levels.append((rows @ mix + 1.0).permute(0, 3, 1, 2))
    return choose_channels(
        levels, [*(torch.arange(level.shape[1]) for level in levels[:-1]), torch.tensor([3, 1])]
    )


def truth(known: list[torch.Tensor], query: list[torch.Tensor]) -> tuple[np.ndarray, float]:
    """Distances (B, P) by inverse matrices in float64, and the largest condition number of a covariance."""
    rows, queries = (embed(levels).double().numpy() for levels in (known, query))
    B, P, D = queries.shape
    distances, condition = np.empty((B, P)), 1.0
    for p in range(P):
        covariance = np.cov(rows[:, p], rowvar=False) if len(rows) > 1 else np.zeros((D, D))
        covariance = covariance + EPS * np.eye(D)
        condition = max(condition, float(np.linalg.cond(covariance)))
        difference = queries[:, p] - rows[:, p].mean(0)
        distances[:, p] = np.sqrt(np.einsum("bd,de,be->b", difference, np.linalg.inv(covariance), difference))
    return distances, condition


def moments_of(known: list[torch.Tensor]) -> NestedMoments:
    """Of images that come four at a time."""
    moments = NestedMoments(nesting_of(known))
    for start in range(0, len(known[0]), 4):
        part = [level[start : start + 4] for level in known]
        moments.update(cells_of_stages(part, moments.nest))
    return moments


COUNTS = (1, 2, 5, 6, 7, 23, 60)
FORMS = list(itertools.product((1, 16, 64), (5, 32)))
"""(fold, small)."""
PAIRED = [
    (count, fold, small, list(GRIDS)[(number + form) % len(GRIDS)])
    for number, count in enumerate(COUNTS)
    for form, (fold, small) in enumerate(FORMS)
]
"""Every count with every form, and the grids in turn: each grid meets every count and every form."""


def test_every_grid_meets_every_count_and_every_form() -> None:
    for name in GRIDS:
        mine = [case for case in PAIRED if case[3] == name]
        assert {count for count, *_ in mine} == set(COUNTS)
        assert {(fold, small) for _, fold, small, _ in mine} == set(FORMS)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("count", "fold", "small", "name"), PAIRED)
def test_both_forms_are_the_mahalanobis_distance(
    count: int, fold: int, small: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one image to many more than dimensions, in batches of 4; added to the sums once, never before the
    end, or with each batch; whitened by halves and at once; levels that lie in each other, that do not, and
    of one grid.

    Covariances computed in float32 are off by some units of rounding, UNIT, of their largest eigenvalue; the
    distance is off by the condition number times that. Sums of n or D terms that round independently add the
    root of it (Higham and Mary, SIAM J. Sci. Comput. 41, 2019). A factor 4 is left for constants."""
    monkeypatch.setattr(block_whitening, "SMALL", small)
    monkeypatch.setattr(nested_moments, "FOLD", fold)
    monkeypatch.setattr(nested_moments, "CHUNK_BYTES_CPU", 4 * 24 * 64)  # a group a thread
    known, query = features(name, count), features(name, 3, seed=1)
    nest, D = nesting_of(known), sum(level.shape[1] for level in known)
    tensors = moments_of(known).finalize(EPS, torch.float32)
    rounded = moments_of(known).finalize(EPS)
    assert ("nested_rows" in tensors) == (4 * count <= D)
    assert {key: value.shape for key, value in tensors.items()} == {
        key: value.shape for key, value in rounded.items()
    }
    assert all(torch.equal(value.to(rounded[key].dtype), rounded[key]) for key, value in tensors.items())
    got = NestedDistance(tensors, nest, EPS)(query)
    expected, condition = truth(known, query)
    assert got.shape == (3, *nest.finest)
    assert np.allclose(got.flatten(1).numpy(), expected, rtol=4 * max(count, D) ** 0.5 * condition * UNIT)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("count", [1, 3, 40])
def test_the_twin_is_the_reference(name: str, count: int) -> None:
    """Both round W and mu to float16, each entry by 2^-11 of itself: W (f - mu) moves by |W| |f - mu| + |W|
    |mu| at most, entry by entry, and may be rounded up by one and down by the other."""
    known, query = features(name, count), features(name, 3, seed=1)
    reference, twin = PositionGaussians(EPS), NestedGaussians(EPS)
    for gaussians in (reference, twin):
        for start in range(0, count, 7):
            gaussians.update([level[start : start + 7] for level in known])
        gaussians.finalize()
    measure = reference.distance()
    difference = embed(query) - measure.mean
    moved = torch.einsum("pde,bpe->bpd", measure.whitening.abs(), difference.abs() + measure.mean.abs())
    bound = 2 * 2.0**-11 * moved.norm(dim=2)
    gap = (twin.distance()(query) - measure(query)).abs().flatten(1)
    assert (gap <= bound).all()


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("count", [1, 3, 40])
def test_each_form_reads_the_other(name: str, count: int) -> None:
    known, query = features(name, count), features(name, 3, seed=1)
    grids, widths = grids_of(known), [level.shape[1] for level in known]
    for first, second in ((NestedGaussians, PositionGaussians), (PositionGaussians, NestedGaussians)):
        written, read, again = first(EPS), second(EPS), first(EPS)
        written.update(known)
        written.finalize()
        read.restore(written.tensors(), grids, widths)
        again.restore(read.tensors(), grids, widths)
        distances = [one.distance()(query) for one in (written, read, again)]
        if "nested_rows" in written.tensors():  # W is rounded to float16 on the way
            assert torch.allclose(distances[0], distances[1], rtol=3e-3)
        else:
            assert torch.allclose(distances[0], distances[1], rtol=1e-5)
            assert written.tensors().keys() == again.tensors().keys()
            assert all(torch.equal(value, again.tensors()[key]) for key, value in written.tensors().items())


def test_tensors_that_do_not_fit_together() -> None:
    for count in (2, 20):
        known = features("nested", count)
        grids, widths = grids_of(known), [level.shape[1] for level in known]
        twin = NestedGaussians(EPS)
        twin.update(known)
        twin.finalize()
        for key, value in twin.tensors().items():
            with pytest.raises(ModelFileError, match=key):
                NestedGaussians(EPS).restore({**twin.tensors(), key: value[..., :-1]}, grids, widths)
            with pytest.raises(ModelFileError, match=key):
                expand({**twin.tensors(), key: value[..., :-1]}, EPS, grids, widths)
    with pytest.raises(EmptyData):
        NestedGaussians(EPS).finalize()


def test_large_grids_in_a_small_file_build_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    known = features("nested", 2)
    grids, widths = grids_of(known), [level.shape[1] for level in known]
    twin, plain = NestedGaussians(EPS), PositionGaussians(EPS)
    for one in (twin, plain):
        one.update(known)
        one.finalize()
    large = tuple((height * 64, width * 64) for height, width in grids)
    monkeypatch.setattr(nested_gaussians, "nesting", lambda *_: pytest.fail("tables were built"))
    for tensors in (twin.tensors(), plain.tensors()):
        for kind in (NestedGaussians, PositionGaussians):
            with pytest.raises(ModelFileError, match="mean"):
                kind(EPS).restore(tensors, large, widths)
