"""Strong global augmentation: the recipes of SimSiam, MoCo, SimCLR and CSI for the two views of
self-supervised learning.

Source: the official repositories (SimSiam and MoCo of Facebook Research, SimCLR of Google Research, CSI of
alinlab).

    recipe    crop area   jitter (b, c, s, h)   chance  grey  blur sigma    flip
    simsiam   0.2 - 1     0.4, 0.4, 0.4, 0.1    0.8     0.2   0.1 - 2, 0.5  0.5   (= moco_v2)
    moco_v1   0.2 - 1     0.4, 0.4, 0.4, 0.4    always  0.2   none          0.5   (grey before the jitter)
    simclr    0.08 - 1    0.8, 0.8, 0.8, 0.2    0.8     0.2   0.1 - 2, 0.5  0.5
    csi       0.08 - 1    0.4, 0.4, 0.4, 0.1    0.8     0.2   none          0.5
    csi_fixed 0.54        as csi: with it CSI looks at an image several times when it scores
    plain     0.08 - 1    none                  -       none  none          0.5   (torchvision, supervised)

Differences: between the steps the images are float, not bytes. The blur is a true Gaussian; Pillow's, which
SimSiam and MoCo use, is three box blurs, and SimCLR cuts it off at a tenth of the side. The crop is resized
by antialiased bilinear weights."""

from __future__ import annotations

from torch import Tensor

from kizu.errors import UnknownName
from kizu.views._augment import Recipe, augment
from kizu.views._random import Draws

_MOCO_V2 = Recipe(crop_scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1))
RECIPES = {
    "simsiam": _MOCO_V2,
    "moco_v1": Recipe(
        crop_scale=(0.2, 1.0),
        jitter=(0.4, 0.4, 0.4, 0.4),
        jitter_chance=1.0,
        grey_first=True,
        blur_chance=0.0,
    ),
    "moco_v2": _MOCO_V2,
    "simclr": Recipe(crop_scale=(0.08, 1.0), jitter=(0.8, 0.8, 0.8, 0.2)),
    "csi": Recipe(crop_scale=(0.08, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), blur_chance=0.0),
    "csi_fixed": Recipe(crop_scale=(0.54, 0.54), jitter=(0.4, 0.4, 0.4, 0.1), blur_chance=0.0),
    "plain": Recipe(
        crop_scale=(0.08, 1.0),
        jitter=(0.0, 0.0, 0.0, 0.0),
        jitter_chance=0.0,
        grey_chance=0.0,
        blur_chance=0.0,
    ),
}
"""Recipe by name."""


def strong(
    images: Tensor, *, generator: Draws, recipe: str = "simsiam", size: tuple[int, int] | None = None
) -> Tensor:
    """Strongly augmented copies of `images` (B, 3, H, W) in [0, 1], drawn for each image.

    recipe: "simsiam", "moco_v1", "moco_v2", "simclr", "csi", "csi_fixed" or "plain", see the table above.
    size: (h, w) of the result, by default that of `images`. Blur sigmas are in pixels of the result (the
    originals use 224).

    The result has the dtype and device of `images`. With a CPU generator, a batch equals its images one by
    one, up to rounding. Raises UnknownName, ShapeError, UsageError.

    >>> import torch
    >>> images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> view = strong(images, generator=torch.Generator().manual_seed(1), recipe="simclr", size=(16, 24))
    >>> tuple(view.shape)
    (2, 3, 16, 24)
    """
    if recipe not in RECIPES:
        raise UnknownName("recipe of strong", recipe, RECIPES)
    return augment(images, RECIPES[recipe], generator, size)
