"""InfoNCE: find the key of a query among negatives; the loss of MoCo.

Source: He et al., Momentum Contrast, CVPR 2020, Eq. 1; van den Oord et al., 2018. MoCo draws its negatives
from a queue of past keys and uses temperature 0.07 (v1) or 0.2 (v2). Keys and negatives get gradients if
they require them; MoCo computes both without."""

from __future__ import annotations

import torch
from torch import Tensor

from kizu.checks import numbers
from kizu.errors import UsageError
from kizu.losses._embeddings import check_float, check_same_shape, reduce_loss, unit_rows


def info_nce(
    query: Tensor,
    key: Tensor,
    negatives: Tensor | None = None,
    *,
    temperature: float = 0.2,
    reduction: str = "mean",
) -> Tensor:
    """Lower is better, at least 0: cross-entropy of picking a query's key by cosine / temperature.

    query, key: (B, D), row i of one belongs to row i of the other. negatives: (N, D), shared by all
    queries; None uses the keys of the other rows (B at least 2). temperature: above 0. reduction: "mean" ->
    (), "none" -> (B,). The result is float32, or float64 when the inputs are. The lengths of the rows do
    not matter. Raises ShapeError, UsageError, UnknownName.

    >>> query = torch.tensor([[1.0, 0.0]])
    >>> info_nce(query, query, negatives=torch.tensor([[0.0, 1.0]]), temperature=1.0)  # log(1 + 1/e)
    tensor(0.3133)
    """
    check_same_shape(query=query, key=key)
    numbers(least=0, above=True, temperature=temperature)
    q, k = unit_rows(query), unit_rows(key)
    if negatives is None:
        if len(q) < 2:
            raise UsageError(
                "info_nce without negatives compares the rows of a batch; give at least two rows, or "
                "negatives (N, D)."
            )
        logits = q @ k.T / temperature
        return reduce_loss(logits.logsumexp(dim=1) - logits.diagonal(), reduction)
    check_float("negatives", negatives, "N D", {"D": (query.shape[1], "query")})
    positive = (q * k).sum(dim=1, keepdim=True)
    logits = torch.cat([positive, q @ unit_rows(negatives).to(q.dtype).T], dim=1) / temperature
    return reduce_loss(logits.logsumexp(dim=1) - logits[:, 0], reduction)
