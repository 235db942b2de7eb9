"""Geometric transformations against their definition pixel by pixel, and the way back."""

from __future__ import annotations

import pytest
import torch

from kizu.errors import ShapeError, UnknownName
from kizu.nn.transformations import Transformation, require_square, transform, transformations, undo


def by_hand(image: torch.Tensor, how: Transformation, shift: int) -> torch.Tensor:
    """(H, H), one pixel at a time: flip, shift with mirrored border, turn counter-clockwise."""
    H = len(image)
    rows = [[float(image[y][H - 1 - x if how.flip else x]) for x in range(H)] for y in range(H)]

    def inside(place: int) -> int:
        if place < 0:
            return -place - 1
        return 2 * H - 1 - place if place >= H else place

    moved = [
        [rows[inside(y - how.down * shift)][inside(x - how.right * shift)] for x in range(H)]
        for y in range(H)
    ]
    for _ in range(how.turns):
        moved = [[moved[x][H - 1 - y] for x in range(H)] for y in range(H)]
    return torch.tensor(moved)


@pytest.mark.parametrize("number", range(72))
def test_each_is_its_definition(number: int) -> None:
    image = torch.rand(8, 8, generator=torch.Generator().manual_seed(number))
    how = transformations("geometric")[number]
    assert torch.equal(transform(image[None, None], how)[0, 0], by_hand(image, how, 2))


def test_all_differ_and_the_first_changes_nothing() -> None:
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for kind, count in (("rotations", 4), ("geometric", 72)):
        seen = torch.cat([transform(image, how) for how in transformations(kind)])
        assert len(torch.unique(seen.flatten(1), dim=0)) == count
        assert torch.equal(seen[0], image[0])


@pytest.mark.parametrize("number", range(72))
def test_the_way_back(number: int) -> None:
    """Where the transformed image shows a pixel, it comes back; elsewhere nothing is said."""
    image = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(number)) + 1
    how = transformations("geometric")[number]
    back, seen = undo(transform(image[:, None], how)[:, 0], how)
    assert torch.equal(back, image * seen)
    assert seen.sum() == (8 - 2 * abs(how.down)) * (8 - 2 * abs(how.right))


def test_misuse() -> None:
    with pytest.raises(UnknownName, match="rotations"):
        transformations("rotation")
    with pytest.raises(ShapeError, match="square"):
        require_square((32, 48))
