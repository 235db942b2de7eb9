"""Global augmentation of a batch by a recipe: crop and flip, colour jitter, grey, blur, drawn for each image.

The steps and their probabilities are those of torchvision's RandomResizedCrop, ColorJitter, RandomGrayscale
and RandomHorizontalFlip; the blur is a Gaussian whose sigma is drawn uniformly. Flipping commutes with
colour and blur, so it is done with the crop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kizu.checks import numbers, whole_numbers
from kizu.errors import UsageError
from kizu.views import _colour, _linear
from kizu.views._images import working_images
from kizu.views._random import Draws, Range, below, between, check_range, log_between, uniforms

_TRIES = 10
_COLUMNS = 2 * _TRIES + 2 + 1 + 1 + _colour.COLUMNS + 1 + 2


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One recipe. crop_scale: fraction of the area. crop_ratio: width / height. jitter: strengths, see
    `_colour`. blur_sigma: pixels of the result. Names in `_chance` are probabilities. grey_first: before
    the jitter."""

    crop_scale: Range
    crop_ratio: Range = (3 / 4, 4 / 3)
    jitter: _colour.Jitter
    jitter_chance: float = 0.8
    grey_chance: float = 0.2
    grey_first: bool = False
    blur_sigma: Range = (0.1, 2.0)
    blur_chance: float = 0.5
    flip_chance: float = 0.5


def check_recipe(recipe: Recipe) -> None:
    """Raise UsageError for a value out of range."""
    check_range("crop_scale", recipe.crop_scale, 1e-6, 1.0)
    check_range("crop_ratio", recipe.crop_ratio, 1e-3, 1e3)
    check_range("blur_sigma", recipe.blur_sigma, 1e-3, 1e3)
    _colour.check_jitter(recipe.jitter)
    for name in ("jitter_chance", "grey_chance", "blur_chance", "flip_chance"):
        numbers(least=0, most=1, **{name: getattr(recipe, name)})


def check_size(size: tuple[int, int]) -> None:
    """Raise UsageError unless `size` is (height, width), both whole numbers of at least 1."""
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise UsageError(f"size must be (height, width), both at least 1, got {size!r}.")
    for side in size:
        whole_numbers(size=side)


def augment(images: Tensor, recipe: Recipe, generator: Draws, size: tuple[int, int] | None) -> Tensor:
    """Apply `recipe` to `images` (B, 3, H, W); the result has their size, or `size` (h, w)."""
    check_recipe(recipe)
    if size is not None:
        check_size(size)
    x = working_images(images)
    u = uniforms(generator, len(x), _COLUMNS)
    crop, (flip, jittered, greyed, blurred, sigma), colour = u[:, :22], u[:, 22:27].unbind(dim=1), u[:, 27:]
    height, width = x.shape[2:]
    x = _crop(
        x,
        crop_boxes(crop, height, width, recipe.crop_scale, recipe.crop_ratio),
        flip < recipe.flip_chance,
        size or (height, width),
    )
    if recipe.grey_first:
        x = _grey(x, greyed < recipe.grey_chance)
    x = _colour.jitter(x, recipe.jitter, colour, chosen=jittered < recipe.jitter_chance)
    if not recipe.grey_first:
        x = _grey(x, greyed < recipe.grey_chance)
    x = _blur(x, blurred < recipe.blur_chance, between(sigma, recipe.blur_sigma))
    return x.clamp(0, 1).to(images.dtype)


def crop_boxes(
    u: Tensor, height: int, width: int, scale: Range, ratio: Range
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, height, width (B,) of the windows of RandomResizedCrop, from draws u (B, 22).

    Area (uniform) and width / height (log-uniform) are drawn ten times; the first window that fits into the
    image counts. When none does, it is the largest window in the middle whose ratio is within the
    limits."""
    area, aspect = (
        height * width * between(u[:, :_TRIES], scale),
        log_between(u[:, _TRIES : 2 * _TRIES], ratio),
    )
    tall, wide = (area / aspect).sqrt().round().long(), (area * aspect).sqrt().round().long()
    fits = (tall >= 1) & (tall <= height) & (wide >= 1) & (wide <= width)
    first = fits.int().argmax(dim=1, keepdim=True)
    middle_tall, middle_wide = min(height, round(width / ratio[0])), min(width, round(height * ratio[1]))
    any_fits = fits.any(dim=1)
    tall = torch.where(any_fits, tall.gather(1, first)[:, 0], middle_tall)
    wide = torch.where(any_fits, wide.gather(1, first)[:, 0], middle_wide)
    top = torch.where(any_fits, below(u[:, -2], height - tall + 1), (height - middle_tall) // 2)
    left = torch.where(any_fits, below(u[:, -1], width - wide + 1), (width - middle_wide) // 2)
    return top, left, tall, wide


def _crop(
    images: Tensor, boxes: tuple[Tensor, Tensor, Tensor, Tensor], flip: Tensor, size: tuple[int, int]
) -> Tensor:
    top, left, tall, wide = boxes
    rows = _linear.resize_weights(top, tall, images.shape[2], size[0])
    columns = _linear.resize_weights(left, wide, images.shape[3], size[1])
    columns = torch.where(flip[:, None, None], columns.flip(1), columns)
    return _linear.transform(images, rows, columns).clamp(0, 1)


def _grey(images: Tensor, chosen: Tensor) -> Tensor:
    chosen = chosen.to(images.device)[:, None, None, None]
    return torch.where(chosen, _colour.grey(images).expand_as(images), images)


def _blur(images: Tensor, chosen: Tensor, sigma: Tensor) -> Tensor:
    rows = chosen.nonzero()[:, 0]
    if not len(rows):
        return images
    here = rows.to(images.device)
    return images.index_copy(0, here, _linear.blur(images[here], sigma[rows]))
