"""Colour jitter of a batch; factors and order are drawn for each image.

Brightness, contrast and saturation mix the image with black, with its mean grey and with its grey version.
Hue turns the colour circle. Formulas and clamps are torchvision's ColorJitter for float images; its grey is
0.2989 R + 0.587 G + 0.114 B."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kizu.checks import numbers
from kizu.errors import UsageError
from kizu.views._random import between

Jitter = tuple[float, float, float, float]
"""Strengths of brightness, contrast, saturation (factor in 1 - s ... 1 + s) and hue (turn in -s ... s; 1 is
the full circle)."""

COLUMNS = 8
"""Uniform draws that the jitter of one image uses: four for the factors, four for the order."""


def check_jitter(strengths: Jitter) -> None:
    """Raise UsageError unless there are four strengths, none below 0, hue at most 0.5."""
    names = ("brightness", "contrast", "saturation", "hue")
    if not isinstance(strengths, (tuple, list)) or len(strengths) != len(names):
        raise UsageError(f"jitter must be ({', '.join(names)}), got {strengths!r}.")
    for name, strength in zip(names, strengths, strict=True):
        most = 0.5 if name == "hue" else math.inf
        numbers(least=0, most=most, above=False, **{f"jitter's {name}": strength})


def jitter(
    images: Tensor,
    strengths: Jitter,
    u: Tensor,
    *,
    chosen: Tensor | None = None,
    inside: Tensor | None = None,
) -> Tensor:
    """Jitter images (B, 3, H, W) by draws u (B, 8).

    chosen: (B,) bool, the images to jitter; None is all. inside: (B, H, W) bool, the pixels whose mean grey
    counts for the contrast; None is all."""
    factors, order = _factors(strengths, u[:, :4]), u[:, 4:].argsort(dim=1)
    chosen = torch.ones(len(images), dtype=torch.bool) if chosen is None else chosen
    images = images.clone()
    for position in range(4):
        for kind in range(4):
            rows = ((order[:, position] == kind) & chosen).nonzero()[:, 0]
            if strengths[kind] and len(rows):
                here = rows.to(images.device)
                factor = factors[rows, kind].to(images)[:, None, None, None]
                images[here] = _STEPS[kind](images[here], factor, None if inside is None else inside[here])
    return images


def grey(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> grey (B, 1, H, W)."""
    return (images * images.new_tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True)


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by `turn` (B, 1, 1, 1), 1 being the full circle. Value and saturation (HSV) stay."""
    value, lowest = images.amax(dim=1), images.amin(dim=1)
    chroma = value - lowest
    red, green, blue = images.unbind(dim=1)
    safe = torch.where(chroma > 0, chroma, 1)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = hue + 6 * turn[:, 0]
    offset = hue[:, None] + images.new_tensor([3, 1, -1])[:, None, None]
    offset = (offset - 6 * (offset / 6).round()).abs()
    return value[:, None] - chroma[:, None] * (2 - offset).clamp(0, 1)


def _factors(strengths: Jitter, u: Tensor) -> Tensor:
    mixes = [between(u[:, kind], (max(0.0, 1 - strengths[kind]), 1 + strengths[kind])) for kind in range(3)]
    return torch.stack([*mixes, between(u[:, 3], (-strengths[3], strengths[3]))], dim=1)


def _brightness(images: Tensor, factor: Tensor, inside: Tensor | None) -> Tensor:
    return (images * factor).clamp(0, 1)


def _contrast(images: Tensor, factor: Tensor, inside: Tensor | None) -> Tensor:
    tone = grey(images)
    weight = torch.ones_like(tone) if inside is None else inside[:, None].to(images)
    mean = (tone * weight).sum(dim=(2, 3), keepdim=True) / weight.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    return (mean + factor * (images - mean)).clamp(0, 1)


def _saturation(images: Tensor, factor: Tensor, inside: Tensor | None) -> Tensor:
    tone = grey(images)
    return (tone + factor * (images - tone)).clamp(0, 1)


def _hue(images: Tensor, turn: Tensor, inside: Tensor | None) -> Tensor:
    return turn_hue(images, turn).clamp(0, 1)


_STEPS = (_brightness, _contrast, _saturation, _hue)
