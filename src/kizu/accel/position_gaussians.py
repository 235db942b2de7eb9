"""One Gaussian per position, learned in a stream: mean, covariance + eps 1, and the factor that whitens a
difference.

Two forms, by how many images n there are for D dimensions:
    full  n > D / 4   W = L^-1 with S + eps 1 = L L^T; d^2 = |W f|^2. With the channels of coarse levels first, the rows of W that belong to
                      a stage are the same for all positions of a group (_nesting), since they depend on the
                      stages so far alone: d^2 is a sum over stages, each counted once a group. Kept as packed
                      rows.
    thin  otherwise   Woodbury: with X (n, D) the centred rows, d^2 = (|f|^2 - |V f|^2) / eps,
                      V = C^-1 X, C C^T = eps (n - 1) 1 + X X^T. Memory n D a position instead of D^2, no D x
                      D solve.
Both are the exact Mahalanobis distance under S + eps 1 (S with n - 1), which is positive definite whatever n
is."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kizu.accel.nesting import Nesting, Stage, joined
from kizu.engine import thread_map
from kizu.errors import EmptyData

THIN = 4
GATHER = 128
"""Images that are gathered before they are folded into the products."""
CHUNK_BYTES, CHUNK_BYTES_CPU = 256 * 2**20, 2 * 2**20
"""Of the matrices that are factored together; on a CPU by one thread."""
WHOLE = 32
"""Rows up to which a matrix is factored by LAPACK; larger ones by halves."""


class PositionGaussians:
    """Accumulates cells (B, C, d) of each stage and yields their means (C, d) and the factors that whiten
    what positions differ from them.

    Cells are kept until n > D / 4, then folded into sums of products about the mean of those met so far;
    those that come later are gathered, for every folding reads and writes all products. products of a stage:
    (G, d, D), of its channels with all so far."""

    def __init__(self, nest: Nesting) -> None:
        self.nest = nest
        self.count = self.gathered = 0
        self.waiting: list[list[Tensor]] = []
        self.products: list[Tensor] = []
        self.origins: list[Tensor] = []
        self.sums: list[Tensor] = []

    def update(self, cells: list[Tensor]) -> None:
        """Add B images, of any floating type: so they are kept, and must not change; what is computed is
        float32 at least."""
        self.waiting.append(cells)
        self.count, self.gathered = self.count + len(cells[0]), self.gathered + len(cells[0])
        if self.gathered >= GATHER and self.count * THIN > self.nest.widths[-1]:
            rows, begun = self._rows(), self._begin()
            for number in range(len(self.nest.stages)):
                self._by_groups(functools.partial(self._add, number, rows, begun), number)

    def finish(
        self, eps: float, kind: torch.dtype = torch.float16
    ) -> tuple[list[Tensor], list[Tensor], bool]:
        """(means, factors, is_thin): each stage's rows of W as `pack` leaves them, (G, K) of `kind`; or V (G,
        n, D), groups of the last."""
        if not self.count:
            raise EmptyData("There is no image to learn from.")
        nest = self.nest
        if not self.products and self.count * THIN <= nest.widths[-1]:
            rows = self._rows(about=False)
            return (
                [cells.mean(1) for cells in rows],
                [_thin(joined(rows, nest.stages[-1], slice(None)), eps)],
                True,
            )
        rows, begun = self._rows(), self._begin()
        means = [sums / self.count for sums in self.sums]
        factors: list[Tensor] = []
        packed: list[Tensor] = []
        for number, stage in enumerate(nest.stages):
            places = nest.triangles[number].to(means[0].device)
            packed.append(means[0].new_empty(len(stage), len(places), dtype=kind))

            def whiten(
                part: slice, number: int = number, stage: Stage = stage, places: Tensor = places
            ) -> None:
                self._add(number, rows, begun, part)
                mean, covariance = joined(means, stage, part)[:, 0], self.products[number][part]
                before = nest.widths[number]
                covariance.addcmul_(mean[:, before:, None], mean[:, None], value=-self.count).div_(
                    max(self.count - 1, 1)
                )
                covariance[:, :, before:].diagonal(dim1=1, dim2=2).add_(eps)
                owners = [group[part][:: stage.siblings] for group in stage.groups]
                _whiten_stage(
                    covariance, [factor[owner] for factor, owner in zip(factors, owners, strict=True)]
                )
                packed[number][part] = pack(covariance, places)

            self._by_groups(whiten, number)
            factors.append(self.products[number])
        self.products = []
        return (
            [(origin + mean)[:, 0] for origin, mean in zip(self.origins, means, strict=True)],
            packed,
            False,
        )

    def _rows(self, *, about: bool = True) -> list[Tensor]:
        """The cells at hand of each stage (C, n, d), about the origins, which are their means at first; they
        wait no longer."""
        if not self.waiting:
            return []
        first, made = not self.products and about, []
        for number, images in enumerate(zip(*self.waiting, strict=True)):
            (_, C, d), kind = images[0].shape, torch.promote_types(images[0].dtype, torch.float32)
            rows = _room(images[0].new_empty(0, dtype=kind), C, self.gathered, d)
            if first:
                self.origins.append(rows.new_empty(C, 1, d))
                self.sums.append(rows.new_zeros(C, 1, d))
            arrange = functools.partial(self._arrange, images, rows, number if about else None, first)
            _in_parts(arrange, C, 4 * self.gathered * d, rows.device.type == "cpu")
            made.append(rows)
        self.waiting, self.gathered = [], 0
        return made

    def _arrange(
        self, images: tuple[Tensor, ...], rows: Tensor, number: int | None, first: bool, part: slice
    ) -> None:
        """Some cells of the images (B, C, d) at hand into rows (C, n, d); about the origins of their stage,
        if it has a number."""
        mine = rows[part].copy_(torch.cat([some[:, part] for some in images]).transpose(0, 1))
        if number is not None:
            if first:
                self.origins[number][part] = mine.mean(1, keepdim=True)
            mine -= self.origins[number][part]
            self.sums[number][part] += mine.sum(1, keepdim=True)

    def _begin(self) -> bool:
        """Whether there are sums of products already; room for them."""
        begun = bool(self.products)
        if not begun:
            sizes = zip(self.nest.stages, self.nest.widths[1:], strict=True)
            self.products = [_room(self.origins[0], len(stage), stage.width, after) for stage, after in sizes]
        return begun

    def _add(self, number: int, cells: list[Tensor], begun: bool, part: slice) -> None:
        """Rows of some groups of a stage to their sums of products."""
        if cells:
            rows = joined(cells, self.nest.stages[number], part)
            own = rows[:, :, self.nest.widths[number] :].transpose(1, 2)
            self.products[number][part].baddbmm_(own, rows, beta=float(begun))

    def _by_groups(self, work: Callable[[slice], None], number: int) -> None:
        """`work` on some groups of a stage after the other, or beside each other."""
        (groups, _, D), siblings = self.products[number].shape, self.nest.stages[number].siblings

        def together(part: slice) -> None:
            work(slice(part.start * siblings, part.stop * siblings))

        _in_parts(
            together,
            groups // siblings,
            4 * D * max(D, GATHER) * siblings,
            self.products[0].device.type == "cpu",
        )


def _room(like: Tensor, *shape: int) -> Tensor:
    """An empty tensor, float32 on a CPU by numpy, which asks the system for large pages: there are far fewer
    to be cleared at first use."""
    if like.device.type == "cpu" and like.dtype == torch.float32:
        return torch.from_numpy(np.empty(shape, np.float32))
    return like.new_empty(shape)


def _in_parts(work: Callable[[slice], None], count: int, size: int, cpu: bool) -> None:
    """`work` on slices of range(count); each takes `size` bytes. On a CPU some are done beside others."""
    step = max((CHUNK_BYTES_CPU if cpu else CHUNK_BYTES) // size, 1)
    if cpu:
        step = min(step, max(count // (2 * torch.get_num_threads()), 1))
    parts = [slice(start, min(start + step, count)) for start in range(0, count, step)]
    if cpu:
        thread_map(work, parts)
        return
    for part in parts:
        work(part)


def _whiten_stage(covariance: Tensor, before: list[Tensor]) -> None:
    """(B C) (p, d, D) of S = (A B^T; B C) becomes the rows (-W_C M W_A, W_C) of W = L^-1, in place: M = B
    W_A^T, W_C from C - M M^T.

    before: for each stage before it the rows of W_A, (q, rows, columns); p / q matrices in turn share one.
    """
    d, D = covariance.shape[1:]
    own = covariance[:, :, D - d :]
    if before:
        first, start = covariance.new_zeros(len(before[0]), D - d, D - d), 0
        for factor in before:
            _, rows, columns = factor.shape
            first[:, start : start + rows, :columns] = factor
            start += rows
        _whiten_below(covariance.view(len(first), -1, D)[:, :, : D - d], own, first)
    else:
        _whiten(own)


def _whiten_below(across: Tensor, own: Tensor, first: Tensor) -> None:
    """B and C become -W_C M W_A and W_C, in place. own (p, d, d): C; first (q, D, D): W_A; across (q, p / q *
    d, D): B of those that share it."""
    mixed = torch.bmm(across, first.transpose(1, 2)).view(len(own), own.shape[1], -1)
    own.baddbmm_(mixed, mixed.transpose(1, 2), alpha=-1)
    _whiten(own)
    across.copy_(torch.bmm(torch.bmm(own, mixed).neg_().view(across.shape), first))


def _whiten(covariance: Tensor) -> None:
    """S (p, D, D), positive definite, becomes W = L^-1 with S = L L^T, in place: by halves, for most of it is
    then products."""
    D = covariance.shape[1]
    if D <= WHOLE:
        lower = torch.linalg.cholesky(covariance)
        unit = torch.eye(D, device=covariance.device, dtype=covariance.dtype).expand_as(lower)
        covariance.copy_(torch.linalg.solve_triangular(lower, unit, upper=False))
        return
    one, other = slice(0, D // 2), slice(D // 2, D)
    first, second, across = covariance[:, one, one], covariance[:, other, other], covariance[:, other, one]
    _whiten(first)
    _whiten_below(across, second, first)
    covariance[:, one, other] = 0


def _thin(rows: Tensor, eps: float) -> Tensor:
    """V (G, n, D) of rows (G, n, D)."""
    _, n, _ = rows.shape
    centred = rows - rows.mean(1, keepdim=True)
    gram = torch.bmm(centred, centred.transpose(1, 2)) + eps * max(n - 1, 1) * torch.eye(
        n, device=rows.device, dtype=rows.dtype
    )
    lower = torch.linalg.cholesky(gram)
    return torch.linalg.solve_triangular(lower, centred, upper=False)


def distances(
    differences: list[Tensor], nest: Nesting, factors: list[Tensor], thin: bool, eps: float
) -> Tensor:
    """Mahalanobis distances (P, B) of cells' differences from their means, (C, B, d) a stage.

    factors: transposes (G, D, d) of each stage's rows of W, or [that of V].
    """
    if thin:
        difference = joined(differences, nest.stages[-1], slice(None))
        projected = torch.bmm(difference, factors[0])
        rest = difference.square().sum(2) - projected.square_().sum(2)
        return (rest.clamp_min_(0) / eps).sqrt_()[nest.home]
    total: Tensor | None = None
    for stage, factor in zip(nest.stages, factors, strict=True):
        own = torch.bmm(joined(differences, stage, slice(None)), factor).square_().sum(2)
        total = own if total is None else own.add_(total[stage.groups[-1]])
    assert total is not None  # there are stages
    return total.sqrt_()[nest.home]


def pack(factor: Tensor, places: Tensor) -> Tensor:
    """Rows of W (G, d, D) -> (G, K), row by row. places: Nesting.triangles. As float16 each entry is off by
    2^-11 of itself at most."""
    return factor.flatten(1).gather(1, places.expand(len(factor), -1))


def unpack(packed: list[Tensor], nest: Nesting) -> list[Tensor]:
    """What was packed, transposed: (G, D, d) float32, zeros below the diagonals."""
    made = []
    for kept, stage, places, after in zip(packed, nest.stages, nest.triangles, nest.widths[1:], strict=True):
        row, column = places // after, places % after
        factor = torch.zeros(len(kept), after * stage.width, device=kept.device)
        made.append(
            factor.index_copy_(1, (column * stage.width + row).to(kept.device), kept.float()).view(
                -1, after, stage.width
            )
        )
    return made
