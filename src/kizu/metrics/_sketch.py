"""A mergeable histogram over the ordered bits of float32, range-free, whose resolution is the finest that its
size allows.

Every float32 has a 32-bit key that sorts as the number does. The sketch counts keys without their last
`shift` bits, `shift` being the smallest that leaves at most `size` different ones. That depends only on the
scores seen, not on their order or on how they were split into updates: pieces and merges give the very same
sketch. Cells are relative to the magnitude of the score (so heavy tails cost nothing), and when there are few
different scores they are all kept apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = float(np.finfo(np.float32).max)


def keys_of(values: NDArray[Any]) -> NDArray[np.uint32]:
    """The ordered bits of float32 numbers, (P,) uint32: a < b exactly when key(a) < key(b); -0 and 0 share a
    key."""
    bits = (values + np.float32(0)).view(np.uint32)
    flip = (bits.view(np.int32) >> 31).view(np.uint32) | np.uint32(0x80000000)
    return bits ^ flip


class Sketch:
    """K cells in ascending order: key prefixes (K,), and per cell the normals, the defects and the defects'
    region weights (K,).

    `rounded` tells that scores finer than float32 came in, so that a cell may hold different scores even at
    shift 0."""

    def __init__(self, size: int) -> None:
        self.size, self.shift, self.rounded = size, 0, False
        self.cells = np.zeros(0, np.uint32)
        self.sums = np.zeros((3, 0))

    @property
    def apart(self) -> bool:
        """Whether every cell holds one single score, so that the figures are exact."""
        return self.shift == 0 and not self.rounded

    def add(
        self, normals: NDArray[np.uint32], defects: NDArray[np.uint32], weights: NDArray[np.float64]
    ) -> None:
        """Count keys of normal pixels, and keys of defect pixels with their weights."""
        cells, number = np.unique(normals >> np.uint32(self.shift), return_counts=True)
        self._join(cells, np.stack([number, np.zeros(cells.size), np.zeros(cells.size)]))
        cells, where, number = np.unique(
            defects >> np.uint32(self.shift), return_inverse=True, return_counts=True
        )
        self._join(cells, np.stack([np.zeros(cells.size), number, np.bincount(where, weights, cells.size)]))

    def merge(self, other: Sketch) -> None:
        """Count all that another sketch of the same size has counted."""
        self.rounded |= other.rounded
        shift = max(self.shift, other.shift)
        self._coarsen(shift)
        cells, sums = _grouped(other.cells >> np.uint32(shift - other.shift), other.sums)
        self._join(cells, sums)

    def _join(self, cells: NDArray[np.uint32], sums: NDArray[np.float64]) -> None:
        """Add distinct ascending cells of the present shift, then coarsen until they fit."""
        every = np.sort(np.r_[self.cells, cells])
        every = (
            every[np.r_[True, every[1:] != every[:-1]]] if every.size else every
        )  # np.union1d, without its slow hash table
        joined = np.zeros((3, every.size))
        joined[:, np.searchsorted(every, self.cells)] = self.sums
        joined[:, np.searchsorted(every, cells)] += sums
        self.cells, self.sums = every, joined
        if every.size > self.size:
            self._coarsen(self.shift + _bits_to_drop(every, self.size))

    def _coarsen(self, shift: int) -> None:
        if shift > self.shift:
            self.cells, self.sums = _grouped(self.cells >> np.uint32(shift - self.shift), self.sums)
            self.shift = shift


def _grouped(
    cells: NDArray[np.uint32], sums: NDArray[np.float64]
) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
    """Equal neighbours added up."""
    if cells.size == 0:
        return cells, sums
    starts = np.r_[0, np.flatnonzero(cells[1:] != cells[:-1]) + 1]
    return cells[starts], np.add.reduceat(sums, starts, axis=1)


def _bits_to_drop(cells: NDArray[np.uint32], size: int) -> int:
    """The fewest last bits without which at most `size` of the distinct ascending cells are different."""
    _, length = np.frexp(
        (cells[1:] ^ cells[:-1]).astype(np.float64)
    )  # the highest bit in which neighbours differ
    differing = np.bincount(length, minlength=34)
    left = 1 + differing[::-1].cumsum()[::-1]  # left[b]: how many stay different when b - 1 bits are dropped
    return int(np.argmax(left[1:] <= size))
