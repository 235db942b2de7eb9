"""Geometric transformations of images whose kind a network can be asked for, and the way back for maps.

    rotations   4: turns by 0, 90, 180 and 270 degrees
    geometric   72: flip (no, yes) x shift down (0, -, +) x shift right (0, -, +) x turn (4)

Source: Golan and El-Yaniv, Deep Anomaly Detection Using Geometric Transformations, NeurIPS 2018, section 4.1
and its code (izikgo/AnomalyDetectionTransformations): an image is flipped, then shifted with its border
mirrored, then turned; shifts are 8 of 32 pixels, 16 of 64: a quarter of the side. Nothing of the code is
used."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from kizu.errors import ShapeError, UnknownName

TRANSFORMS = ("rotations", "geometric")


@dataclass(frozen=True)
class Transformation:
    """flip: left to right. down, right: -1, 0 or 1 shifts. turns: by 90 degrees, counter-clockwise."""

    flip: bool = False
    down: int = 0
    right: int = 0
    turns: int = 0


def transformations(kind: str) -> tuple[Transformation, ...]:
    """All of a kind; the first leaves images as they are. Raises UnknownName.

    >>> len(transformations("rotations")), len(transformations("geometric"))
    (4, 72)
    """
    if kind not in TRANSFORMS:
        raise UnknownName("transforms", kind, TRANSFORMS)
    if kind == "rotations":
        return tuple(Transformation(turns=turns) for turns in range(4))
    return tuple(
        Transformation(flip, down, right, turns)
        for flip, down, right, turns in itertools.product((False, True), (0, -1, 1), (0, -1, 1), range(4))
    )


def require_square(size: tuple[int, int]) -> None:
    """Raise ShapeError for images (H, W) that have another shape after a turn by 90 degrees."""
    if size[0] != size[1]:
        raise ShapeError(
            f"Turned by 90 degrees an image of {size[0]} x {size[1]} pixels has another shape, which would "
            "give the turn away: take square images (image_size=256)."
        )


def transform(images: Tensor, how: Transformation, shift: float = 0.25) -> Tensor:
    """Square images (B, C, H, H) -> the same shape; shift: in sides of the image.

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
    return torch.rot90(images, how.turns, (2, 3))


def undo(maps: Tensor, how: Transformation, shift: float = 0.25) -> tuple[Tensor, Tensor]:
    """Maps (B, H, H) of transformed images -> (maps over the images as they were, seen (H, H)).

    seen is 1 where the transformed image showed the pixel, and 0 where a shift had moved it out; the map is 0
    there."""
    turned = torch.rot90(maps, -how.turns, (1, 2))
    H, W = turned.shape[1:]
    down, right = _pixels(how, shift, H, W)
    back, seen = torch.zeros_like(turned), torch.zeros_like(turned[0])
    here = slice(max(-down, 0), H - max(down, 0)), slice(max(-right, 0), W - max(right, 0))
    there = slice(max(down, 0), H - max(-down, 0)), slice(max(right, 0), W - max(-right, 0))
    back[:, here[0], here[1]] = turned[:, there[0], there[1]]
    seen[here] = 1.0
    return (back.flip(2), seen.flip(1)) if how.flip else (back, seen)


def _pixels(how: Transformation, shift: float, H: int, W: int) -> tuple[int, int]:
    return round(how.down * shift * H), round(how.right * shift * W)


def _mirrored(size: int, by: int) -> Tensor:
    """Which row comes to each place: d c b a | a b c d | d c b a."""
    folded = (torch.arange(size) - by) % (2 * size)
    return torch.where(folded < size, folded, 2 * size - 1 - folded)
