"""A coreset of more rows than fit in memory: merge and reduce."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kizu.errors import ShapeError, UsageError
from kizu.neighbours._checks import check_count, check_finite, to_tensor
from kizu.neighbours._coreset import Progress
from kizu.neighbours.select import greedy_coreset

Select = Callable[[Tensor, int], Tensor]
SPARE = 2
"""Rows kept by a reduction for every row that the result would have."""
ROW_BYTES = 48
"""What the greedy loop keeps of a row beside its features."""


class StreamingCoreset:
    """Greedy k-centre over a stream of rows, in bounded memory.

    Rows are gathered as they come. When the room is full, the greedy loop reduces them, to twice the rows
    that the result would have by then and at most to half the room, and gathering goes on (merge and reduce:
    S. Har-Peled, S. Mazumdar, 2004). If all rows fit, the result is the exact selection. After m reductions
    the covering radius is at most the sum of theirs and the last one's, by the triangle inequality;
    docs/methods/neighbours.md has the measured loss.

    n: rows of the result; or ratio: the share of all rows seen, in (0, 1] (the result is then at most half
    the room: see `capped`). budget: bytes for the gathered rows and the greedy loop's copies together.
    select(rows (N, D), n) -> indices (n,): the selection, when it is to be another than the exact greedy one
    (in a projection, say). Nothing is random: same rows in the same order, in batches of any size, same
    result.

    Raises UsageError unless exactly one of n and ratio is given and valid, or when the budget cannot hold the
    result."""

    def __init__(
        self,
        n: int | None = None,
        *,
        ratio: float | None = None,
        budget: int = 2**30,
        select: Select = greedy_coreset,
    ) -> None:
        if (n is None) == (ratio is None):
            raise UsageError(
                "Give either n (rows of the coreset) or ratio (share of the rows seen), not both and not "
                "neither."
            )
        if ratio is not None and not 0.0 < ratio <= 1.0:
            raise UsageError(f"ratio must be in (0, 1], got {ratio!r}.")
        if n is not None:
            check_count("n", n, 1, 2**62, "largest count")
        self.n, self.ratio, self.budget, self._select = n, ratio, budget, select
        self.seen = 0
        """Rows seen so far."""
        self.reductions = 0
        """Reductions made so far; 0 means that the result will be the exact selection."""
        self._rows: Tensor | None = None
        self._filled = 0

    @property
    def capacity(self) -> int:
        """Rows that the budget has room for; known after the first update."""
        return 0 if self._rows is None else len(self._rows)

    @property
    def capped(self) -> bool:
        """Whether the result is smaller than `ratio` asks, for want of room."""
        return self._wanted() > self._filled

    def update(self, features: Tensor) -> None:
        """Take in rows (M, D). Raises ShapeError for another D than before, NotFinite for NaN or infinity."""
        features = to_tensor("features", features)
        if features.ndim != 2 or (self._rows is not None and features.shape[1] != self._rows.shape[1]):
            size = "D" if self._rows is None else self._rows.shape[1]
            raise ShapeError(f"features must have shape (M, {size}), got {tuple(features.shape)}.")
        if not len(features):
            return
        check_finite("features", features)
        rows = self._rows = self._room(features) if self._rows is None else self._rows
        while len(features):
            if self._filled == len(rows):
                self._reduce(rows)
            taken = min(len(rows) - self._filled, len(features))
            rows[self._filled : self._filled + taken] = features[:taken]
            self._filled, self.seen = self._filled + taken, self.seen + taken
            features = features[taken:]

    def finish(self, *, progress: Progress | None = None) -> Tensor:
        """The selected rows (n, D), in the order of picking. More rows may be taken in after it.

        Raises UsageError when no rows, or fewer than n, were seen.
        """
        if self._rows is None or (self.n is not None and self.n > self.seen):
            raise UsageError(
                f"The coreset has seen {self.seen} rows, which cannot give {self.n or 'any'}: update it with "
                "more features first."
            )
        rows = self._rows[: self._filled]
        wanted = min(self._wanted(), self._filled)
        if self._select is greedy_coreset:
            return rows[greedy_coreset(rows, wanted, progress=progress)]
        return rows[self._select(rows, wanted)]

    def _wanted(self) -> int:
        return self.n if self.n is not None else max(1, round((self.ratio or 0.0) * self.seen))

    def _room(self, features: Tensor) -> Tensor:
        size = features.shape[1]
        row = 2 * size * max(4, features.element_size()) + ROW_BYTES
        capacity = self.budget // row
        least = 2 * (self.n or 1)
        if capacity < least:
            raise UsageError(
                f"A budget of {self.budget:,} bytes holds {capacity:,} rows of {size} features; {least:,} "
                "are needed: "
                f"give budget={least * row} or more, or a smaller coreset."
            )
        return torch.empty((capacity, size), dtype=features.dtype, device=features.device)

    def _reduce(self, rows: Tensor) -> None:
        keep = max(1, min(len(rows) // 2, SPARE * self._wanted()))
        chosen = self._select(rows, keep).sort().values
        rows[:keep] = rows[chosen]
        self._filled, self.reductions = keep, self.reductions + 1
