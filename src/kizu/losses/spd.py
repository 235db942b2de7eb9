"""SPD: a copy with a planted defect should lie far from its anchor, a slightly changed copy near it.

Source: Zou et al., SPot-the-Difference, ECCV 2022, Eq. 2: cos(z, z-) - cos(z, z+), added to the other loss
with weight 0.1. z are projector outputs. The paper mentions no stop-gradient, so there is none by default;
with `stop_gradient` the anchor gets no gradient."""

from __future__ import annotations

from torch import Tensor

from kizu.losses._embeddings import check_same_shape, reduce_loss, row_cosines


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

    anchor, negative, positive: (B, D) embeddings of the image, of a weakly changed copy with a planted
    defect, and of a weakly changed copy, in the order of Eq. 2. stop_gradient: send none to the anchor.
    reduction: "mean" -> (), "none" -> (B,). The result is float32, or float64 when the inputs are. The
    lengths of the rows do not matter. Raises ShapeError, UsageError, UnknownName.

    >>> import torch
    >>> anchor, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> spd(anchor, negative=other, positive=anchor)
    tensor(-1.)
    """
    check_same_shape(anchor=anchor, negative=negative, positive=positive)
    anchor = anchor.detach() if stop_gradient else anchor
    return reduce_loss(row_cosines(anchor, negative) - row_cosines(anchor, positive), reduction)
