"""One Gaussian per position, learned in a stream: mean, covariance + eps 1, and the factor that whitens a difference.

Two forms, by how many images n there are for D dimensions:
    full  n > D / 4   W = L^-1 with S + eps 1 = L L^T; d^2 = |W f|^2. Kept as packed lower triangles.
    thin  otherwise   Woodbury: with X (n, D) the centred rows, d^2 = (|f|^2 - |V f|^2) / eps,
                      V = C^-1 X, C C^T = eps (n - 1) 1 + X X^T. Memory n D a position instead of D^2, no D x D solve.
Both are the exact Mahalanobis distance under S + eps 1 (S with n - 1), which is positive definite whatever n is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kizu.devices import side_by_side
from kizu.errors import EmptyData, ShapeError

THIN = 4
GATHER = 128
"""Images that are gathered before they are folded into the products."""
CHUNK_BYTES, CHUNK_BYTES_CPU = 256 * 2**20, 2 * 2**20
"""Of the matrices that are factored together; on a CPU by one thread."""
WHOLE = 32
"""Rows up to which a matrix is factored by LAPACK; larger ones by halves."""


class PositionGaussians:
    """Accumulates features (B, D, h, w) and yields mean (P, D) and a whitening factor; P = h * w positions.

    Rows are kept until n > D / 4, then folded into sums of products about the mean of the rows met so far; those that come later are
    gathered, for every folding reads and writes all products. Features stay as they came until then: copying them, position by position,
    into one array took 0.6 ms an image (ResNet-18).
    """

    def __init__(self) -> None:
        self.count = 0
        self.rows: list[Tensor] = []
        self.gathered = 0
        self.products: Tensor | None = None
        self.grid: tuple[int, int] | None = None

    def update(self, features: Tensor) -> None:
        """Add B images, of any floating type: so they are kept, what is computed with them is float32 at least. They must not change after.

        Raises ShapeError when their grid is another one.
        """
        B, D, h, w = features.shape
        if self.grid not in (None, (h, w)):
            raise ShapeError(f"All images must have one size: a grid of {(h, w)} after {self.grid}.")
        self.grid = (h, w)
        self.rows.append(features.flatten(2).permute(2, 0, 1).contiguous())  # (P, B, D)
        self.count, self.gathered = self.count + B, self.gathered + B
        if self.gathered >= GATHER and self.count * THIN > D:
            self._fold()

    def finish(self, eps: float, *, packed: bool = False) -> tuple[Tensor, Tensor, bool]:
        """(mean (P, D), factor, is_thin): factor is W (P, D, D) lower triangular, or as `pack` leaves it; or V (P, n, D)."""
        if not self.count:
            raise EmptyData("There is no image to learn from.")
        if self.products is None and self.count * THIN <= self.rows[0].shape[2]:
            return *_thin(self._gathered(slice(None)), eps), True
        begun, products = self._begin()
        P, D, _ = products.shape
        factor = products.new_empty(P, D * (D + 1) // 2, dtype=torch.float16) if packed else products

        def whiten(part: slice) -> None:
            self._add(part, begun)
            mean, covariance = self.sums[part] / self.count, products[part]
            covariance.addcmul_(mean[:, :, None], mean[:, None, :], value=-self.count)
            covariance.div_(max(self.count - 1, 1)).diagonal(dim1=1, dim2=2).add_(eps)
            _whiten(covariance)
            if packed:
                factor[part] = pack(covariance)

        self._by_positions(whiten, P, D)
        self.products, self.rows = None, []
        return self.origin + self.sums / self.count, factor, False

    def _gathered(self, part: slice) -> Tensor:
        """The rows at hand of some positions, (p, n, D), a copy."""
        rows = torch.cat([some[part] for some in self.rows], dim=1)
        return rows.to(torch.promote_types(rows.dtype, torch.float32))  # bfloat16 loses nothing

    def _fold(self) -> None:
        """From the rows at hand to sums of products."""
        begun, products = self._begin()
        self._by_positions(lambda part: self._add(part, begun), *products.shape[:2])
        self.rows, self.gathered = [], 0

    def _begin(self) -> tuple[bool, Tensor]:
        """Whether there are sums of products already, and they or room for them."""
        begun = self.products is not None
        if self.products is None:
            P, _, D = self.rows[0].shape
            none = self._gathered(slice(0, 0))
            self.origin, self.sums, self.products = none.new_empty(P, D), none.new_zeros(P, D), _room(none, P, D, D)
        return begun, self.products

    def _add(self, part: slice, begun: bool) -> None:
        """The rows at hand of some positions to their sums."""
        assert self.products is not None  # made by _begin
        if not self.gathered:
            return
        rows = self._gathered(part)
        if not begun:
            self.origin[part] = rows.mean(1)
        rows -= self.origin[part, None]
        self.sums[part] += rows.sum(1)
        self.products[part].baddbmm_(rows.transpose(1, 2), rows, beta=float(begun))

    def _by_positions(self, work: Callable[[slice], None], P: int, D: int) -> None:
        """`work` on the rows and products of some positions after the other, or beside each other."""
        assert self.products is not None  # made by _begin
        _in_parts(work, P, 4 * D * max(D, self.gathered), self.products.device.type == "cpu")


def _room(like: Tensor, *shape: int) -> Tensor:
    """An empty tensor, float32 on a CPU by numpy, which asks the system for large pages: there are far fewer to be cleared at first use."""
    if like.device.type == "cpu" and like.dtype == torch.float32:
        return torch.from_numpy(np.empty(shape, np.float32))
    return like.new_empty(shape)


def _in_parts(work: Callable[[slice], None], count: int, size: int, cpu: bool) -> None:
    """`work` on slices of range(count); each takes `size` bytes. On a CPU some are done beside others."""
    step = max((CHUNK_BYTES_CPU if cpu else CHUNK_BYTES) // size, 1)
    if not cpu:
        for start in range(0, count, step):
            work(slice(start, start + step))
        return
    step = min(step, max(count // (2 * torch.get_num_threads()), 1))
    side_by_side(work, [slice(start, start + step) for start in range(0, count, step)])


def _whiten(covariance: Tensor) -> None:
    """S (p, D, D), positive definite, becomes W = L^-1 with S = L L^T, in place: by halves, for most of it is then products.

    S = (A B^T; B C): W = (W_A 0; -W_C M W_A, W_C) with M = B W_A^T and W_C from C - M M^T.
    """
    D = covariance.shape[1]
    if D <= WHOLE:
        lower = torch.linalg.cholesky(covariance)
        unit = torch.eye(D, device=covariance.device).expand_as(lower)
        covariance.copy_(torch.linalg.solve_triangular(lower, unit, upper=False))
        return
    one, other = slice(0, D // 2), slice(D // 2, D)
    first, second, across = covariance[:, one, one], covariance[:, other, other], covariance[:, other, one]
    _whiten(first)
    mixed = torch.bmm(across, first.transpose(1, 2))
    second.baddbmm_(mixed, mixed.transpose(1, 2), alpha=-1)
    _whiten(second)
    across.copy_(torch.bmm(torch.bmm(second, mixed).neg_(), first))
    covariance[:, one, other] = 0


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
    """Lower triangles (P, D, D) -> (P, D (D + 1) / 2) float16, row by row, rounded to nearest: relative error 2^-11 an entry."""
    places = _triangle(factor.shape[1], factor.device)
    return factor.flatten(1).gather(1, places.expand(len(factor), -1)).half()


@functools.lru_cache(maxsize=8)
def _triangle(D: int, device: torch.device) -> Tensor:
    """Places of the lower triangle in a (D, D) matrix, row by row."""
    with torch.inference_mode(False):  # it outlives the call
        row, column = torch.tril_indices(D, D, device=device)
        return row * D + column


def unpack(packed: Tensor, D: int) -> Tensor:
    """What was packed, transposed: (P, D, D) float32, zeros below the diagonal."""
    factor = _room(torch.empty(0), len(packed), D, D)

    def fill(part: slice) -> None:
        lower = torch.zeros(len(packed[part]), D, D)
        for row in range(D):
            start = row * (row + 1) // 2
            lower[:, row, : row + 1] = packed[part, start : start + row + 1]
        factor[part] = lower.transpose(1, 2)

    _in_parts(fill, len(packed), 1, cpu=True)  # in few parts, for each begins every row
    return factor
