"""NT-Xent: each view must find the other view of its image among all views of the batch; the loss of
SimCLR.

Source: Chen et al., A Simple Framework for Contrastive Learning, ICML 2020, Eq. 1 and algorithm 1;
temperature 0.1 there for ImageNet."""

from __future__ import annotations

import torch
from torch import Tensor

from kizu.checks import bind_shape, numbers
from kizu.errors import UsageError
from kizu.losses._embeddings import check_same_shape, reduce_loss, unit_rows


def nt_xent(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float = 0.1,
    groups: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Lower is better, at least 0: cross-entropy of picking the partner among the 2B - 1 other views by
    cosine / temperature.

    first, second: (B, D) embeddings of two views, row i of both from image i, B at least 2; the order of
    the two does not matter. reduction: "mean" over the 2B views -> (), "none" -> (2B,), those of `first`
    before those of `second`. temperature: above 0. groups: (B,) whole numbers; views of rows of one group, as
    of an image that is in the batch twice, are no negatives of each other. The result is float32, or float64
    when the inputs are. The lengths of the rows do not matter. Raises ShapeError, UsageError, UnknownName.

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
    left_out = torch.eye(2 * count, dtype=torch.bool, device=logits.device)
    if groups is not None:
        left_out = left_out | _others_of_group(groups, count).to(logits.device)
    partner = logits.diagonal(count)
    return reduce_loss(
        logits.masked_fill(left_out, -torch.inf).logsumexp(dim=1) - torch.cat([partner, partner]), reduction
    )


def _others_of_group(groups: Tensor, count: int) -> Tensor:
    """(2B, 2B) bool: views of two rows of one group; the two views of a row are none."""
    bind_shape("groups", tuple(groups.shape), f"{count}", {})
    same = groups[:, None] == groups[None]
    return (same & ~torch.eye(count, dtype=torch.bool, device=same.device)).repeat(2, 2)
