"""Perlin: foreign texture is blended in where Perlin noise is high; the planted defects of DRAEM and GLASS.

Source: Zavrtanik et al., DRAEM, ICCV 2021, and Chen et al., GLASS, ECCV 2024, both with official code. The
noise has 2^0 to 2^5 cells down and, drawn separately, across. It is rotated by -90 to 90 degrees, and the
mask is where it exceeds 0.5. Inside the mask

    out = (1 - beta) texture + beta image.

    recipe  mask                                                      beta
    draem   one noise; an empty mask leaves the image as it is        uniform in 0 to 0.8
    glass   one noise, or the union or the intersection of two,       normal(0.5, 0.1), clamped to 0.2 to 0.8
            with probability 1/3 each; drawn again while it is empty
            (at most ten times here, without limit there)

Differences: textures are used as given, while both methods first apply 3 of their 10 (GLASS: 9) colour and
geometry operators (`kizu.views.strong` of the textures comes close). DRAEM leaves half of the images clean;
the caller can do so. GLASS calls a mask empty by its feature grid; here one pixel is enough."""

from __future__ import annotations

import torch
from torch import Tensor

from kizu.checks import bind_shape
from kizu.errors import ShapeError, UnknownName
from kizu.views._images import as_output, working_images
from kizu.views._noise import COLUMNS, noise
from kizu.views._random import Draws, below, uniforms

THRESHOLD = 0.5
_TRIES = {"draem": 1, "glass": 10}
_NOISES = {"draem": 1, "glass": 2}


def perlin(
    images: Tensor,
    textures: Tensor,
    *,
    generator: Draws,
    recipe: str = "draem",
    foreground: Tensor | None = None,
    return_mask: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Copies of `images` (B, 3, H, W) in [0, 1] with foreign texture in random blots, drawn for each image.

    textures: (T, 3, H, W) in [0, 1], any T; each image gets one at random. recipe: "draem" or "glass", see
    above. foreground: (B, H, W) bool, where defects may lie; None is everywhere. return_mask: also return
    the pixels that changed in any channel, (B, H, W) bool; an image whose mask is empty is unchanged.

    The result has the dtype and device of `images`. With a CPU generator, a batch equals its images one by
    one, bit for bit. Raises UnknownName, ShapeError, UsageError.

    >>> images, textures = torch.zeros(2, 3, 32, 32), torch.ones(1, 3, 32, 32)
    >>> view, mask = perlin(images, textures, generator=torch.Generator().manual_seed(0), return_mask=True)
    >>> tuple(view.shape), torch.equal(mask, (view > 0).any(dim=1))
    ((2, 3, 32, 32), True)
    """
    if recipe not in _TRIES:
        raise UnknownName("recipe of perlin", recipe, _TRIES)
    x, foreign = working_images(images), working_images(textures, "textures")
    if foreign.shape[2:] != x.shape[2:]:
        raise ShapeError(
            f"textures must have the images' size {tuple(x.shape[2:])}, got {tuple(foreign.shape[2:])}; "
            "resize or crop them."
        )
    if foreground is not None:
        bind_shape(
            "foreground",
            tuple(foreground.shape),
            "B H W",
            {"B": (x.shape[0], "images"), "H": (x.shape[2], "images"), "W": (x.shape[3], "images")},
        )
    per_try = 1 + _NOISES[recipe] * COLUMNS
    u = uniforms(generator, len(x), 2 + _TRIES[recipe] * per_try)
    chosen = below(u[:, 0], torch.tensor(len(foreign)))
    beta = u[:, 1] * 0.8 if recipe == "draem" else (0.5 + 0.1 * torch.special.ndtri(u[:, 1])).clamp(0.2, 0.8)
    mask = _masks(
        u[:, 2:].unflatten(1, (_TRIES[recipe], per_try)),
        x,
        None if foreground is None else foreground.bool().to(x.device),
    )
    beta = beta.to(x)[:, None, None, None]
    planted = torch.lerp(foreign.to(x)[chosen.to(foreign.device)].to(x.device), x, beta)
    return as_output(images, torch.where(mask[:, None], planted, x), return_mask)


def _masks(u: Tensor, x: Tensor, foreground: Tensor | None) -> Tensor:
    """(B, H, W) bool from draws u (B, tries, per_try): of each image, the first try that is not empty."""
    mask = torch.zeros(len(x), *x.shape[2:], dtype=torch.bool, device=x.device)
    open_rows = torch.arange(len(x))
    for attempt in range(u.shape[1]):
        here = open_rows.to(x.device)
        drawn = _mask(u[open_rows, attempt], x)
        mask[here] = drawn if foreground is None else drawn & foreground[here]
        open_rows = (
            open_rows[~mask[here].flatten(1).any(dim=1).cpu()] if attempt + 1 < u.shape[1] else open_rows
        )
        if not len(open_rows):
            break
    return mask


def _mask(u: Tensor, x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    first = noise(u[:, 1 : 1 + COLUMNS], height, width, x.device) > THRESHOLD
    if u.shape[1] == 1 + COLUMNS:
        return first
    second = noise(u[:, 1 + COLUMNS :], height, width, x.device) > THRESHOLD
    third = (u[:, 0] * 3).long().to(x.device)[:, None, None]
    return torch.where(third == 0, first, torch.where(third == 1, first & second, first | second))
