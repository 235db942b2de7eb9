"""Patch scores (B, h, w) -> map (B, H, W) -> image score (B,). Higher is more anomalous, raw float32
throughout.

The common rule of the field (PatchCore, PaDiM; the cards of methods give the exceptions): bilinear upsampling
with align_corners=False, then a Gaussian of sigma 4 pixels, truncated at 4 sigma, with reflecting borders, as
scipy.ndimage.gaussian_filter does it. Both are linear and separable, so they are applied as one matrix a
side: map = A_h patches A_w^T. That is the two steps one after the other, but for rounding, at a fraction of
their cost."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kizu.checks import check_shapes
from kizu.errors import UsageError
from kizu.types import Centre, Centres


@check_shapes(patch_scores="B h w")
def upsample(
    patch_scores: Tensor,
    size: tuple[int, int],
    *,
    sigma: float = 4.0,
    align_corners: bool = False,
    centre: Centre | None = None,
) -> Tensor:
    """Patch scores (B, h, w) -> map (B, H, W) float32: bilinear, then a Gaussian.

    size: (H, W) in pixels. sigma: of the Gaussian, in pixels; 0 for none. centre: (stride, offset) in pixels,
    where patch i lies at pixel offset + stride i; None: in the middle of its square, or as align_corners of
    torch.nn.functional.interpolate says. Raises ShapeError; UsageError for a negative sigma.

    >>> upsample(torch.tensor([[[0.0, 1.0]]]), (1, 4), sigma=0.0)
    tensor([[[0.0000, 0.2500, 0.7500, 1.0000]]])
    >>> upsample(torch.tensor([[[0.0, 1.0]]]), (1, 4), sigma=0.0, centre=(2.0, 0.0))
    tensor([[[0.0000, 0.5000, 1.0000, 1.0000]]])
    """
    if sigma < 0:
        raise UsageError(f"sigma is a length in pixels, at least 0, got {sigma}.")
    B, h, w = patch_scores.shape
    H, W = size
    rows = _operator(h, H, float(sigma), align_corners, centre).to(patch_scores.device)
    columns = _operator(w, W, float(sigma), align_corners, centre).to(patch_scores.device)
    half = patch_scores.float().reshape(B * h, w) @ columns.T
    return torch.matmul(rows, half.reshape(B, h, W))


def upsample_levels(
    levels: Sequence[Tensor],
    size: tuple[int, int],
    *,
    sigma: float = 4.0,
    align_corners: bool = False,
    centres: Centres | None = None,
) -> Tensor:
    """Scores of several levels [(B, h_l, w_l)] -> the sum of their maps (B, H, W), each by its own centre.

    The other arguments are those of `upsample`; with centres align_corners has no part.

    >>> upsample_levels([torch.ones(1, 1, 1), torch.ones(1, 2, 2)], (2, 2), sigma=0.0)
    tensor([[[2., 2.],
             [2., 2.]]])
    """
    wide = [
        upsample(level, size, sigma=sigma, align_corners=align_corners, centre=centre)
        for level, centre in zip(levels, centres or [None] * len(levels), strict=True)
    ]
    return torch.stack(wide).sum(0)


@check_shapes(maps="B H W")
def image_score(maps: Tensor, rule: str = "max", *, share: float = 0.01) -> Tensor:
    """Map (B, H, W) -> image score (B,): "max", "mean", or "top", the mean of the highest `share` of the
    pixels.

    "top" with share 0.01 is the stable rule of ReContrast's code. Raises ShapeError; UsageError for another
    rule.

    >>> maps = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    >>> image_score(maps), image_score(maps, "mean"), image_score(maps, "top", share=0.5)
    (tensor([3.]), tensor([1.5000]), tensor([2.5000]))
    """
    flat = maps.flatten(1)
    if rule == "max":
        return flat.amax(1)
    if rule == "mean":
        return flat.mean(1)
    if rule == "top":
        return flat.topk(max(int(flat.shape[1] * share), 1), dim=1).values.mean(1)
    raise UsageError(f"The score rule is 'max', 'mean' or 'top', got {rule!r}.")


def interpolation(size: int, places: Tensor) -> Tensor:
    """Weights (n, size) float64 of linear interpolation between `size` values, at n places counted in values;
    beyond the first and the last value it is constant.

    >>> interpolation(3, torch.tensor([-1.0, 0.25, 2.0]))
    tensor([[1.0000, 0.0000, 0.0000],
            [0.7500, 0.2500, 0.0000],
            [0.0000, 0.0000, 1.0000]], dtype=torch.float64)
    """
    values = torch.arange(size, dtype=torch.float64)
    inside = places.double().clamp(0, size - 1)
    return (1.0 - (inside[:, None] - values).abs()).clamp_min(0.0)


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)  # it is kept, and may be used where gradients are
def _operator(size: int, target: int, sigma: float, align_corners: bool, centre: Centre | None) -> Tensor:
    """(target, size): upsampling then smoothing along one side, as a matrix; float64 inside, float32 out."""
    if centre is not None:
        wide = interpolation(size, (torch.arange(target, dtype=torch.float64) - centre[1]) / centre[0])
    else:
        unit = torch.eye(size, dtype=torch.float64)[None]
        wide = functional.interpolate(unit, size=target, mode="linear", align_corners=align_corners)[0].T
    return (_gaussian(target, sigma) @ wide).float().contiguous()


def _gaussian(size: int, sigma: float) -> Tensor:
    """(size, size) float64: Gaussian smoothing with symmetric reflection (d c b a | a b c d | d c b a),
    truncated at 4 sigma."""
    matrix = torch.zeros(size, size, dtype=torch.float64)
    if sigma == 0:
        return torch.eye(size, dtype=torch.float64)
    radius = int(4.0 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    kernel /= kernel.sum()
    positions = torch.arange(size)
    for offset, weight in zip(offsets.tolist(), kernel, strict=True):
        folded = (positions + offset) % (2 * size)
        source = torch.where(folded < size, folded, 2 * size - 1 - folded)
        matrix.index_put_((positions, source), weight.expand(size), accumulate=True)
    return matrix
