"""Corruptions of CIFAR's size against closed forms: their moments, kernels and constants (level 2 of
CIFAR-10-C)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kizu.datasets._corruptions import CORRUPTIONS, _clouds, corrupted


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def grey(value: float, count: int = 40) -> np.ndarray:
    return np.full((count, 32, 32, 3), value)


def impulse() -> np.ndarray:
    image = np.zeros((1, 32, 32, 3))
    image[0, 16, 16] = 1.0
    return image


def test_noises_have_the_moments_of_their_definitions() -> None:
    n = grey(0.5).size
    noisy = CORRUPTIONS["gaussian_noise"](grey(0.5), generator())
    assert noisy.mean() == pytest.approx(0.5, abs=5 * 0.06 / math.sqrt(n))
    assert noisy.std() == pytest.approx(0.06, rel=0.02)
    for value in (0.2, 0.8):
        shot = CORRUPTIONS["shot_noise"](grey(value), generator())
        assert shot.mean() == pytest.approx(value, abs=0.001)
        assert shot.var() == pytest.approx(value / 250, rel=0.03), "Poisson: mean / 250"
    salted = CORRUPTIONS["impulse_noise"](grey(0.5), generator())
    changed = salted[salted != 0.5]
    assert changed.size / n == pytest.approx(0.02, rel=0.1)
    assert set(changed) == {0.0, 1.0}
    assert changed.mean() == pytest.approx(0.5, abs=0.05)
    assert not np.array_equal(salted[..., 0], salted[..., 1]), "channels by themselves"


def test_defocus_is_a_gaussian_of_three_by_three() -> None:
    """exp(-2 (x^2 + y^2)), normalised, from the definition in two dimensions."""
    answer = CORRUPTIONS["defocus_blur"](impulse(), generator())[0, :, :, 0]
    x, y = np.meshgrid([-1, 0, 1], [-1, 0, 1])
    kernel = np.exp(-2.0 * (x**2 + y**2))
    assert np.allclose(answer[15:18, 15:18], kernel / kernel.sum(), atol=1e-12)
    assert answer.sum() == pytest.approx(1.0)


def test_blurs_leave_grey_alone_and_keep_what_they_spread() -> None:
    for name in ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "contrast"):
        assert np.allclose(CORRUPTIONS[name](grey(0.3, 2), generator()), 0.3), name
    for name in ("glass_blur", "motion_blur"):
        assert CORRUPTIONS[name](impulse(), generator()).sum() == pytest.approx(3.0, abs=1e-6), name


def test_glass_moves_pixels_by_one_step_and_keeps_their_values() -> None:
    """Blur of 0.25 is next to none: a pixel keeps exp(-8)-close to all of its light, moved."""
    seen = set()
    for seed in range(60):
        answer = CORRUPTIONS["glass_blur"](impulse(), generator(seed))[0, :, :, 0]
        row, column = np.unravel_index(answer.argmax(), answer.shape)
        assert answer.max() > 0.99
        seen.add((int(row) - 16, int(column) - 16))
    assert (0, 0) in seen
    assert len(seen) > 4
    x = generator().random((2, 32, 32, 3))
    moved = CORRUPTIONS["glass_blur"](x, generator())
    assert np.abs(np.sort(moved, axis=None) - np.sort(x, axis=None)).mean() < 0.002


def test_motion_drags_one_way_within_45_degrees() -> None:
    """Weights of a half Gaussian of 1.5: their mean step, and its direction."""
    weights = [math.exp(-0.5 * (step / 1.5) ** 2) for step in range(13)]
    mean_step = sum(step * weight for step, weight in enumerate(weights)) / sum(weights)
    y, x = np.mgrid[:32, :32]
    angles = []
    for seed in range(20):
        answer = CORRUPTIONS["motion_blur"](impulse(), generator(seed))[0, :, :, 0]
        down, right = ((answer * (axis - 16)).sum() for axis in (y, x))
        assert math.hypot(down, right) == pytest.approx(mean_step, abs=1e-6)
        angles.append(math.degrees(math.atan2(down, right)))
    assert max(map(abs, angles)) < 45
    assert np.ptp(angles) > 45


def test_zoom_is_the_mean_over_eleven_enlargements() -> None:
    """A ramp about the centre stays a ramp, its slope the mean of 1 and of 1/z for z = 1, 1.01, ..., 1.1."""
    ramp = np.broadcast_to((np.arange(32.0) - 15.5)[None, None, :, None], (1, 32, 32, 3)).copy()
    slope = (1 + sum(1 / (1 + step / 100) for step in range(11))) / 12
    assert np.allclose(CORRUPTIONS["zoom_blur"](ramp, generator()), slope * ramp)


def test_contrast_halves_the_distance_to_each_channels_mean() -> None:
    x = generator().random((3, 32, 32, 3))
    answer = CORRUPTIONS["contrast"](x, generator())
    mean = x.mean(axis=(1, 2), keepdims=True)
    assert np.allclose(answer - mean, (x - mean) / 2)


def test_fog_is_a_smooth_cloud_of_half_the_range() -> None:
    x = np.full((30, 32, 32, 3), 0.4)
    answer = CORRUPTIONS["fog"](x, generator())
    cloud = (answer * (0.4 + 0.5) / 0.4 - 0.4) / 0.5
    assert cloud.min() >= -1e-9
    assert cloud.max() <= 1 + 1e-9
    assert np.allclose(cloud[..., 0], cloud[..., 1])
    assert np.abs(np.diff(cloud[..., 0], axis=1)).max() < 0.1, "fine structure fades by 9 with each octave"
    assert 0.2 < cloud.mean() < 0.8
    assert cloud.mean(axis=(1, 2, 3)).std() > 0.05


def test_a_cloud_is_rougher_by_nine_with_each_octave() -> None:
    """Points between four others are their mean and uniform noise. What is left after taking the mean away is
    that noise: as wide along the axes as on the diagonals, nine times as wide for steps of twice the size."""
    heights = _clouds(10, generator(), side=64)

    def rest(step: int, *, diagonal: bool) -> float:
        near = [(step, step), (step, -step), (-step, step), (-step, -step)]
        near = near if diagonal else [(step, 0), (-step, 0), (0, step), (0, -step)]
        mean = sum(np.roll(heights, move, axis=(1, 2)) for move in near) / 4
        odd, even = slice(step, None, 2 * step), slice(None, None, 2 * step)
        left = (heights - mean)[:, odd, odd if diagonal else even]
        assert left.max() / left.std(axis=(1, 2)).max() < 1.9, "uniform: sqrt(3) deviations at most"
        return float(np.sqrt((left**2).mean()))

    for step in (1, 2, 4):
        assert rest(2 * step, diagonal=True) / rest(step, diagonal=True) == pytest.approx(9, rel=0.08)
        assert rest(step, diagonal=False) / rest(step, diagonal=True) == pytest.approx(1, rel=0.08)
    assert heights.min(axis=(1, 2)).max() == 0
    assert heights.max(axis=(1, 2)).min() == 1


def test_bytes_in_and_out() -> None:
    x = generator().integers(0, 256, (130, 32, 32, 3), dtype=np.uint8)
    before = x.copy()
    for name in CORRUPTIONS:
        answer = corrupted(name, x[:3], generator())
        assert (answer.dtype, answer.shape) == (np.uint8, (3, 32, 32, 3))
        assert np.array_equal(answer, corrupted(name, x[:3], generator()))
    assert np.array_equal(x, before)
    assert corrupted("shot_noise", x, generator()).shape == x.shape, "more than are worked on together"
    halves = np.repeat(np.array([100, 201], np.uint8), 512).reshape(1, 32, 32, 1).repeat(3, axis=3)
    values = np.unique(corrupted("contrast", halves, generator()))
    assert values.tolist() == [125, 175], "150.5 -+ 25.25, rounded down"
    assert corrupted("fog", x[:0], generator()).shape == (0, 32, 32, 3)
