"""Where two images differ to a representation: Grad-CAM of the negative cosine similarity of their pooled
features.

Card. Zou et al., SPot-the-Difference, ECCV 2022, supplement E: "attention maps of anomalous images by
regarding negative cosine similarity as the distance (loss) between the defective image and its nearest normal
sample". Grad-CAM: Selvaraju et al., ICCV 2017, Eq. 1-2: each channel weighs the mean of its gradient over
positions, the map is the positive part of the weighted sum. Silent, and filled in: the feature is the last
level's mean over positions (the head is not kept), nearest is by the cosine of that feature, the normal
image's feature is constant. A cosine does not see its arguments' length, so at the level that is pooled the
weighted sum averages to 0 over positions before the positive part is taken: a map says which positions push
the images apart more than the others do, never that none does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

from kizu.checks import check_shapes
from kizu.errors import UsageError
from kizu.representations.base import Representation


@check_shapes(images="B 3 H W", normals="B 3 H W")
def attention(
    net: Representation, images: Tensor, normals: Tensor, *, level: int = -1
) -> tuple[Tensor, Tensor]:
    """(maps (B, H, W), distances (B,)): what in each image raises its distance, -1 to 1, to the normal image
    in the same place.

    level: which of the representation's levels is looked at, by position (-1: the last, which is also the one
    that is pooled). Maps are at least 0, in units of distance, each comparable within itself only. Raises
    UsageError for a level that the last does not depend on, or does not exist."""
    count = len(net.channels)
    if not -count <= level < count:
        raise UsageError(f"level is a position among the representation's {count} levels, got {level}.")
    with evaluation(net), torch.enable_grad():
        with torch.no_grad():
            target = pooled(net(normals)[-1])
        features = net(images.detach().requires_grad_(True))
        chosen = features[level]
        distances = -functional.cosine_similarity(pooled(features[-1]), target)
        (gradient,) = torch.autograd.grad(distances.sum(), chosen, allow_unused=True)
    if gradient is None:
        raise UsageError(
            f"The last level of {net.card['name']} is not made from level {level}: take the last one, or "
            "another network."
        )
    maps = grad_cam(chosen.detach().float(), gradient.float())
    wide = functional.interpolate(maps[:, None], size=images.shape[2:], mode="bilinear", align_corners=False)
    return wide[:, 0], distances.detach()


@check_shapes(features="B C h w", gradient="B C h w")
def grad_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """Feature map and gradient of a scalar by it, (B, C, h, w) -> map (B, h, w) at least 0: Eq. 1-2 of
    Grad-CAM."""
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * features).sum(1).relu()


def pooled(level: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C) float32, the mean over positions."""
    return level.float().mean((2, 3))


@check_shapes(queries="B C", normals="N C")
def similarities(queries: Tensor, normals: Tensor) -> Tensor:
    """Cosines (B, N) of pooled features."""
    return functional.normalize(queries, dim=1) @ functional.normalize(normals, dim=1).T


@check_shapes(maps="B H W", masks="B H W")
def share_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """(B,): the share of a map that lies in its mask (bool); the mask's share of the image by chance, NaN
    for a map of zeros."""
    return (maps * masks).sum((1, 2)) / maps.sum((1, 2))


@contextmanager
def evaluation(net: Representation) -> Iterator[None]:
    """The representation in evaluation mode (batch norms at their running statistics), then as it was."""
    before = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(before)
