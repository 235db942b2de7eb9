"""Labels of tokens: which cells of a level show a defect, by the mask of their image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from kizu.errors import UsageError

TOKEN_LABELS = ("share", "code")
CODE_PIXELS = 32
"""More mask pixels than this make a token anomalous to the angle loss of the released code, whatever the size
of its cell."""
EPSILON = 1e-6
"""Above the rounding of a mean of zeros and ones."""


def token_labels(
    masks: Tensor, grids: Sequence[tuple[int, int]], rule: str, share: float
) -> tuple[list[Tensor], list[Tensor]]:
    """Masks (B, H, W) bool -> labels of tokens [(B, h_l, w_l)] bool, for the angle and for the norm loss.

    grids: (h_l, w_l) of each level. rule: "share", more than `share` of the cell's pixels, for both losses;
    "code", as the released code: more than CODE_PIXELS pixels for the angle, the cell's first pixel for the
    norm."""
    values = masks[:, None].float()
    shares = [functional.adaptive_avg_pool2d(values, grid)[:, 0] for grid in grids]
    if rule == "share":
        labels = [found > share + EPSILON for found in shares]
        return labels, [found.clone() for found in labels]  # apart: a batch is saved when it gives NaN
    areas = [masks[0].numel() / (h * w) for h, w in grids]
    angle = [found * area > CODE_PIXELS + 0.5 for found, area in zip(shares, areas, strict=True)]
    return angle, [functional.interpolate(values, grid, mode="nearest")[:, 0] > 0 for grid in grids]


def check_cells(size: int, grids: Sequence[tuple[int, int]], backbone: str) -> None:
    """Raise UsageError where the cells of a level are too small for the rule of the released code."""
    areas = [size**2 / (h * w) for h, w in grids]
    if min(areas) <= CODE_PIXELS:
        raise UsageError(
            f"token_label='code' counts more than {CODE_PIXELS} pixels in a cell, and those of the levels of "
            f"{backbone} have {[round(area) for area in areas]}: take coarser levels, or token_label='share'."
        )
