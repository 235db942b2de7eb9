"""The parts of the views against torchvision, scipy, colorsys and loops over the printed formulas."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from kizu.views import _augment, _colour, _linear, _noise, _random


def drawn_images(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(20, 31), (9, 9), (60, 64)])
def test_crop_and_resize_equal_torchvision(size: tuple[int, int]) -> None:
    images = drawn_images(4, 40, 32)
    boxes = torch.tensor([[0, 0, 40, 32], [3, 5, 20, 27], [39, 31, 1, 1], [10, 0, 13, 30]])
    flip = torch.tensor([False, True, False, True])
    ours = _augment._crop(images, tuple(boxes.T), flip, size)
    for i, (top, left, tall, wide) in enumerate(boxes.tolist()):
        truth = tv.resized_crop(images[i], top, left, tall, wide, list(size), antialias=True)
        assert torch.allclose(ours[i], truth.flip(-1) if flip[i] else truth, atol=1e-5)


def test_boxes_are_those_of_random_resized_crop() -> None:
    u = _random.uniforms(torch.Generator().manual_seed(1), 4000, 22)
    for height, width, scale in [(40, 60, (0.2, 1.0)), (224, 224, (0.9, 1.0)), (30, 200, (0.5, 1.0))]:
        ours = torch.stack(_augment.crop_boxes(u, height, width, scale, (3 / 4, 4 / 3)), dim=1).double()
        torch.manual_seed(0)
        transform = v2.RandomResizedCrop(8, scale=scale, antialias=True)
        params = [transform.make_params([torch.empty(3, height, width)]) for _ in range(800)]
        theirs = torch.tensor(
            [[p["top"], p["left"], p["height"], p["width"]] for p in params], dtype=torch.float64
        )
        spread = (ours.std(dim=0) + 0.5) / math.sqrt(600)
        assert ((ours.mean(dim=0) - theirs.mean(dim=0)).abs() < 4 * spread).all()
        assert ((ours.std(dim=0) - theirs.std(dim=0)).abs() < 0.1 * theirs.std(dim=0) + 0.2).all()
        assert (ours[:, 0] + ours[:, 2]).max() <= height
        assert (ours[:, 1] + ours[:, 3]).max() <= width
        assert ours.min() >= 0


def test_a_image_too_long_for_any_crop_gives_its_middle() -> None:
    u = _random.uniforms(torch.Generator().manual_seed(1), 50, 22)
    top, left, tall, wide = _augment.crop_boxes(u, 10, 100, (0.9, 1.0), (3 / 4, 4 / 3))
    assert set(zip(top.tolist(), left.tolist(), tall.tolist(), wide.tolist(), strict=True)) == {
        (0, 43, 10, 13)
    }


def test_blur_equals_scipy() -> None:
    images, sigma = drawn_images(3, 30, 17), torch.tensor([0.1, 0.7, 2.0])
    ours = _linear.blur(images, sigma)
    for i, width in enumerate(sigma.tolist()):
        truth = ndimage.gaussian_filter(
            images[i].double().numpy(), (0, width, width), mode="nearest", truncate=8
        )
        np.testing.assert_allclose(ours[i].numpy(), truth, atol=1e-6)


def test_each_colour_step_equals_torchvision() -> None:
    images = drawn_images(5, 12, 15)
    images[4] = images[4, :1]  # grey: no hue
    factors = torch.tensor([0.0, 0.6, 1.0, 1.4, 1.9])[:, None, None, None]
    turns = torch.tensor([-0.5, -0.1, 0.0, 0.05, 0.5])[:, None, None, None]
    for step, theirs, amounts in [
        (_colour._brightness, tv.adjust_brightness, factors),
        (_colour._contrast, tv.adjust_contrast, factors),
        (_colour._saturation, tv.adjust_saturation, factors),
        (_colour._hue, tv.adjust_hue, turns),
    ]:
        truth = torch.stack(
            [theirs(image, float(amount)) for image, amount in zip(images, amounts, strict=True)]
        )
        assert torch.allclose(step(images, amounts, None), truth, atol=2e-6), theirs.__name__


def test_hue_equals_colorsys() -> None:
    images = drawn_images(2, 8, 8).double()
    turned = _colour.turn_hue(images, torch.tensor([0.3, -0.45], dtype=torch.float64)[:, None, None, None])
    for i, turn in enumerate((0.3, -0.45)):
        for y in range(8):
            for x in range(8):
                hue, saturation, value = colorsys.rgb_to_hsv(*images[i, :, y, x].tolist())
                assert turned[i, :, y, x].tolist() == pytest.approx(
                    colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), abs=1e-12
                )


def test_jitter_applies_its_steps_in_the_drawn_order() -> None:
    images, strengths = drawn_images(6, 9, 9), (0.4, 0.4, 0.4, 0.1)
    u = _random.uniforms(torch.Generator().manual_seed(2), 6, _colour.COLUMNS)
    chosen = torch.tensor([True, True, False, True, True, True])
    ours = _colour.jitter(images, strengths, u, chosen=chosen)
    theirs = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for i in range(6):
        amounts = [0.6 + 0.8 * float(v) for v in u[i, :3]] + [0.2 * float(u[i, 3]) - 0.1]
        truth = images[i]
        for kind in sorted(range(4), key=lambda kind: float(u[i, 4 + kind])) if chosen[i] else ():
            truth = theirs[kind](truth, amounts[kind])
        assert torch.allclose(ours[i], truth, atol=1e-5)


def test_contrast_knows_the_mean_of_the_piece_alone() -> None:
    images, inside = drawn_images(1, 10, 10), torch.zeros(1, 10, 10, dtype=torch.bool)
    inside[:, 2:6, 3:9] = True
    whole = _colour._contrast(images, torch.full((1, 1, 1, 1), 0.5), inside)
    assert torch.allclose(whole[:, :, 2:6, 3:9], tv.adjust_contrast(images[:, :, 2:6, 3:9], 0.5), atol=1e-6)


def noise_by_loops(cells: tuple[int, int], gradients: np.ndarray, height: int, width: int) -> np.ndarray:
    """Perlin's definition, pixel by pixel: the four corners' slopes, faded into each other."""
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y, x = i * cells[0] / height, j * cells[1] / width
            r, c = int(y), int(x)
            dy, dx = y - r, x - c
            fy, fx = (6 * t**5 - 15 * t**4 + 10 * t**3 for t in (dy, dx))
            for a, b in [(0, 0), (0, 1), (1, 0), (1, 1)]:
                angle = gradients[r + a, c + b]
                slope = math.sin(angle) * (dy - a) + math.cos(angle) * (dx - b)
                out[i, j] += (fy if a else 1 - fy) * (fx if b else 1 - fx) * slope
    return math.sqrt(2) * out


def test_noise_is_perlins() -> None:
    angles = np.random.default_rng(0).uniform(0, 2 * math.pi, (3, 33, 33))
    cells = torch.tensor([[4, 1, 8], [2, 1, 32]])
    ours = _noise.lattice_noise(
        cells, torch.zeros(3), torch.from_numpy(angles).flatten(1), 24, 37, torch.device("cpu")
    )
    for i in range(3):
        truth = noise_by_loops((int(cells[0, i]), int(cells[1, i])), angles[i], 24, 37)
        np.testing.assert_allclose(ours[i].numpy(), truth, atol=2e-5)


def test_noise_turns_about_the_middle() -> None:
    angles = torch.rand(1, 33 * 33, generator=torch.Generator().manual_seed(3)).double() * 2 * math.pi
    cells = torch.tensor([[4], [8]])
    upright = _noise.lattice_noise(cells, torch.zeros(1), angles, 33, 33, torch.device("cpu"))
    turned = _noise.lattice_noise(cells, torch.tensor([math.pi / 2]), angles, 33, 33, torch.device("cpu"))
    quarter = [float((turned[0] - upright[0].rot90(k)).abs().max()) for k in (1, 3)]
    assert min(quarter) < 1e-4
    slanted = _noise.lattice_noise(cells, torch.tensor([math.pi / 4]), angles, 33, 33, torch.device("cpu"))
    assert slanted[0, 0, 0] == slanted[0, -1, -1] == 0
    assert slanted.abs().max() <= 1
