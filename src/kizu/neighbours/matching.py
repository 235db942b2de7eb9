"""Which reference a feature is compared with, and what is left of it.

ADPretrain, NeurIPS 2025, section 3.1."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kizu.errors import UsageError
from kizu.neighbours.index import NearestNeighbours

MATCHINGS = ("cosine", "l2")


def comparable(rows: Tensor, matching: str) -> Tensor:
    """Rows (N, D) in the space in which the nearest is sought: unit vectors for "cosine", as they are for
    "l2"."""
    return functional.normalize(rows, dim=1) if matching == "cosine" else rows


@torch.no_grad()
def minus_nearest(rows: Tensor, bank: Tensor, matching: str = "l2") -> Tensor:
    """Rows (M, C), each minus its nearest row of a bank (N, C): (M, C). The row is subtracted as it is,
    whatever the matching.

    >>> minus_nearest(torch.tensor([[5.0]]), torch.tensor([[1.0], [4.0]]))
    tensor([[1.]])
    """
    index = NearestNeighbours(comparable(bank, matching), many_queries=False)
    _, found = index.query(comparable(rows, matching), 1)
    return rows - bank[found[:, 0]]


@torch.no_grad()
def leave_one_out(bank: Tensor, images: int, matching: str = "l2") -> Tensor:
    """The rows of a bank (N, C), image by image N / images of them, each minus its nearest row of the other
    images: (N, C).

    So do good images look whose references are others. Raises UsageError for fewer than two images, and where
    the rows cannot be divided among them."""
    if images < 2 or len(bank) % images:
        raise UsageError(
            f"References have residuals where there are others to compare with: {len(bank)} rows of at least "
            f"2 images were expected, got {images} images. Take more shots."
        )
    step = len(bank) // images
    residuals = []
    for first in range(0, len(bank), step):
        own, others = bank[first : first + step], torch.cat([bank[:first], bank[first + step :]])
        residuals.append(minus_nearest(own, others, matching))
    return torch.cat(residuals)
