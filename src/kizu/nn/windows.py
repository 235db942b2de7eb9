"""Windows that slide over images, and the map of what was found in each.

Source of the map: Liznerski et al., Explainable Deep One-Class Classification, ICLR 2021, section 3 and its
code: a Gaussian over each window, here with the standard deviation that OpenCV gives a kernel of that side
(9.95 for 64 pixels). There contributions are added; here they are averaged, so that a pixel at the border,
which few windows see, is not taken for good."""

from __future__ import annotations

import torch
from torch import Tensor

from kizu.errors import ShapeError


def starts(size: int, side: int, stride: int) -> list[int]:
    """Where windows begin along a length; the last one ends with it.

    >>> starts(20, 8, 5)
    [0, 5, 10, 12]
    """
    places = list(range(0, size - side + 1, stride))
    return places if places[-1] == size - side else [*places, size - side]


def windows(images: Tensor, side: int, stride: int) -> tuple[Tensor, tuple[int, int]]:
    """Images (B, C, H, W) -> windows (B h w, C, side, side), image by image, row by row, and (h, w)."""
    rows, columns = starts(images.shape[2], side, stride), starts(images.shape[3], side, stride)
    cut = [images[:, :, top : top + side, left : left + side] for top in rows for left in columns]
    return torch.stack(cut, dim=1).flatten(0, 1), (len(rows), len(columns))


def random_windows(images: Tensor, side: int, generators: list[torch.Generator]) -> Tensor:
    """(B, C, H, W) -> (B, C, side, side): a window of each image, its place drawn from the image's generator.
    Raises ShapeError for images smaller than a window.

    >>> random_windows(torch.zeros(1, 3, 8, 9), 8, [torch.Generator()]).shape
    torch.Size([1, 3, 8, 8])
    """
    H, W = images.shape[2:]
    if min(H, W) < side:
        raise ShapeError(f"Images of {H} x {W} pixels are smaller than a window of {side}: crop={min(H, W)}.")
    cut = []
    for image, generator in zip(images, generators, strict=True):
        top, left = (int(torch.randint(length - side + 1, (), generator=generator)) for length in (H, W))
        cut.append(image[:, top : top + side, left : left + side])
    return torch.stack(cut)


def spread(scores: Tensor, size: tuple[int, int], side: int, stride: int) -> Tensor:
    """Scores (B, h, w) of windows -> map (B, H, W): at each pixel the mean of the windows that see it, each
    weighed by a Gaussian about its middle.

    >>> spread(torch.tensor([[[1.0, 3.0]]]), (2, 4), 2, 2)
    tensor([[[1., 1., 3., 3.],
             [1., 1., 3., 3.]]])
    """
    rows, columns = (_weights(length, side, stride).to(scores.device) for length in size)
    return rows @ scores.float() @ columns.T


def _weights(size: int, side: int, stride: int) -> Tensor:
    """(size, windows) float32: how much each window counts at each pixel; rows add up to 1."""
    deviation = 0.3 * ((side - 1) * 0.5 - 1) + 0.8
    begin = torch.tensor(starts(size, side, stride), dtype=torch.float64)
    place = torch.arange(size, dtype=torch.float64)[:, None]
    weight = torch.exp(-0.5 * ((place - begin - (side - 1) / 2) / deviation) ** 2)
    weight = torch.where((place >= begin) & (place < begin + side), weight, 0.0)
    return (weight / weight.sum(1, keepdim=True)).float()
