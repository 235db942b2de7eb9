"""What PaDiM keeps in a model file so that more good images can be added: the sums that a covariance is made
of. Mean and covariance of all images follow from the sums of two lots (Chan, Golub and LeVeque, "Updating
formulae and a pairwise algorithm for computing sample variances", 1979), so that an update equals a fit on
all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kizu.errors import UsageError
from kizu.store import expect

NAMES = ("sum_count", "sum_mean", "sum_scatter")


def sufficient(count: int, sums: Tensor, products: Tensor) -> dict[str, Tensor]:
    """Sums (P, D) and sums of products (P, D, D) over `count` images -> their number (1,), mean (P, D)
    float64, and sums of products about the mean (P, D (D + 1) / 2) float32, the lower triangles row
    by row; on the CPU."""
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


class KeepsSums:
    """The part of PaDiM that adds to them. sums_: what `sufficient` gave; empty where they are not kept."""

    sums_: dict[str, Tensor]
    updatable: bool
    if TYPE_CHECKING:
        gaussians_: Any
        grids_: Any
        channels_: Any
        _device: torch.device

        def _new_gaussians(self) -> Any: ...
        def _channels_by_level(self) -> list[Tensor]: ...

    def check_update(self) -> None:
        """Raise UsageError where the model does not keep its sums."""
        if not self.sums_:
            raise UsageError(
                "This PaDiM model does not keep the sums that an update needs: fit it again, with "
                "updatable=True (--set updatable=true); its file is then several times as large."
            )

    def _keep_sums(self) -> None:
        """Before the Gaussians are made of them."""
        if self.updatable:
            self.sums_ = sufficient(self.gaussians_.count, self.gaussians_.sums, self.gaussians_.products)

    def _go_on(self) -> None:
        sums = {name: tensor.to(self._device) for name, tensor in self.sums_.items()}
        self.gaussians_.count, self.gaussians_.sums, self.gaussians_.products = resumed(sums)

    def _close_sums(self) -> None:
        """After the Gaussians are made: in the form that scores here."""
        if self.updatable:
            self._restore_gaussians({**self.gaussians_.tensors(), **self.sums_})

    def _restore_gaussians(self, tensors: dict[str, Tensor]) -> None:
        """The Gaussians of a model file, in the form that scores here, and its sums where it has them. Raises
        ModelFileError where these do not fit."""
        widths = [len(chosen) for chosen in self._channels_by_level()]
        self.gaussians_ = self._new_gaussians()
        self.gaussians_.restore(tensors, self.grids_, widths)
        self.sums_ = {name: tensors[name] for name in NAMES if NAMES[0] in tensors}
        if self.sums_:
            P, D = max(h * w for h, w in self.grids_), len(self.channels_)
            shapes = {"sum_count": "1", "sum_mean": f"{P} {D}", "sum_scatter": f"{P} {D * (D + 1) // 2}"}
            expect("PaDiM", self.sums_, shapes)
