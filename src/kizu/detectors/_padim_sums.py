"""What PaDiM keeps in a model file so that more good images can be added: the sums that a covariance is made
of. Mean and covariance of all images follow from the sums of two lots (Chan, Golub and LeVeque, "Updating
formulae and a pairwise algorithm for computing sample variances", 1979), so that an update equals a fit on
all."""

from __future__ import annotations

import torch
from torch import Tensor

from kizu.errors import UsageError
from kizu.store import expect

NAMES = ("sum_count", "sum_mean", "sum_scatter")


def sufficient(count: int, sums: Tensor, products: Tensor) -> dict[str, Tensor]:
    """Sums (P, D) and sums of products (P, D, D) over `count` images -> their number (1,), mean (P, D) float64,
    and sums of products about the mean (P, D (D + 1) / 2) float32, the lower triangles row by row; on the
    CPU."""
    mean = sums / count
    row, column = torch.tril_indices(mean.shape[1], mean.shape[1])
    scatter = products - count * mean[:, :, None] * mean[:, None, :]
    packed = scatter[:, row, column].float().cpu()
    return {"sum_count": torch.tensor([count]), "sum_mean": mean.cpu(), "sum_scatter": packed}


def resumed(sums: dict[str, Tensor]) -> tuple[int, Tensor, Tensor]:
    """The inverse: (count, sums, sums of products), in float64.

    >>> rows = torch.tensor([[1.0, 2.0], [3.0, 6.0]]).double()
    >>> kept = sufficient(2, rows.sum(0)[None], (rows.mT @ rows)[None])
    >>> resumed(kept)[2]
    tensor([[[10., 20.],
             [20., 40.]]], dtype=torch.float64)
    """
    mean, packed, count = sums["sum_mean"].double(), sums["sum_scatter"].double(), int(sums["sum_count"][0])
    P, D = mean.shape
    row, column = torch.tril_indices(D, D)
    products = mean.new_zeros(P, D, D)
    products[:, row, column] = products[:, column, row] = packed
    return count, mean * count, products + count * mean[:, :, None] * mean[:, None, :]


def restored(tensors: dict[str, Tensor], positions: int, width: int) -> dict[str, Tensor]:
    """Those of a model file that has them; raises ModelFileError where they do not fit."""
    if NAMES[0] not in tensors:
        return {}
    packed = width * (width + 1) // 2
    shapes = {"sum_count": "1", "sum_mean": f"{positions} {width}", "sum_scatter": f"{positions} {packed}"}
    expect("PaDiM", tensors, shapes)
    return {name: tensors[name] for name in NAMES}


def require(sums: dict[str, Tensor]) -> None:
    """Raise UsageError where a model keeps none."""
    if not sums:
        raise UsageError(
            "This PaDiM model does not keep the sums that an update needs: fit it again, with updatable=True "
            "(--set updatable=true); its file is then several times as large."
        )
