"""Sums over the good images for PaDiM's fast twin, and the rows of W that follow from them
(nested_gaussians.py).

Sums of products are by far the largest part: one matrix for each group of positions. They are read and
written as rarely as possible, some groups at a time by each thread, and become covariances and then rows of W
in place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from kizu.accel.block_whitening import pack_rows, whiten_stage
from kizu.accel.nesting import Nesting, features_of_groups
from kizu.engine import thread_map

LOW_RANK = 4
"""With at most 1 / LOW_RANK images per channel the low-rank form is used."""
FOLD = 128
"""Images that are collected before they are added to the sums of products: each time reads and writes all
sums."""
CHUNK_BYTES, CHUNK_BYTES_CPU = 256 * 2**20, 2 * 2**20
"""Size of the matrices that are factored together; on a CPU by one thread, whose cache should hold them."""


class NestedMoments:
    """Sums over the images: of the cells of each stage (C, 1, d), and of the products of each group (G, d,
    D_s).

    All are about the origins (C, 1, d), the means of the first images that were added, so that float32 mostly
    suffices; they have the type of the cells. Cells wait until there are FOLD images and the low-rank form is
    out of the question.
    """

    def __init__(self, nest: Nesting) -> None:
        self.nest = nest
        self.count = self.waiting_count = 0
        self.waiting: list[list[Tensor]] = []
        self.origins: list[Tensor] = []
        self.sums: list[Tensor] = []
        self.products: list[Tensor] = []

    def update(self, cells: list[Tensor]) -> None:
        """Add the cells (C, B, d) of each stage of B images."""
        self.waiting.append(cells)
        self.count += cells[0].shape[1]
        self.waiting_count += cells[0].shape[1]
        if self.waiting_count >= FOLD and self.count * LOW_RANK > self.nest.widths[-1]:
            rows, empty = self._centre_waiting(), self._allocate_products()
            for number in range(len(self.nest.stages)):
                self._for_groups(functools.partial(self._add_products, number, rows, empty), number)

    def finalize(self, eps: float, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
        """The learned tensors of NestedGaussians. dtype: of means and whitening."""
        if not self.products and self.count * LOW_RANK <= self.nest.widths[-1]:
            rows = self._centre_waiting()
            return {
                "nested_mean": join_cells(self.origins)[0].to(dtype),
                "nested_rows": join_cells(rows).float(),
            }
        rows, empty = self._centre_waiting(), self._allocate_products()
        means = [sums / self.count for sums in self.sums]
        packed: list[Tensor] = []
        for number, (stage, entries) in enumerate(
            zip(self.nest.stages, self.nest.packed_entries, strict=True)
        ):
            packed.append(means[0].new_empty(stage.group_count, len(entries), dtype=dtype))
            whiten = functools.partial(self._whiten, number, rows, empty, means, eps, packed[number])
            self._for_groups(whiten, number)
        self.products = []
        shifted = [origin + mean for origin, mean in zip(self.origins, means, strict=True)]
        return {
            "nested_mean": join_cells(shifted)[0].to(dtype),
            "nested_whitening": torch.cat([one.flatten() for one in packed]),
        }

    def _whiten(
        self,
        number: int,
        rows: list[Tensor],
        empty: bool,
        means: list[Tensor],
        eps: float,
        packed: Tensor,
        part: slice,
    ) -> None:
        """Sums of products of some groups of a stage -> covariances + eps -> rows of W, in place; and
        packed."""
        self._add_products(number, rows, empty, part)
        stage, before, n = self.nest.stages[number], self.nest.widths[number], self.count
        covariance, mean = self.products[number][part], features_of_groups(means, stage, part)  # (p, 1, D_s)
        covariance.addcmul_(mean[:, 0, before:, None], mean, value=-n).div_(max(n - 1, 1))
        covariance[:, :, before:].diagonal(dim1=1, dim2=2).add_(eps)
        ancestors = [groups[part][:: stage.children_per_parent] for groups in stage.ancestors]
        whiten_stage(covariance, [self.products[s][groups] for s, groups in enumerate(ancestors)])
        packed[part] = pack_rows(covariance, self.nest.packed_entries[number])

    def _centre_waiting(self) -> list[Tensor]:
        """The waiting cells of each stage as rows (C, n, d) about its origins; their sums are added. None
        wait then."""
        if not self.waiting:
            return []
        first, centred = not self.origins, []
        for number, cells in enumerate(zip(*self.waiting, strict=True)):
            C, _, d = cells[0].shape
            rows = allocate(cells[0], C, self.waiting_count, d)
            if first:
                self.origins.append(rows.new_empty(C, 1, d))
                self.sums.append(rows.new_zeros(C, 1, d))
            centre = functools.partial(self._centre, number, cells, rows, first)
            _for_slices(centre, C, 4 * self.waiting_count * d, rows.device)
            centred.append(rows)
        self.waiting, self.waiting_count = [], 0
        return centred

    def _centre(self, number: int, cells: Sequence[Tensor], rows: Tensor, first: bool, part: slice) -> None:
        """Fill some cells of `rows` (C, n, d) with those of several batches (C, B, d), minus the stage's
        origins."""
        torch.cat([one[part] for one in cells], dim=1, out=rows[part])
        if first:
            self.origins[number][part] = rows[part].mean(1, keepdim=True)
        rows[part] -= self.origins[number][part]
        self.sums[number][part] += rows[part].sum(1, keepdim=True)

    def _allocate_products(self) -> bool:
        """Allocate the sums of products if there are none. True: they are new, and not filled yet."""
        empty = not self.products
        if empty:
            self.products = [
                allocate(self.origins[0], stage.group_count, stage.width, after)
                for stage, after in zip(self.nest.stages, self.nest.widths[1:], strict=True)
            ]
        return empty

    def _add_products(self, number: int, cells: list[Tensor], empty: bool, part: slice) -> None:
        """Add the products of rows (C, n, d) to the sums of some groups of a stage."""
        if cells:
            rows = features_of_groups(cells, self.nest.stages[number], part)  # (p, n, D_s)
            own = rows[:, :, self.nest.widths[number] :].transpose(1, 2)
            self.products[number][part].baddbmm_(own, rows, beta=0.0 if empty else 1.0)

    def _for_groups(self, work: Callable[[slice], None], number: int) -> None:
        """Call `work` on slices of the groups of a stage; children of one parent stay together."""
        (G, _, D), children = self.products[number].shape, self.nest.stages[number].children_per_parent

        def work_on_children(parents: slice) -> None:
            work(slice(parents.start * children, parents.stop * children))

        size = 4 * D * max(D, FOLD) * children
        _for_slices(work_on_children, G // children, size, self.products[0].device)


def join_cells(cells: Sequence[Tensor]) -> Tensor:
    """Values (C, n, d) of the cells of each stage -> (n, M): all of an image in one row."""
    return torch.cat([one.transpose(0, 1).flatten(1) for one in cells], dim=1)


def allocate(like: Tensor, *shape: int) -> Tensor:
    """An empty tensor of the type of `like`. On a CPU NumPy allocates it: it asks the system for large pages,
    of which far fewer must be cleared at first use."""
    if like.device.type == "cpu" and like.dtype == torch.float32:
        return torch.from_numpy(np.empty(shape, np.float32))
    return like.new_empty(shape)


def _for_slices(work: Callable[[slice], None], count: int, size: int, device: torch.device) -> None:
    """Call `work` on slices of range(count), on a CPU in several threads. size: bytes that one item takes."""
    cpu = device.type == "cpu"
    step = max((CHUNK_BYTES_CPU if cpu else CHUNK_BYTES) // size, 1)
    if cpu:
        step = min(step, max(count // (2 * torch.get_num_threads()), 1))
    parts = [slice(start, min(start + step, count)) for start in range(0, count, step)]
    if cpu:
        thread_map(work, parts)
        return
    for part in parts:
        work(part)
