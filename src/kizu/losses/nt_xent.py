"""NT-Xent: each view must find the other view of its image among all views of the batch; the loss of
SimCLR.

Source: Chen et al., A Simple Framework for Contrastive Learning, ICML 2020, Eq. 1 and algorithm 1;
temperature 0.1 there for ImageNet."""

from __future__ import annotations

import torch
from torch import Tensor

from kizu.checks import numbers
from kizu.errors import UsageError
from kizu.losses._embeddings import check_same_shape, reduce_loss, unit_rows


def nt_xent(first: Tensor, second: Tensor, *, temperature: float = 0.1, reduction: str = "mean") -> Tensor:
    """Lower is better, at least 0: cross-entropy of picking the partner among the 2B - 1 other views by
    cosine / temperature.

    first, second: (B, D) embeddings of two views, row i of both from image i, B at least 2; the order of
    the two does not matter. reduction: "mean" over the 2B views -> (), "none" -> (2B,), those of `first`
    before those of `second`. temperature: above 0. The result is float32, or float64 when the inputs are.
    The lengths of the rows do not matter. Raises ShapeError, UsageError, UnknownName.

    >>> views = torch.eye(2)  # each view equals its partner and is orthogonal to the other image's two views
    >>> nt_xent(views, views, temperature=1.0)  # log(1 + 2/e)
    tensor(0.5514)
    """
    check_same_shape(first=first, second=second)
    numbers(least=0, above=True, temperature=temperature)
    count = len(first)
    if count < 2:
        raise UsageError("nt_xent compares the images of a batch; give at least two rows.")
    views = unit_rows(torch.cat([first, second]))
    logits = views @ views.T / temperature
    same_view = torch.eye(2 * count, dtype=torch.bool, device=logits.device)
    partner = logits.diagonal(count)
    return reduce_loss(
        logits.masked_fill(same_view, -torch.inf).logsumexp(dim=1) - torch.cat([partner, partner]), reduction
    )
