"""CutPaste: a piece of the image is cut out and pasted elsewhere with sharp edges.

Source: Li et al., CutPaste, CVPR 2021; there is no official code.

    "patch"  Area 0.02 to 0.15 of the image, width / height 0.3 to 1 or 1 to 3.3, either with equal
             probability (one re-implementation draws uniformly from 0.3 to 3.3 instead).
    "scar"   2 to 16 pixels wide and 10 to 25 tall in an image of 256x256, rotated by -45 to 45 degrees.

Both have a colour jitter of 0.1 on the piece alone, and may be pasted anywhere, also over their source.

Their 3-way task is cat([images, cutpaste(images, kind="patch"), cutpaste(images, kind="scar")]) with labels
0, 1, 2."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kizu.errors import UnknownName
from kizu.views import _colour
from kizu.views._images import as_output, cut, put, working_images
from kizu.views._random import Draws, Range, below, between, check_range, uniforms

KINDS = ("patch", "scar", "both")
_SCAR_SIDE = 256
_COLUMNS = 11 + _colour.COLUMNS


def cutpaste(
    images: Tensor,
    *,
    generator: Draws,
    kind: str = "patch",
    area: Range = (0.02, 0.15),
    jitter: _colour.Jitter = (0.1, 0.1, 0.1, 0.1),
    return_mask: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Copies of `images` (B, 3, H, W) in [0, 1] with one piece pasted, drawn for each image.

    kind: "patch", "scar", or "both": each image gets one or the other with equal probability. area: of a
    patch, as a fraction of the image. jitter: strengths of brightness, contrast, saturation and hue on the
    piece. return_mask: also return the pixels that changed in any channel, (B, H, W) bool. The size of a
    scar grows with sqrt(H W) / 256. A piece that does not fit into an elongated image is shortened.

    The result has the dtype and device of `images`. With a CPU generator, a batch equals its images one by
    one, up to rounding. Raises UnknownName, ShapeError, UsageError.

    >>> images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> view, mask = cutpaste(images, generator=torch.Generator().manual_seed(1), return_mask=True)
    >>> tuple(view.shape), tuple(mask.shape), bool(((view == images) | mask[:, None]).all())
    ((2, 3, 32, 32), (2, 32, 32), True)
    """
    if kind not in KINDS:
        raise UnknownName("kind of cutpaste", kind, KINDS)
    check_range("area", area, 1e-6, 1.0)
    _colour.check_jitter(jitter)
    x = working_images(images)
    u = uniforms(generator, len(x), _COLUMNS)
    height, width = x.shape[2:]
    is_scar = torch.full((len(x),), kind == "scar") if kind != "both" else u[:, 0] < 0.5
    (patch_tall, patch_wide), (scar_tall, scar_wide) = (
        _patch(u[:, 1:4], height, width, area),
        _scar(u[:, 4:6], height, width),
    )
    tall, wide = torch.where(is_scar, scar_tall, patch_tall), torch.where(is_scar, scar_wide, patch_wide)
    angle = torch.where(is_scar, between(u[:, 6], (-math.pi / 4, math.pi / 4)), 0.0)
    return as_output(images, _paste(x, tall, wide, angle, u[:, 7:], jitter), return_mask)


def _patch(u: Tensor, height: int, width: int, area: Range) -> tuple[Tensor, Tensor]:
    pixels = height * width * between(u[:, 0], area)
    aspect = torch.where(u[:, 1] < 0.5, between(u[:, 2], (0.3, 1.0)), between(u[:, 2], (1.0, 3.3)))
    tall, wide = (pixels / aspect).sqrt().round().long(), (pixels * aspect).sqrt().round().long()
    return tall.clamp(1, height), wide.clamp(1, width)


def _scar(u: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    unit = math.sqrt(height * width) / _SCAR_SIDE
    longest = math.floor(min(height, width) / 1.415)
    wide, tall = between(u[:, 0], (2, 16)) * unit, between(u[:, 1], (10, 25)) * unit
    return tall.round().long().clamp(1, longest), wide.round().long().clamp(1, longest)


def _paste(x: Tensor, tall: Tensor, wide: Tensor, angle: Tensor, u: Tensor, jitter: _colour.Jitter) -> Tensor:
    """Cut a rectangle (tall, wide), rotate it by `angle`, paste it where its bounding box fits. u: (B, 4 +
    8)."""
    height, width = x.shape[2:]
    cos, sin = angle.cos(), angle.sin()
    box_tall = (tall * cos + wide * sin.abs() - 1e-9).ceil().long()
    box_wide = (wide * cos + tall * sin.abs() - 1e-9).ceil().long()
    window_tall, window_wide = int(box_tall.max()), int(box_wide.max())
    source_top, source_left = below(u[:, 0], height - tall + 1), below(u[:, 1], width - wide + 1)
    top, left = below(u[:, 2], height - box_tall + 1), below(u[:, 3], width - box_wide + 1)
    first_row, first_column = top.clamp(max=height - window_tall), left.clamp(max=width - window_wide)
    rows = first_row[:, None, None] + torch.arange(window_tall)[None, :, None]
    columns = first_column[:, None, None] + torch.arange(window_wide)[None, None, :]
    down = rows + 0.5 - (top + box_tall / 2)[:, None, None]
    right = columns + 0.5 - (left + box_wide / 2)[:, None, None]
    cos, sin = cos[:, None, None], sin[:, None, None]
    piece_row = (cos * down + sin * right + tall[:, None, None] / 2).floor().long()
    piece_column = (cos * right - sin * down + wide[:, None, None] / 2).floor().long()
    inside = (
        (piece_row >= 0)
        & (piece_row < tall[:, None, None])
        & (piece_column >= 0)
        & (piece_column < wide[:, None, None])
    )
    from_row = (piece_row + source_top[:, None, None]).clamp(0, height - 1)
    from_column = (piece_column + source_left[:, None, None]).clamp(0, width - 1)
    rows, columns, from_row, from_column, inside = (
        t.to(x.device) for t in (rows, columns, from_row, from_column, inside)
    )
    piece = _colour.jitter(cut(x, from_row, from_column), jitter, u[:, 4:], inside=inside)
    return put(x, rows, columns, torch.where(inside[:, None], piece, cut(x, rows, columns)))
