"""Pooled features of an image at several sizes, by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from kizu.errors import ShapeError
from kizu.nn.pyramid import pooled_pyramid


def test_means_of_every_size_and_level() -> None:
    images = torch.rand(2, 3, 16, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen = []

    def encode(part: torch.Tensor) -> list[torch.Tensor]:
        seen.append(tuple(part.shape[2:]))
        return [part.square(), functional.max_pool2d(part, 4)]

    got = pooled_pyramid(encode, images, 3, 4)
    assert seen == [(16, 24), (8, 12), (4, 6)]
    assert got.shape == (2, 18)
    assert torch.allclose(got[:, :3], images.square().mean((2, 3)))
    half = functional.interpolate(images, size=(8, 12), mode="bilinear", antialias=True)
    assert torch.allclose(got[:, 9:12], functional.max_pool2d(half, 4).mean((2, 3)))


def test_halving_keeps_the_mean_and_shows_no_stripes() -> None:
    """Every second pixel of stripes would be black, or white."""
    stripes = torch.zeros(1, 3, 16, 16)
    stripes[..., ::2] = 1.0
    assert torch.allclose(
        pooled_pyramid(lambda part: [part], stripes, 3, 1), torch.full((1, 9), 0.5), atol=0.03
    )


def test_too_small_images_are_refused() -> None:
    with pytest.raises(ShapeError, match="at least 32 pixels"):
        pooled_pyramid(lambda part: [part], torch.zeros(1, 3, 16, 64), 3, 8)
