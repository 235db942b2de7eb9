"""Colour jitter alone against torchvision's formulas, one strength at a time."""

from __future__ import annotations

import pytest
import torch

from kizu.errors import UsageError
from kizu.views import colour_jitter


def test_brightness_alone_is_one_factor_an_image() -> None:
    images = torch.rand(200, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    out = colour_jitter(images, generator=torch.Generator().manual_seed(1), jitter=(0.1, 0, 0, 0))
    factors = (out / images).flatten(1)
    assert torch.allclose(factors, factors[:, :1].expand_as(factors), atol=1e-5)
    assert factors.min() == pytest.approx(0.9, abs=0.005)
    assert factors.max() == pytest.approx(1.1, abs=0.005)


def test_saturation_alone_keeps_the_grey() -> None:
    images = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    out = colour_jitter(images, generator=torch.Generator().manual_seed(1), jitter=(0, 0, 0.1, 0))
    weight = torch.tensor([0.2989, 0.587, 0.114])[:, None, None]
    assert torch.allclose((out * weight).sum(1), (images * weight).sum(1), atol=1e-3)
    assert not torch.allclose(out, images, atol=1e-3)


def test_misuse() -> None:
    with pytest.raises(UsageError, match="hue"):
        colour_jitter(torch.rand(1, 3, 8, 8), generator=torch.Generator(), jitter=(0, 0, 0, 0.6))
