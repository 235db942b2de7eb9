"""One Gaussian per position, learned in a stream: mean, covariance + eps 1, and the factor that whitens a difference.

Two forms, by how many images n there are for D dimensions:
    full  n > D / 4   W = L^-1 with S + eps 1 = L L^T; d^2 = |W f|^2. Kept as packed lower triangles.
    thin  otherwise   Woodbury: with X (n, D) the centred rows, d^2 = (|f|^2 - |V f|^2) / eps,
                      V = C^-1 X, C C^T = eps (n - 1) 1 + X X^T. Memory n D a position instead of D^2, no D x D solve.
Both are the exact Mahalanobis distance under S + eps 1 (S with n - 1), which is positive definite whatever n is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kizu.devices import side_by_side
from kizu.errors import EmptyData, ShapeError

THIN = 4
GATHER = 64
"""Images that are gathered before they are folded into the products."""
CHUNK_BYTES, CHUNK_BYTES_CPU = 256 * 2**20, 8 * 2**20
"""Of the matrices that are factored together; on a CPU by one thread."""


class PositionGaussians:
    """Accumulates features (B, D, h, w) and yields mean (P, D) and a whitening factor; P = h * w positions.

    Rows are kept until n > D / 4, then folded into sums of products about the mean of the rows met so far; those that come later are
    gathered, for every folding reads and writes all products.
    """

    def __init__(self) -> None:
        self.count = 0
        self.rows: list[Tensor] = []
        self.gathered = 0
        self.products: Tensor | None = None
        self.grid: tuple[int, int] | None = None

    def update(self, features: Tensor) -> None:
        """Add B images. Raises ShapeError when their grid is another one."""
        B, D, h, w = features.shape
        if self.grid not in (None, (h, w)):
            raise ShapeError(f"All images must have one size: a grid of {(h, w)} after {self.grid}.")
        self.grid = (h, w)
        self.rows.append(features.flatten(2).permute(2, 0, 1).contiguous())  # (P, B, D)
        self.count, self.gathered = self.count + B, self.gathered + B
        if self.gathered >= GATHER and self.count * THIN > D:
            self._fold()

    def finish(self, eps: float) -> tuple[Tensor, Tensor, bool]:
        """(mean (P, D), factor, is_thin): factor is W (P, D, D) lower triangular, or V (P, n, D)."""
        if not self.count:
            raise EmptyData("There is no image to learn from.")
        if self.products is None and self.count * THIN <= self.rows[0].shape[2]:
            return *_thin(torch.cat(self.rows, dim=1), eps), True
        if self.rows:
            self._fold()
        mean = self.sums / self.count
        P, D = mean.shape
        factor = mean.new_empty(P, D, D)

        def whiten(part: slice) -> None:
            factor[part] = self._whitening(part, mean[part], eps)

        self._by_positions(whiten, P, D)
        return self.origin + mean, factor, False

    def _whitening(self, part: slice, mean: Tensor, eps: float) -> Tensor:
        """W (p, D, D) of some positions with mean (p, D)."""
        assert self.products is not None  # only called once folded
        covariance = torch.addcmul(self.products[part], mean[:, :, None], mean[:, None, :], value=-self.count)
        covariance /= max(self.count - 1, 1)
        unit = torch.eye(mean.shape[1], device=mean.device)
        lower = torch.linalg.cholesky(covariance + eps * unit)
        return torch.linalg.solve_triangular(lower, unit.expand_as(lower), upper=False)

    def _fold(self) -> None:
        """From the rows at hand to sums of products."""
        rows = torch.cat(self.rows, dim=1)  # (P, B, D)
        P, _, D = rows.shape
        self.rows, self.gathered = [], 0
        if self.products is None:
            self.origin = rows.mean(1)
            self.sums, self.products = rows.new_zeros(P, D), rows.new_zeros(P, D, D)

        def add(part: slice) -> None:
            assert self.products is not None
            shifted = rows[part].sub_(self.origin[part, None])
            self.sums[part] += shifted.sum(1)
            self.products[part].baddbmm_(shifted.transpose(1, 2), shifted)

        self._by_positions(add, P, D)

    def _by_positions(self, work: Callable[[slice], None], P: int, D: int) -> None:
        """`work` on some positions after the other, or beside each other."""
        cpu = self.sums.device.type == "cpu"
        step = max((CHUNK_BYTES_CPU if cpu else CHUNK_BYTES) // (D * D * 4), 1)
        parts = [slice(start, start + step) for start in range(0, P, step)]
        if cpu:
            side_by_side(work, parts)
        else:
            for part in parts:
                work(part)


def _thin(rows: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(mean (P, D), V (P, n, D)) of rows (P, n, D)."""
    _, n, _ = rows.shape
    mean = rows.mean(1)
    centred = rows - mean[:, None]
    gram = torch.bmm(centred, centred.transpose(1, 2)) + eps * max(n - 1, 1) * torch.eye(n, device=rows.device)
    lower = torch.linalg.cholesky(gram)
    return mean, torch.linalg.solve_triangular(lower, centred, upper=False)


def distances(difference: Tensor, factor: Tensor, thin: bool, eps: float) -> Tensor:
    """Mahalanobis distances (P, B) of differences (P, B, D) from the means; factor (P, D, K): the transpose of W or V."""
    projected = torch.bmm(difference, factor)
    if not thin:
        return torch.linalg.vector_norm(projected, dim=2)
    rest = difference.square().sum(2) - projected.square_().sum(2)
    return (rest.clamp_min_(0) / eps).sqrt_()


def pack(factor: Tensor) -> Tensor:
    """Lower triangles (P, D, D) -> (P, D (D + 1) / 2) float16, rounded to nearest: relative error 2^-11 an entry."""
    D = factor.shape[1]
    packed = factor.new_empty(len(factor), D * (D + 1) // 2, dtype=torch.float16)
    for row in range(D):
        start = row * (row + 1) // 2
        packed[:, start : start + row + 1] = factor[:, row, : row + 1]
    return packed


def unpack(packed: Tensor, D: int) -> Tensor:
    """What was packed, transposed: (P, D, D) float32, zeros below the diagonal."""
    factor = torch.zeros(len(packed), D, D)
    for row in range(D):
        start = row * (row + 1) // 2
        factor[:, : row + 1, row] = packed[:, start : start + row + 1]
    return factor
