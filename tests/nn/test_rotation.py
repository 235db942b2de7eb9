"""Turned images beside SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from kizu.nn.rotation import rotate


@pytest.mark.parametrize("degrees", [10, 45, 90, 135, 180, 200, 270, 300, 359])
@pytest.mark.parametrize("size", [(24, 24), (20, 31)])
def test_turned_counter_clockwise_about_the_middle(degrees: int, size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = ndimage.rotate(
        images.double().numpy(), degrees, axes=(3, 2), reshape=False, order=1, mode="reflect"
    )
    np.testing.assert_allclose(rotate(images, degrees).numpy(), expected, atol=1e-4)


def test_nothing_is_turned_by_a_full_turn() -> None:
    images = torch.rand(1, 3, 7, 9)
    assert torch.equal(rotate(images, 360), images)
