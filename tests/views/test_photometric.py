"""Photometric views: pixels stay where they are, each part happens as often as asked."""

from __future__ import annotations

import math

import pytest
import torch

from kizu.errors import UsageError
from kizu.views import photometric

OFF = {"jitter_chance": 0.0, "grey_chance": 0.0, "blur_chance": 0.0}


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(2)


@pytest.mark.parametrize("size", [(32, 32), (17, 40), (41, 23)])
def test_pixels_stay_where_they_are(size: tuple[int, int]) -> None:
    """A single bright pixel is the brightest one of every view; off means unchanged."""
    images = torch.full((40, 3, *size), 0.2)
    images[:, :, 5, 9] = 0.6
    brightest = photometric(images, generator=draws()).mean(1).flatten(1).argmax(1)
    assert set(brightest.tolist()) == {5 * size[1] + 9}
    assert torch.allclose(photometric(images, generator=draws(), **OFF), images, atol=1e-6)


def test_each_part_by_its_chance() -> None:
    images = torch.rand(400, 3, 8, 8, generator=draws())
    changed = {}
    for part in ("jitter_chance", "grey_chance", "blur_chance"):
        out = photometric(images, generator=draws(), **{**OFF, part: 0.3})
        changed[part] = ((out - images).abs().amax((1, 2, 3)) > 1e-3).float().mean().item()
        if part == "grey_chance":
            grey = (out.amax(1) - out.amin(1)).amax((1, 2)) < 1e-6
            assert grey.float().mean().item() == changed[part]
    for part, share in changed.items():  # four standard deviations; a blur of small sigma hardly changes
        low = 0.3 - 4 * math.sqrt(0.21 / 400) - (0.1 if part == "blur_chance" else 0)
        assert low < share < 0.3 + 4 * math.sqrt(0.21 / 400), (part, share)


def test_misuse() -> None:
    with pytest.raises(UsageError, match="grey_chance"):
        photometric(torch.rand(1, 3, 8, 8), generator=draws(), grey_chance=1.5)
