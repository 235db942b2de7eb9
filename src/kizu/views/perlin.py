"""Perlin: foreign texture blended in where Perlin noise is high; the planted flaws of DRAEM and GLASS.

Zavrtanik et al., DRAEM, ICCV 2021, and Chen et al., GLASS, ECCV 2024, both with official code. The noise has
2^0 to 2^5 cells down and across, drawn apart, is turned by -90 to 90 degrees, and the mask is where it
exceeds 0.5. Inside the mask

    out = (1 - beta) texture + beta image.

    recipe   mask                                                         beta
    draem    one noise; may be empty, and the image is then as it was   uniform in 0 to 0.8
    glass    one noise, two joined or two crossed, a third each;          normal(0.5, 0.1), held within 0.2 to 0.8
             drawn again while empty (here ten times, there for ever)

Differences: textures are taken as given, while both first change them by 3 of their 10 (GLASS 9) colour and
geometry operators (`kizu.views.strong` of the textures is near); leaving half of the images clean, as DRAEM
does, is the caller's business. GLASS judges emptiness on its feature grid, here a single pixel is enough."""

from __future__ import annotations

import torch
from torch import Tensor

from kizu.checks import bind_shape
from kizu.errors import ShapeError, UnknownName
from kizu.views._images import checked, finished
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
    """Copies of `images` (B, 3, H, W) in [0, 1] with foreign texture in random blots, each by its own draws;
    same dtype and device.

    textures: (T, 3, H, W) in [0, 1], T of any number; each image takes one at random. recipe: "draem" or
    "glass", see above. foreground: (B, H, W) bool, where flaws may lie; None is everywhere. return_mask: also
    give the pixels that changed in any channel, (B, H, W) bool; an image whose mask is empty is unchanged.
    With a CPU generator a batch is its images one by one, bit for bit. Raises UnknownName, ShapeError,
    UsageError."""
    if recipe not in _TRIES:
        raise UnknownName("recipe of perlin", recipe, _TRIES)
    x, foreign = checked(images), checked(textures, "textures")
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
    return finished(images, torch.where(mask[:, None], planted, x), return_mask)


def _masks(u: Tensor, x: Tensor, foreground: Tensor | None) -> Tensor:
    """(B, H, W) bool from draws u (B, tries, per_try): each image's first try that is not empty."""
    mask = torch.zeros(len(x), *x.shape[2:], dtype=torch.bool, device=x.device)
    open_rows = torch.arange(len(x))
    for attempt in range(u.shape[1]):
        here = open_rows.to(x.device)
        found = _mask(u[open_rows, attempt], x)
        mask[here] = found if foreground is None else found & foreground[here]
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
