"""InfoNCE: find a query's own key among negatives; the loss of MoCo.

He et al., Momentum Contrast, CVPR 2020, Eq. 1; van den Oord et al., 2018. MoCo takes its negatives from a
queue of past keys and temperature 0.07 (v1) or 0.2 (v2). Keys and negatives get gradients if they require
them: MoCo computes both without."""

from __future__ import annotations

import torch
from torch import Tensor

from kizu.errors import UsageError
from kizu.losses._cosine import check_temperature, directions, matrix, reduced, same_shapes


def info_nce(
    query: Tensor,
    key: Tensor,
    negatives: Tensor | None = None,
    *,
    temperature: float = 0.2,
    reduction: str = "mean",
) -> Tensor:
    """Lower is better, at least 0: cross-entropy of picking a query's key by cosine / temperature.

    query, key: (B, D), row i of one belongs to row i of the other. negatives: (N, D), shared by all queries;
    None takes the other rows' keys (B at least 2). reduction: "mean" -> (), "none" -> (B,). float32, or
    float64 when given; lengths of the rows do not matter. Raises ShapeError, UsageError, UnknownName."""
    same_shapes(query=query, key=key)
    check_temperature(temperature)
    q, k = directions(query), directions(key)
    if negatives is None:
        if len(q) < 2:
            raise UsageError(
                "info_nce without negatives compares the rows of a batch; give at least two rows, or "
                "negatives (N, D)."
            )
        logits = q @ k.T / temperature
        return reduced(logits.logsumexp(dim=1) - logits.diagonal(), reduction)
    matrix("negatives", negatives, "N D", {"D": (query.shape[1], "query")})
    own = (q * k).sum(dim=1, keepdim=True)
    logits = torch.cat([own, q @ directions(negatives).to(q.dtype).T], dim=1) / temperature
    return reduced(logits.logsumexp(dim=1) - logits[:, 0], reduction)
