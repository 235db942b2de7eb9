"""The drawing engine against brute force and closed forms: noises, shapes, the pen, light and camera."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from kizu.synthetic import noise
from kizu.synthetic.camera import binomial_blur, to_uint8
from kizu.synthetic.canvas import Canvas
from kizu.synthetic.lighting import Light, Surface, relief, shade
from kizu.synthetic.pen import Pen
from kizu.synthetic.shapes import box, polyline_distance, random_walk, regular_polygon, window

SIZE = 96


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    "draw",
    [
        lambda canvas: canvas.noise(9, 5),
        lambda canvas: canvas.noise(12, turn=0.5),
        lambda canvas: canvas.fractal(6, 3),
        lambda canvas: canvas.smooth(9),
        lambda canvas: canvas.cloud(1.0, aspect=3, turn=0.4),
        lambda canvas: canvas.band(12, 0.3),
        lambda canvas: canvas.gabor(12, 2.0, 0.7),
    ],
)
def test_every_noise_has_mean_0_and_about_unit_deviation(draw) -> None:
    fields = np.stack([draw(Canvas(SIZE, rng(seed))) for seed in range(40)])
    assert fields.dtype == np.float32
    assert fields.shape == (40, SIZE, SIZE)
    assert abs(fields.mean()) < 0.1
    assert 0.75 < fields.std() < 1.25


def test_gabor_noise_has_its_frequency_and_direction() -> None:
    """By a Fourier transform of the field itself: the strongest wave is the one that was asked for."""
    turn = 0.6
    power = sum(np.abs(np.fft.fft2(Canvas(SIZE, rng(s)).gabor(12, 0.8, turn))) ** 2 for s in range(20))
    row, column = np.unravel_index(np.argmax(power[:, : SIZE // 2]), (SIZE, SIZE // 2))
    fy = row if row < SIZE // 2 else row - SIZE
    assert math.hypot(column - 12 * math.cos(turn), fy - 12 * math.sin(turn)) < 1.5


def test_worley_against_brute_force() -> None:
    """With jitter 0 the points lie in the middle of their cells: distances are known."""
    u, v = (field * 3 + 8 for field in noise.grid(SIZE))
    first, second, nearest = noise.worley(rng(), u, v, 0.0)
    centres = [(i + 0.5, j + 0.5) for i in range(3, 13) for j in range(3, 13)]
    distances = np.sort(np.stack([np.hypot(u - x, v - y) for x, y in centres]), axis=0)
    np.testing.assert_allclose(first, distances[0], atol=1e-5)
    np.testing.assert_allclose(second, distances[1], atol=1e-5)
    assert (nearest == noise.cell_index(u, v)).all()


def test_jittered_cells_are_ordered() -> None:
    first, second = noise.image_cells(rng(), SIZE, 7)
    assert (second - first > -0.05).all()
    assert 0 <= first.mean() < second.mean() < 2


def test_polyline_distance_against_dense_points() -> None:
    points = [(-0.5, -0.4), (0.3, -0.1), (0.2, 0.6)]
    distance, along = polyline_distance(points, SIZE, 0.3)
    dense = np.concatenate([np.linspace(a, b, 2000) for a, b in itertools.pairwise(points)])
    x, y = noise.grid(SIZE)
    truth = np.hypot(x[..., None] - dense[:, 0], y[..., None] - dense[:, 1]).min(-1)
    np.testing.assert_allclose(distance, np.minimum(truth, 0.3), atol=1e-3)
    assert along[distance < 0.3].min() == 0
    assert along.max() == pytest.approx(1)


def test_shapes_cover_their_area() -> None:
    u, v = (field * 1.5 for field in noise.grid(256))
    cell = (3 / 256) ** 2
    rounded = (box(u, v, 1.0, 0.5, 0.2) < 0).sum() * cell
    assert rounded == pytest.approx(2.0 - (4 - math.pi) * 0.2**2, abs=0.01)
    hexagon = (regular_polygon(np.hypot(u, v), np.arctan2(v, u) / (2 * math.pi) + 0.5, 6) < 0).sum() * cell
    assert hexagon == pytest.approx(1.5 * math.sqrt(3), abs=0.02)


def test_a_walk_that_does_not_wander_is_straight() -> None:
    points = random_walk(rng(), (0.1, 0.2), 0.7, 0.5, steps=10, wander=0.0)
    assert len(points) == 11
    assert math.dist(points[0], points[-1]) == pytest.approx(0.5)


def test_a_window_holds_every_pixel_within_reach() -> None:
    x, y = noise.grid(SIZE)
    inside = np.zeros((SIZE, SIZE), bool)
    inside[window(SIZE, 0.9, -0.2, 0.3)] = True
    assert inside[np.hypot(x - 0.9, y + 0.2) < 0.3].all()
    assert inside.sum() < SIZE * SIZE / 8


def test_a_disc_and_a_line_cover_their_area() -> None:
    pen = Pen(128)
    pen.disc(0.0, 0.0, 0.5, 255)
    assert pen.coverage().mean() * 4 == pytest.approx(math.pi / 4, rel=0.03)
    line, tube = Pen(128), Pen(128)
    line.line([(-0.5, 0.0), (0.0, 0.0), (0.5, 0.0)], 0.2, round_ends=True)
    tube.tube([(-0.5, 0.0), (0.0, 0.0), (0.5, 0.0)], 0.2, 255)
    for pen in (line, tube):
        assert pen.coverage().mean() * 4 == pytest.approx(0.2 + math.pi * 0.01, rel=0.06)


def test_a_colour_sheet_has_its_colours() -> None:
    pen = Pen(16, 3)
    colours = np.zeros((256, 3), np.float32)
    colours[3] = (0.2, 0.4, 0.6)
    np.testing.assert_allclose(pen.coloured(colours).mean((1, 2)), (0.2, 0.4, 0.6), atol=0.005)


def test_relief_of_a_plane_is_its_slope_towards_the_light() -> None:
    x, _ = np.meshgrid(np.arange(20, dtype=np.float32), np.arange(20))
    middle = relief(0.3 * x, 0.0)[1:-1, 1:-1]
    np.testing.assert_allclose(middle, 1.3, rtol=1e-5)
    np.testing.assert_allclose(relief(0.3 * x, math.pi / 2)[1:-1, 1:-1], 1.0, rtol=1e-5)


def test_a_slope_towards_the_lamp_is_brighter() -> None:
    light = Light.draw(rng())
    x, y = noise.grid(SIZE)
    zero, one = np.zeros((SIZE, SIZE), np.float32), np.ones((SIZE, SIZE), np.float32)
    lit = {}
    for sign in (-1, 0, 1):
        height = sign * 0.2 * (x * light.direction[0] + y * light.direction[1])
        surface = Surface(np.ones((3, SIZE, SIZE), np.float32), height, zero, zero, one, one[0, :3])
        lit[sign] = float(shade(surface, light)[:, 30:60, 30:60].mean())
    assert lit[-1] > lit[0] > lit[1]


def test_the_blur_keeps_the_mean_and_weights_1_2_1() -> None:
    image = np.zeros((3, 9, 9), np.float32)
    image[:, 4, 4] = 16
    np.testing.assert_array_equal(binomial_blur(image)[0, 3:6, 3:6], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])


def test_levels_are_clipped_and_channels_come_last() -> None:
    image = to_uint8(np.array([-3.0, 7.9, 300.0], np.float32)[:, None, None] * np.ones((3, 2, 4), np.float32))
    assert image.shape == (2, 4, 3)
    assert image[0, 0].tolist() == [0, 7, 255]
