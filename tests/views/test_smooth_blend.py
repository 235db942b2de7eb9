"""SmoothBlend against an image-sized computation of the printed formula, and against the arithmetic of its
constants."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from kizu.errors import UnknownName, UsageError
from kizu.views import _random
from kizu.views.smooth_blend import _Span, smooth_blend

STILL = (0.0, 0.0, 0.0, 0.0)


def drawn_images(count: int, height: int = 224, width: int = 224) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rectangles(seed: int, count: int, height: int, width: int) -> list[tuple[_Span, _Span]]:
    """What the view draws: area, aspect, then cut and paste places down and across."""
    u = _random.uniforms(seeded(seed), count, 14)
    area = height * width * (0.0056 + 0.0044 * u[:, 0])
    aspect = (math.log(0.3) + math.log(10) * u[:, 1]).exp()
    rows = [
        _Span.drawn((area / aspect).sqrt()[i : i + 1], height, u[i : i + 1, 2], u[i : i + 1, 3])
        for i in range(count)
    ]
    columns = [
        _Span.drawn((area * aspect).sqrt()[i : i + 1], width, u[i : i + 1, 4], u[i : i + 1, 5])
        for i in range(count)
    ]
    return list(zip(rows, columns, strict=True))


def mask_of(row: _Span, column: _Span) -> tuple[slice, slice]:
    return slice(int(row.target), int(row.target + row.length)), slice(
        int(column.target), int(column.target + column.length)
    )


def alpha_of(row: _Span, column: _Span, height: int, width: int) -> torch.Tensor:
    """The binary mask, blurred by scipy with 49 taps over zeros."""
    mask = np.zeros((height, width))
    mask[mask_of(row, column)] = 1
    return torch.from_numpy(ndimage.gaussian_filter(mask, 8, mode="constant", radius=24))


@pytest.mark.parametrize("reading", ["paper", "pasted"])
def test_the_printed_formula_over_the_whole_image(reading: str) -> None:
    images = drawn_images(4).double()
    out = smooth_blend(images, generator=seeded(7), reading=reading, jitter=STILL)
    for x, y, (row, column) in zip(images, out, rectangles(7, 4, 224, 224), strict=True):
        top, left = int(row.source), int(column.source)
        layer = x.clone() if reading == "pasted" else torch.zeros_like(x)
        layer[:, *mask_of(row, column)] = x[:, top : top + int(row.length), left : left + int(column.length)]
        alpha = alpha_of(row, column, 224, 224)
        assert torch.allclose(y, (1 - alpha) * x + alpha * layer, atol=1e-9)


def test_clean_moves_the_surroundings_along() -> None:
    images = drawn_images(6).double()
    out = smooth_blend(images, generator=seeded(8), jitter=STILL)
    for x, y, (row, column) in zip(images, out, rectangles(8, 6, 224, 224), strict=True):
        around = torch.cat([x.flip(1), x, x.flip(1)], dim=1)  # reflected at the border
        around = torch.cat([around.flip(2), around, around.flip(2)], dim=2)
        top, left = 224 + int(row.source) - int(row.target), 224 + int(column.source) - int(column.target)
        moved = around[:, top : top + 224, left : left + 224]
        alpha = alpha_of(row, column, 224, 224)
        assert torch.allclose(y, (1 - alpha) * x + alpha * moved, atol=1e-9)


def test_the_jitter_is_of_the_piece_alone() -> None:
    images = drawn_images(3)
    still, jittered = (
        smooth_blend(images, generator=seeded(2), reading="pasted", jitter=j)
        for j in (STILL, (0.1, 0.1, 0.1, 0.05))
    )
    for a, b, (row, column) in zip(still, jittered, rectangles(2, 3, 224, 224), strict=True):
        assert not torch.equal(a, b)
        a[:, *mask_of(row, column)] = b[:, *mask_of(row, column)]
        assert torch.equal(a, b)


@pytest.mark.parametrize(("area", "peak"), [(0.0056, 0.50), (0.01, 0.70)])
@pytest.mark.parametrize("side", [224, 448])
def test_alpha_peaks_at_half_to_seven_tenths_whatever_the_size(area: float, peak: float, side: int) -> None:
    """White pieces on black: the change is alpha. Cut from the white half and pasted anywhere, so search for
    the highest."""
    images = torch.ones(24, 3, side, side)
    out = smooth_blend(
        images, generator=seeded(0), reading="paper", area=(area, area), aspect=(1, 1), jitter=STILL
    )
    halo = 1 - out.amin(dim=(1, 2, 3))  # 1 - alpha u outside: alpha just outside the piece
    assert halo.max() == pytest.approx(0.36 if area < 0.01 else 0.42, abs=0.035)
    black = torch.zeros(300, 3, side // 4, side // 4)
    black[..., : side // 8] = 1
    lit = smooth_blend(
        black, generator=seeded(1), reading="pasted", area=(area, area), aspect=(1, 1), jitter=STILL
    )
    assert (lit - black).abs().max() == pytest.approx(peak, abs=0.06)


def test_the_letter_darkens_a_plain_image_and_the_other_readings_do_not() -> None:
    plain = torch.full((8, 3, 224, 224), 0.6)
    frame = plain - smooth_blend(plain, generator=seeded(3), reading="paper", jitter=STILL)
    assert (frame.amax(dim=(1, 2, 3)) > 0.15).all()
    for reading in ("pasted", "clean"):
        assert torch.allclose(
            smooth_blend(plain, generator=seeded(3), reading=reading, jitter=STILL), plain, atol=1e-6
        )


def test_clean_has_no_edge_and_pasted_has() -> None:
    """A black image with a white half: where white is blended into black the change must fade, pixel by
    pixel.

    The steepest a mask blurred by sigma can be is 1 / (sqrt(2 pi) sigma): 0.116 at 96 pixels, where sigma is
    3.4."""
    images = torch.zeros(200, 3, 96, 96)
    images[..., 48:] = 1
    steps = {}
    for reading in ("pasted", "clean"):
        change = (
            smooth_blend(images, generator=seeded(5), reading=reading, jitter=STILL, area=(0.01, 0.01))
            - images
        )
        steps[reading] = float(
            change.diff(dim=2).abs().max()
        )  # downwards: the image itself has no edge that way
    assert steps["clean"] < 0.12 < 0.3 < steps["pasted"]


@pytest.mark.parametrize("reading", ["paper", "pasted", "clean"])
def test_nothing_changes_beyond_three_sigma(reading: str) -> None:
    images = drawn_images(12)
    out, mask = smooth_blend(images, generator=seeded(4), reading=reading, return_mask=True)
    for x, y, m, (row, column) in zip(images, out, mask, rectangles(4, 12, 224, 224), strict=True):
        reach = 0 if reading == "pasted" else 24
        near = torch.zeros(224, 224, dtype=torch.bool)
        down, across = mask_of(row, column)
        near[
            max(0, down.start - reach) : down.stop + reach, max(0, across.start - reach) : across.stop + reach
        ] = True
        assert torch.equal(x[:, ~near], y[:, ~near])
        assert not m[~near].any()
        assert m[near].float().mean() > 0.95


def test_area_and_aspect_are_the_supplements() -> None:
    spans = rectangles(0, 400, 112, 112)
    _, mask = smooth_blend(
        drawn_images(1, 112, 112).expand(400, -1, -1, -1),
        generator=seeded(0),
        reading="pasted",
        return_mask=True,
    )
    area = mask.flatten(1).float().mean(dim=1)
    assert area.min() > 0.0046
    assert area.max() < 0.0110
    assert area.mean() == pytest.approx(0.0078, abs=2e-4)
    aspect = torch.tensor([float(c.length) / float(r.length) for r, c in spans])
    assert aspect.min() > 0.24
    assert aspect.max() < 3.9
    assert (aspect.log().mean() - math.log(0.9) / 2).abs() < 0.1


def test_misuse_is_refused() -> None:
    with pytest.raises(UnknownName, match="clean"):
        smooth_blend(drawn_images(1), generator=seeded(0), reading="cleen")
    with pytest.raises(UsageError, match="sigma"):
        smooth_blend(drawn_images(1), generator=seeded(0), sigma=0.0)
    with pytest.raises(UsageError, match="area"):
        smooth_blend(drawn_images(1), generator=seeded(0), area=(0.1, 0.01))
    with pytest.raises(UsageError, match="jitter"):
        smooth_blend(drawn_images(1), generator=seeded(0), jitter=(0.1, 0.1, 0.1, 0.6))
