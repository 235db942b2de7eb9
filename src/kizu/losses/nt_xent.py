"""NT-Xent: each view must find the other view of its image among all views of the batch; the loss of
SimCLR.

Chen et al., A Simple Framework for Contrastive Learning, ICML 2020, Eq. 1 and algorithm 1; temperature 0.1
there for ImageNet."""

from __future__ import annotations

import torch
from torch import Tensor

from kizu.errors import UsageError
from kizu.losses._cosine import check_temperature, directions, reduced, same_shapes


def nt_xent(first: Tensor, second: Tensor, *, temperature: float = 0.1, reduction: str = "mean") -> Tensor:
    """Lower is better, at least 0: cross-entropy of picking the partner among the 2B - 1 other views by
    cosine / temperature.

    first, second: (B, D) embeddings of two views, row i of both from image i, B at least 2; the order of
    the two does not matter. reduction: "mean" over the 2B views -> (), "none" -> (2B,), those of `first`
    before those of `second`. float32, or float64 when given; lengths of the rows do not matter. Raises
    ShapeError, UsageError, UnknownName."""
    same_shapes(first=first, second=second)
    check_temperature(temperature)
    count = len(first)
    if count < 2:
        raise UsageError("nt_xent compares the images of a batch; give at least two rows.")
    views = directions(torch.cat([first, second]))
    logits = views @ views.T / temperature
    itself = torch.eye(2 * count, dtype=torch.bool, device=logits.device)
    partner = logits.diagonal(count)
    return reduced(
        logits.masked_fill(itself, -torch.inf).logsumexp(dim=1) - torch.cat([partner, partner]), reduction
    )
