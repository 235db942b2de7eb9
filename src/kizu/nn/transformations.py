"""Transformations of images that a network is to tell apart: flips, shifts, quarter turns, loss of colour.

Source of the two lists: Sheynin, Benaim and Wolf, ICCV 2021, by its released code (see the card of the
detector tdg; nothing of it is used): a shift is 0.15 of the side, what comes in from outside is the image
mirrored at its border."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from kizu.errors import UnknownName
from kizu.nn.rotation import rotate

SHIFT = 0.15
"""Of the side, rounded down to whole pixels."""
KINDS = ("colour", "grey")
_GREY = (0.299, 0.587, 0.114)
"""Luma of ITU-R BT.601."""


@dataclass(frozen=True)
class Transformation:
    """flip: left and right are exchanged. across, down: -1, 0 or 1 shifts. quarters: turns by 90 degrees,
    counter-clockwise. grey: all channels become the luma. They act in this order."""

    flip: bool = False
    across: int = 0
    down: int = 0
    quarters: int = 0
    grey: bool = False

    @property
    def shifts(self) -> bool:
        """Whether some of the image leaves the frame."""
        return bool(self.across or self.down)

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> the same shape.

        >>> Transformation(flip=True)(torch.arange(3.0).expand(1, 3, 1, 3))[0, 0]
        tensor([[2., 1., 0.]])
        """
        out = images.flip(3) if self.flip else images
        out = _shifted(_shifted(out, self.across, 3), self.down, 2)
        out = rotate(out, 90 * self.quarters) if self.quarters else out
        return _without_colour(out) if self.grey else out

    def undo(self, grids: Tensor) -> Tensor:
        """Values (B, C, h, w) that belong to places of a transformed image -> to those of the image itself,
        where nothing was shifted."""
        assert not self.shifts
        turned = rotate(grids, -90 * self.quarters) if self.quarters else grids
        return turned.flip(3) if self.flip else turned


def transformations(kind: str) -> tuple[Transformation, ...]:
    """ "colour": 54, or "grey": the 42 that leave colours as they are. Raises UnknownName.

    >>> len(transformations("colour")), len(transformations("grey"))
    (54, 42)
    """
    if kind not in KINDS:
        raise UnknownName("kind of transforms", kind, KINDS)
    both = (False, True)
    up = [Transformation(flip, x, -1) for flip, x in itertools.product(both, (-1, 1, 0))]
    turned = [Transformation(*one) for one in itertools.product(both, (0, 1), (0, 1), range(4))]
    left = [Transformation(flip, -1, y) for flip, y in itertools.product(both, (1, 0))]
    plain = (*up, *turned, *left)
    if kind == "grey":
        return plain
    grey = [
        Transformation(flip, 0, 0, quarters, True) for flip, quarters in itertools.product(both, range(4))
    ]
    grey += [Transformation(False, x, y, 0, True) for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    return (*plain, *grey)


def every_one(images: Tensor, chosen: tuple[Transformation, ...]) -> Tensor:
    """Images (B, 3, H, W) under each of T transformations: (T * B, 3, H, W), the B images of the first before
    those of the second."""
    return torch.cat([one(images) for one in chosen])


def _shifted(images: Tensor, direction: int, dim: int) -> Tensor:
    """Moved by SHIFT of the side along one dimension, to the right or down for direction 1."""
    if not direction:
        return images
    side = images.shape[dim]
    places = torch.arange(side, device=images.device) - direction * int(side * SHIFT)
    folded = places % (2 * side)
    return images.index_select(dim, torch.where(folded < side, folded, 2 * side - 1 - folded))


def _without_colour(images: Tensor) -> Tensor:
    weights = images.new_tensor(_GREY)[:, None, None]
    return (images * weights).sum(1, keepdim=True).expand_as(images)
