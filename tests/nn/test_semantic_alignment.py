"""Semantic alignment: equations 8 and 9 of ADPretrain's app. C by loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kizu.errors import TooFewImages, UsageError
from kizu.nn.semantic_alignment import (
    FLOOR,
    cells,
    divergences,
    fit_centres,
    histograms,
    self_information,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_cells_divide_evenly() -> None:
    whole = cells(10, 15, 5).view(10, 15)
    for u in range(5):
        for v in range(5):
            assert (whole[2 * u : 2 * u + 2, 3 * v : 3 * v + 3] == 5 * u + v).all()
    odd = torch.bincount(cells(7, 6, 5))
    assert len(odd) == 25
    assert odd.min() >= 1
    assert odd.max() <= 4  # sides of one or two positions
    with pytest.raises(UsageError, match="4 x 9 positions cannot be divided into 5 x 5"):
        cells(4, 9, 5)


def test_centres_are_those_of_each_cell_alone() -> None:
    """Two cells with two clusters each: their means, of the cell's own features only."""
    rng = np.random.default_rng(0)
    places = np.array([[0.0, 9.0], [5.0, 0.0], [90.0, 0.0], [0.0, 70.0]])
    drawn = places[:, None] + 0.1 * rng.normal(size=(4, 6, 2))
    features = torch.from_numpy(np.concatenate([drawn[:2], drawn[2:]], axis=1)).float()  # (2, 12, 2)
    cell = torch.tensor([0] * 6 + [1] * 6)
    found = fit_centres(features, cell, centres=2, seed=1)
    for number in range(2):
        rows = features[:, cell == number]  # image i holds cluster i of the cell
        expected = rows.mean(1)
        got = found[2 * number : 2 * number + 2]
        assert torch.cdist(expected, got).min(1).values.max() < 1e-4
    assert torch.equal(found, fit_centres(features, cell, centres=2, seed=1))
    with pytest.raises(TooFewImages, match="12 features"):
        fit_centres(features, cell, centres=13, seed=0)


def test_a_cell_of_one_colour_is_no_error() -> None:
    found = fit_centres(torch.ones(3, 4, 2), torch.zeros(4, dtype=torch.int64), centres=5, seed=0)
    assert torch.equal(found, torch.ones(5, 2))


def test_equations_by_brute_force() -> None:
    grid, P, C, n = 2, 12, 4, 3
    cell, centres = cells(3, 4, grid), random(8, C, seed=1)
    images = random(n + 1, P, C)
    references, query = histograms(images[1:], centres), histograms(images[0], centres)
    for i in range(n + 1):
        for k in range(P):
            feature = images[i, k].double()
            apart = [
                max(1 - float(feature @ c / (feature.norm() * c.norm())), FLOOR) for c in centres.double()
            ]
            own = query[k] if i == 0 else references[i - 1, k]
            assert own.tolist() == pytest.approx([value / sum(apart) for value in apart], rel=1e-3, abs=1e-6)
    got = divergences(query, references, self_information(references), cell)
    for i in range(n):
        worst: dict[int, float] = {}
        for k in range(P):
            pairs = zip(references[i, k].tolist(), query[k].tolist(), strict=True)
            divergence = sum(h * math.log(h / q) for h, q in pairs)
            worst[int(cell[k])] = max(worst.get(int(cell[k]), -math.inf), divergence)
        assert float(got[i]) == pytest.approx(sum(worst.values()) / grid**2, abs=2e-6)


def test_no_image_is_more_alike_than_itself() -> None:
    cell, images, centres = cells(5, 5, 5), random(6, 25, 3), random(125, 3, seed=2)
    kept = histograms(images, centres)
    for i in range(6):
        apart = divergences(kept[i], kept, self_information(kept), cell)
        assert int(apart.argmin()) == i
        assert float(apart[i]) == pytest.approx(0, abs=1e-6)


def test_a_feature_on_a_centre_and_one_of_zeros_are_finite() -> None:
    centres = torch.eye(3)
    rows = torch.stack([centres[0], torch.zeros(3), centres.sum(0)])
    kept = histograms(rows, centres)
    assert torch.allclose(kept.sum(1), torch.ones(3))
    assert kept[0, 0] == pytest.approx(FLOOR / (2 + FLOOR), rel=1e-3)
    assert torch.allclose(kept[1:], torch.full((2, 3), 1 / 3))
    apart = divergences(kept, kept.flip(0)[None], self_information(kept.flip(0)[None]), cells(3, 1, 1))
    assert bool(apart.isfinite().all())
