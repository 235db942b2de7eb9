"""Flaw regions against a flood fill that counts pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kizu.errors import NotFinite, ShapeError, UsageError
from kizu.regions import find_regions, number_regions


def flood(heat: np.ndarray, threshold: float) -> list[set[tuple[int, int]]]:
    """Sets of (row, column) that hang together by edge or corner."""
    left = {(int(row), int(column)) for row, column in np.argwhere(heat > threshold)}
    found = []
    while left:
        waiting, own = [left.pop()], set[tuple[int, int]]()
        while waiting:
            row, column = waiting.pop()
            own.add((row, column))
            near = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= near
            waiting += near
        found.append(own)
    return sorted(found, key=lambda own: -max(heat[spot] for spot in own))


@settings(deadline=None)
@given(
    st.integers(1, 14), st.integers(1, 14), st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4)
)
def test_regions_of_random_maps(height: int, width: int, seed: int, down: int, right: int) -> None:
    """At a whole multiple of the map's size a cell is a block of pixels, so that all can be counted."""
    heat = np.random.default_rng(seed).permutation(height * width).reshape(height, width).astype(np.float32)
    threshold = 0.7 * height * width
    found = find_regions(torch.from_numpy(heat), threshold, (height * down, width * right))
    wide = np.kron(heat, np.ones((down, right)))
    wanted = flood(heat, threshold)
    assert len(found) == len(wanted)
    for region, own in zip(found, wanted, strict=True):
        mask = np.zeros((height, width), bool)
        mask[tuple(zip(*own, strict=True))] = True
        rows, columns = np.nonzero(np.kron(mask, np.ones((down, right))))
        x, y, w, h = region.box
        assert (x, y, x + w - 1, y + h - 1) == (columns.min(), rows.min(), columns.max(), rows.max())
        assert region.area == len(rows)
        assert region.centre == pytest.approx((columns.mean(), rows.mean()))
        assert region.peak == max(heat[spot] for spot in own)
        assert wide[region.peak_at[1], region.peak_at[0]] == region.peak


def test_numbers_are_places_in_the_list() -> None:
    heat = np.zeros((6, 6), np.float32)
    heat[0, 0], heat[3, 3], heat[5, 0] = 2.0, 9.0, 5.0
    numbers = number_regions(heat, 1.0)
    assert [int(numbers[spot]) for spot in ((3, 3), (5, 0), (0, 0))] == [1, 2, 3]
    assert [region.peak for region in find_regions(heat, 1.0)] == [9.0, 5.0, 2.0]


def test_a_box_is_rounded_outwards_and_stays_in_the_image() -> None:
    heat = np.zeros((3, 3))
    heat[2, 1:] = 1.0
    (region,) = find_regions(heat, 0.5, (10, 100), origin=(7, 1000))
    assert region.box == (7 + 33, 1006, 67, 4)
    (tiny,) = find_regions(heat, 0.5, (1, 1))
    assert (tiny.box, tiny.area, tiny.peak_at) == ((0, 0, 1, 1), 1, (0, 0))


def test_nothing_outside_of_the_region_of_interest() -> None:
    inside = np.zeros((5, 5), bool)
    inside[1:4, 1:3] = True
    (region,) = find_regions(np.ones((5, 5)), 0.5, inside=inside)
    assert region.box == (1, 1, 2, 3)
    assert find_regions(np.ones((5, 5)), 1.0) == [], "equal to the threshold is not above it"


@pytest.mark.parametrize(
    ("heat", "threshold", "more", "error"),
    [
        (np.ones((2, 2, 2)), 0.5, {}, ShapeError),
        (np.ones((0, 2)), 0.5, {}, ShapeError),
        (np.full((2, 2), np.nan), 0.5, {}, NotFinite),
        (np.ones((2, 2)), float("nan"), {}, UsageError),
        (np.ones((2, 2)), "high", {}, UsageError),
        (np.ones((2, 2)), 0.5, {"size": (0, 4)}, UsageError),
        (np.ones((2, 2)), 0.5, {"inside": np.ones((3, 2), bool)}, ShapeError),
    ],
)
def test_bad_input(heat: Any, threshold: Any, more: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        find_regions(heat, threshold, **more)
