"""Geometric transformations of images whose kind a network can be asked for, and the way back for maps.

    rotations   4: turns by 0, 90, 180 and 270 degrees
    geometric   72: flip (no, yes) x shift down (0, -, +) x shift right (0, -, +) x turn (4)
    grey        42: flips and turns with and without shifts to the right and down, and ten more shifts
    colour      54: these, and 12 of them without colour

Sources: Golan and El-Yaniv, Deep Anomaly Detection Using Geometric Transformations, NeurIPS 2018, section
4.1 and its code (izikgo/AnomalyDetectionTransformations): an image is flipped, then shifted with its border
mirrored, then turned; shifts are 8 of 32 pixels, 16 of 64: a quarter of the side. The last two lists:
Sheynin, Benaim and Wolf, ICCV 2021, by its released code (see the card of the detector tdg). Nothing of any
code is used."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from kizu.errors import ShapeError, UnknownName
from kizu.nn.rotation import rotate

TRANSFORMS = ("rotations", "geometric")
"""Of RotNet."""
DISCRIMINATED = ("colour", "grey")
"""Of TDG."""
_GREY = (0.299, 0.587, 0.114)
"""Luma of ITU-R BT.601."""


@dataclass(frozen=True)
class Transformation:
    """flip: left to right. down, right: -1, 0 or 1 shifts. turns: by 90 degrees, counter-clockwise. grey: all
    channels become the luma. They act in this order."""

    flip: bool = False
    down: int = 0
    right: int = 0
    turns: int = 0
    grey: bool = False

    @property
    def shifts(self) -> bool:
        """Whether some of the image leaves the frame."""
        return bool(self.down or self.right)


def transformations(kind: str) -> tuple[Transformation, ...]:
    """All of a kind. Raises UnknownName.

    >>> [len(transformations(kind)) for kind in ("rotations", "geometric", "grey", "colour")]
    [4, 72, 42, 54]
    """
    if kind not in TRANSFORMS + DISCRIMINATED:
        raise UnknownName("transforms", kind, TRANSFORMS + DISCRIMINATED)
    both, turns = (False, True), range(4)
    if kind == "rotations":
        return tuple(Transformation(turns=one) for one in turns)
    if kind == "geometric":
        return tuple(Transformation(*one) for one in itertools.product(both, (0, -1, 1), (0, -1, 1), turns))
    up = [Transformation(flip, -1, right) for flip, right in itertools.product(both, (-1, 1, 0))]
    turned = [
        Transformation(flip, down, right, turn)
        for flip, right, down, turn in itertools.product(both, (0, 1), (0, 1), turns)
    ]
    left = [Transformation(flip, down, -1) for flip, down in itertools.product(both, (1, 0))]
    if kind == "grey":
        return (*up, *turned, *left)
    grey = [Transformation(flip, turns=turn, grey=True) for flip, turn in itertools.product(both, turns)]
    grey += [Transformation(down=d, right=r, grey=True) for d, r in ((0, 1), (0, -1), (1, 0), (-1, 0))]
    return (*up, *turned, *left, *grey)


def require_square(size: tuple[int, int]) -> None:
    """Raise ShapeError for images (H, W) that have another shape after a turn by 90 degrees."""
    if size[0] != size[1]:
        raise ShapeError(
            f"Turned by 90 degrees an image of {size[0]} x {size[1]} pixels has another shape, which would "
            "give the turn away: take square images (image_size=256)."
        )


def transform(images: Tensor, how: Transformation, shift: float = 0.25) -> Tensor:
    """Images (B, C, H, W) -> the same shape; shift: in sides of the image, rounded down to whole pixels.

    Turns of images that are not square by 90 degrees are resampled (kizu.nn.rotation).

    >>> transform(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), Transformation(flip=True, turns=1)).squeeze()
    tensor([[1., 3.],
            [2., 4.]])
    """
    if how.flip:
        images = images.flip(3)
    H, W = images.shape[2:]
    down, right = _pixels(how, shift, H, W)
    if down:
        images = images.index_select(2, _mirrored(H, down).to(images.device))
    if right:
        images = images.index_select(3, _mirrored(W, right).to(images.device))
    turned = rotate(images, 90 * how.turns) if how.turns else images
    return _without_colour(turned) if how.grey else turned


def every_one(images: Tensor, chosen: tuple[Transformation, ...], shift: float = 0.25) -> Tensor:
    """Images (B, C, H, W) under each of T transformations: (T * B, C, H, W), the B images of the first before
    those of the second."""
    return torch.cat([transform(images, one, shift) for one in chosen])


def undo(maps: Tensor, how: Transformation, shift: float = 0.25) -> tuple[Tensor, Tensor]:
    """Maps (B, H, W) of transformed images -> (maps over the images as they were, seen (H, W)).

    seen is 1 where the transformed image showed the pixel, and 0 where a shift had moved it out; the map is 0
    there."""
    turned = rotate(maps[:, None], -90 * how.turns)[:, 0] if how.turns else maps
    H, W = turned.shape[1:]
    down, right = _pixels(how, shift, H, W)
    back, seen = torch.zeros_like(turned), torch.zeros_like(turned[0])
    here = slice(max(-down, 0), H - max(down, 0)), slice(max(-right, 0), W - max(right, 0))
    there = slice(max(down, 0), H - max(-down, 0)), slice(max(right, 0), W - max(-right, 0))
    back[:, here[0], here[1]] = turned[:, there[0], there[1]]
    seen[here] = 1.0
    return (back.flip(2), seen.flip(1)) if how.flip else (back, seen)


def _pixels(how: Transformation, shift: float, H: int, W: int) -> tuple[int, int]:
    return how.down * int(shift * H), how.right * int(shift * W)


def _mirrored(size: int, by: int) -> Tensor:
    """Which row comes to each place: d c b a | a b c d | d c b a."""
    folded = (torch.arange(size) - by) % (2 * size)
    return torch.where(folded < size, folded, 2 * size - 1 - folded)


def _without_colour(images: Tensor) -> Tensor:
    weights = images.new_tensor(_GREY)[:, None, None]
    return (images * weights).sum(1, keepdim=True).expand_as(images)
