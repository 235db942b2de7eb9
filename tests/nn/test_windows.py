"""Windows and their map against loops over pixels."""

from __future__ import annotations

import math

import pytest
import torch

from kizu.nn.windows import spread, starts, windows


def test_windows_are_cut_row_by_row_and_reach_the_border() -> None:
    images = torch.rand(2, 3, 21, 16, generator=torch.Generator().manual_seed(0))
    cut, (h, w) = windows(images, 8, 4)
    assert (h, w) == (5, 3)
    tops, lefts = [0, 4, 8, 12, 13], [0, 4, 8]
    for image in range(2):
        for row, top in enumerate(tops):
            for column, left in enumerate(lefts):
                expected = images[image, :, top : top + 8, left : left + 8]
                assert torch.equal(cut[(image * h + row) * w + column], expected)


@pytest.mark.parametrize(("size", "side", "stride"), [((12, 9), 4, 2), ((11, 8), 8, 3), ((8, 8), 8, 4)])
def test_the_map_is_a_weighted_mean_at_each_pixel(size: tuple[int, int], side: int, stride: int) -> None:
    rows, columns = starts(size[0], side, stride), starts(size[1], side, stride)
    scores = torch.randn(1, len(rows), len(columns), generator=torch.Generator().manual_seed(1))
    got = spread(scores, size, side, stride)[0]
    deviation = 0.3 * ((side - 1) / 2 - 1) + 0.8
    for y in range(size[0]):
        for x in range(size[1]):
            above = below = 0.0
            for i, top in enumerate(rows):
                for j, left in enumerate(columns):
                    if top <= y < top + side and left <= x < left + side:
                        square = (y - top - (side - 1) / 2) ** 2 + (x - left - (side - 1) / 2) ** 2
                        weight = math.exp(-0.5 * square / deviation**2)
                        above, below = above + weight * float(scores[0, i, j]), below + weight
            assert float(got[y, x]) == pytest.approx(above / below, abs=1e-5)
