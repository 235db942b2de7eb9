"""The affine view against exact turns and shifts, the corruptions' negative against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kizu.errors import UsageError
from kizu.views.affine import affine
from kizu.views.blur_brightness import blur_brightness

GREY = torch.tensor([0.2989, 0.587, 0.114], dtype=torch.float64)


def images(count: int = 2, height: int = 24, width: int = 24) -> Tensor:
    return torch.rand(
        count, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_exact(quarters: int) -> None:
    turned = affine(
        images(), generator=seeded(), rotation=(90.0 * quarters,) * 2, shift=0.0, scale=(1.0, 1.0)
    )
    assert torch.allclose(turned, torch.rot90(images(), quarters, (2, 3)), atol=1e-5)


def test_a_turn_keeps_the_shape_of_things_in_oblong_images() -> None:
    """A disc stays a disc: its extent along both axes is as before."""
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(80.0), indexing="ij")
    disc = (((y - 19.5) ** 2 + (x - 39.5) ** 2) < 12**2).double().expand(1, 3, 40, 80)
    turned = affine(disc, generator=seeded(), rotation=(37.0, 37.0), shift=0.0, scale=(1.0, 1.0))
    assert (turned - disc).abs().mean() < 0.01


def test_scale_above_one_is_nearer() -> None:
    small = torch.zeros(1, 3, 32, 32)
    small[..., 12:20, 12:20] = 1.0
    near = affine(small, generator=seeded(), rotation=(0.0, 0.0), shift=0.0, scale=(2.0, 2.0))
    assert near.sum() == pytest.approx(4 * small.sum().item(), rel=0.1)


def test_shift_is_at_most_that_share_of_the_side() -> None:
    dot = torch.zeros(64, 3, 50, 50)
    dot[..., 25, 25] = 1.0
    moved = affine(dot, generator=seeded(), rotation=(0.0, 0.0), shift=0.1, scale=(1.0, 1.0))
    total = moved[:, 0].sum((1, 2))
    down = (moved[:, 0].sum(2) @ torch.arange(50.0)) / total - 25
    right = (moved[:, 0].sum(1) @ torch.arange(50.0)) / total - 25
    for offset in (down, right):
        assert offset.abs().max() <= 5.01
        assert offset.min() < -3
        assert offset.max() > 3


def test_grey_and_blur_have_their_probabilities() -> None:
    many = images(400, 8, 8)
    still = {"rotation": (0.0, 0.0), "shift": 0.0, "scale": (1.0, 1.0)}
    greyed = affine(many, generator=seeded(), **still, grey_chance=0.25)
    is_grey = (greyed - greyed.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 1e-6
    assert is_grey.double().mean() == pytest.approx(0.25, abs=0.07)
    expected = (many * GREY[:, None, None]).sum(1, keepdim=True).expand_as(many)
    assert torch.allclose(greyed[is_grey], expected[is_grey], atol=1e-5)
    blurred = affine(many, generator=seeded(), **still, blur_chance=0.5, blur_sigma=(1.0, 1.0))
    is_blurred = (blurred - many).abs().amax((1, 2, 3)) > 1e-3
    assert is_blurred.double().mean() == pytest.approx(0.5, abs=0.08)


def test_the_negative_of_corruptions_by_hand() -> None:
    """Hardly any blur: both factors are seen in mean and deviation of a dim image."""
    dim = 0.3 + 0.1 * images(200, 16, 16)
    made = blur_brightness(dim, generator=seeded(1), blur_sigma=(1e-3, 1e-3), strength=(0.2, 0.5))

    def tone(x: Tensor) -> Tensor:
        return (x * GREY[:, None, None]).sum(1)

    brightness = tone(made).mean((1, 2)) / tone(dim).mean((1, 2))
    contrast = made.std((2, 3)).mean(1) / dim.std((2, 3)).mean(1) / brightness
    for factor in (brightness, contrast):
        distance = (factor - 1).abs()
        assert distance.min() > 0.19
        assert distance.max() < 0.51
        assert (factor > 1).double().mean() == pytest.approx(0.5, abs=0.12)


def test_values_that_cannot_be_meant() -> None:
    with pytest.raises(UsageError, match="rotation"):
        affine(images(), generator=seeded(), rotation=(10.0, -10.0))
    with pytest.raises(UsageError, match="scale"):
        affine(images(), generator=seeded(), scale=(0.0, 1.0))
    with pytest.raises(UsageError, match="shift"):
        affine(images(), generator=seeded(), shift=2.0)
    with pytest.raises(UsageError, match="grey_chance"):
        affine(images(), generator=seeded(), grey_chance=1.5)
    with pytest.raises(UsageError, match="strength"):
        blur_brightness(images(), generator=seeded(), strength=(0.2, 1.5))
