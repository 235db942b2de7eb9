"""SPD: an image with a planted flaw should be far from its anchor, a slightly changed one near.

Zou et al., SPot-the-Difference, ECCV 2022, Eq. 2: cos(z, z-) - cos(z, z+), added to the other loss with
weight 0.1. z are projector outputs. The paper speaks of no stop-gradient, so there is none by default;
`stop_gradient` makes the anchor a fixed mark."""

from __future__ import annotations

from torch import Tensor

from kizu.losses._cosine import cosine, reduced, same_shapes


def spd(
    anchor: Tensor,
    negative: Tensor,
    positive: Tensor,
    *,
    stop_gradient: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Lower is better: cos(anchor, negative) - cos(anchor, positive), each row in [-2, 2], 0 when negative
    and positive coincide.

    anchor, negative, positive: (B, D) embeddings of the image, of its weakly changed copy with a planted
    flaw, of its weakly changed copy; in this order, which is Eq. 2's. stop_gradient: send none to the anchor.
    reduction: "mean" -> (), "none" -> (B,). float32, or float64 when given; lengths of the rows do not
    matter. Raises ShapeError, UsageError, UnknownName."""
    same_shapes(anchor=anchor, negative=negative, positive=positive)
    mark = anchor.detach() if stop_gradient else anchor
    return reduced(cosine(mark, negative) - cosine(mark, positive), reduction)
