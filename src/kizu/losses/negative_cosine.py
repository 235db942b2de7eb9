"""Negative cosine: the loss of SimSiam and BYOL, prediction against a target that gets no gradient.

Source: Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021, Eq. 1 and 3; SimSiam's
loss is the mean of negative_cosine(p1, z2) and negative_cosine(p2, z1)."""

from __future__ import annotations

from torch import Tensor

from kizu.losses._embeddings import check_same_shape, reduce_loss, row_cosines


def negative_cosine(
    prediction: Tensor, target: Tensor, *, stop_gradient: bool = True, reduction: str = "mean"
) -> Tensor:
    """Lower is better: -cos(prediction, target), each row in [-1, 1], -1 when both point the same way.

    prediction, target: (B, D). stop_gradient: send none to the target. reduction: "mean" -> (), "none" ->
    (B,). The result is float32, or float64 when the inputs are. The lengths of the rows do not matter.
    Raises ShapeError, UsageError, UnknownName.

    >>> import torch
    >>> negative_cosine(torch.tensor([[2.0, 0.0]]), torch.tensor([[5.0, 0.0]]))
    tensor(-1.)
    """
    check_same_shape(prediction=prediction, target=target)
    return reduce_loss(-row_cosines(prediction, target.detach() if stop_gradient else target), reduction)
