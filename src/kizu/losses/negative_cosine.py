"""Negative cosine: the loss of SimSiam and BYOL, prediction against a target that gets no gradient.

Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021, Eq. 1 and 3; SimSiam's loss is the
mean of negative_cosine(p1, z2) and negative_cosine(p2, z1)."""

from __future__ import annotations

from torch import Tensor

from kizu.losses._cosine import cosine, reduced, same_shapes


def negative_cosine(
    prediction: Tensor, target: Tensor, *, stop_gradient: bool = True, reduction: str = "mean"
) -> Tensor:
    """Lower is better: -cos(prediction, target), each row in [-1, 1], -1 when the two point the same way.

    prediction, target: (B, D). stop_gradient: send none to the target. reduction: "mean" -> (), "none" ->
    (B,). float32, or float64 when given; lengths of the rows do not matter. Raises ShapeError, UsageError,
    UnknownName."""
    same_shapes(prediction=prediction, target=target)
    return reduced(-cosine(prediction, target.detach() if stop_gradient else target), reduction)
