"""A coreset of more rows than fit in memory, by merge and reduce."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kizu import engine
from kizu.errors import ShapeError, UsageError
from kizu.neighbours._checks import check_count, check_finite, to_tensor
from kizu.neighbours._greedy import Progress
from kizu.neighbours.coreset import greedy_coreset

Select = Callable[[Tensor, int], Tensor]
SPARE = 2
"""Rows that a reduction keeps for every row that the result would have."""
ROW_BYTES = 48
"""What the greedy loop keeps of a row beside its features."""


class StreamingCoreset:
    """Greedy k-centre over a stream of rows, in bounded memory.

    Rows are gathered in a buffer as they come. When it is full, the greedy loop reduces them to twice the
    rows that the result would have by then, at most to half the buffer, and gathering goes on (merge and
    reduce: S. Har-Peled, S. Mazumdar, On coresets for k-means and k-median clustering, 2004). If all rows
    fit, the result is the exact selection. After m reductions the covering radius is at most the sum of
    theirs and the last one's, by the triangle inequality; docs/methods/neighbours.md has the measured loss.

    Nothing is random: the same rows in the same order, in batches of any size, give the same result.

    Args:
        n: rows of the result; give either this or `ratio`.
        ratio: the share of all rows seen, in (0, 1]; the result is then never larger than the buffer.
        budget: bytes for the gathered rows and the greedy loop's copies together.
        select: select(rows (N, D), n) -> indices (n,): the selection, when it is to be another than the exact
        greedy
            one (in a projection, say).

    Attributes:
        seen: rows seen so far.
        reductions: reductions so far; 0 means that the result will be the exact selection.

    Raises:
        UsageError: not exactly one of n and ratio is given, or it is out of range; at the first update, a
        budget that cannot hold twice the result.

    >>> stream = StreamingCoreset(2)
    >>> for part in (torch.tensor([[0.0], [1.0]]), torch.tensor([[5.0]])):
    ...     stream.update(part)
    >>> stream.finish()
    tensor([[0.],
            [5.]])
    """

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
                "Give either n (rows of the coreset) or ratio (share of the rows seen), and not both."
            )
        if ratio is not None and not 0.0 < ratio <= 1.0:
            raise UsageError(f"ratio must be in (0, 1], got {ratio!r}.")
        if n is not None:
            check_count("n", n, 1, 2**62, "largest count")
        self.n, self.ratio, self.budget, self._select = n, ratio, budget, select
        self.seen = 0
        self.reductions = 0
        self._buffer: Tensor | None = None
        self._filled = 0

    def update(self, features: Tensor) -> None:
        """Add rows (M, D). Raises ShapeError for another D than before, NotFinite for NaN or infinity."""
        features = to_tensor("features", features)
        if features.ndim != 2 or (self._buffer is not None and features.shape[1] != self._buffer.shape[1]):
            size = "D" if self._buffer is None else self._buffer.shape[1]
            raise ShapeError(f"features must have shape (M, {size}), got {tuple(features.shape)}.")
        if not len(features):
            return
        check_finite("features", features)
        buffer = self._buffer = self._allocate(features) if self._buffer is None else self._buffer
        while len(features):
            if self._filled == len(buffer):
                self._reduce(buffer)
            count = min(len(buffer) - self._filled, len(features))
            with engine.one_thread():
                buffer[self._filled : self._filled + count] = features[:count]
            self._filled, self.seen = self._filled + count, self.seen + count
            features = features[count:]

    def finish(self, *, progress: Progress | None = None) -> Tensor:
        """The selected rows (n, D), in picking order. More rows may be added after it.

        progress: called as progress(picks so far, n) now and then, by the exact greedy selection.

        Raises:
            UsageError: no rows, or fewer than n, were seen.
        """
        if self._buffer is None or (self.n is not None and self.n > self.seen):
            raise UsageError(
                f"The coreset has seen {self.seen} rows, which cannot give {self.n or 'any'}: update it "
                "with more features first."
            )
        rows = self._buffer[: self._filled]
        count = min(self._wanted(), self._filled)
        if self._select is greedy_coreset:
            return rows[greedy_coreset(rows, count, progress=progress)]
        return rows[self._select(rows, count)]

    def _wanted(self) -> int:
        """Rows of the result for the rows seen so far."""
        return self.n if self.n is not None else max(1, round((self.ratio or 0.0) * self.seen))

    def _allocate(self, features: Tensor) -> Tensor:
        """An empty buffer (rows that the budget can hold, D)."""
        size = features.shape[1]
        row = 2 * size * max(4, features.element_size()) + ROW_BYTES
        capacity, least = self.budget // row, 2 * (self.n or 1)
        if capacity < least:
            raise UsageError(
                f"A budget of {self.budget:,} bytes holds {capacity:,} rows of {size} features; {least:,} "
                f"are needed: give budget={least * row} or more, or a smaller coreset."
            )
        return torch.empty((capacity, size), dtype=features.dtype, device=features.device)

    def _reduce(self, buffer: Tensor) -> None:
        keep = max(1, min(len(buffer) // 2, SPARE * self._wanted()))
        chosen = self._select(buffer, keep).sort().values
        buffer[:keep] = buffer[chosen]
        self._filled, self.reductions = keep, self.reductions + 1
