"""The greedy k-centre loop with lazy distances: the picks of the plain loop, without most of its work.

The plain loop keeps the squared distance of every row to its nearest pick. n times it picks the row where
that is largest and lowers the others by their distances to the new pick: n N D steps. Since the distance to
the nearest pick only shrinks, a value computed earlier is an upper bound of it, and a row need not be looked
at while its bound is below the distance of another row. So three nested sets are kept:

    all N rows   an upper bound each, possibly computed many picks ago
    the block    the BLOCK rows of largest bound: bounds brought up to date by products with the later picks
    the front    the FRONT rows of largest bound in the block: exact distances by direct difference in float64

The best row of the front is the next pick of the plain loop as soon as no bound outside the front is above
its distance (equal values: the smallest index first). When one is, the front, and then the block, is chosen
anew. Matrix products are float32 and their bounds include a proven rounding margin (`kizu.accel.frame`): they
only decide for which rows exact distances are computed, never which row is picked.

One thread does it all, but for bounds and distances of many rows, of which each of torch's threads takes
whole chunks. A small step that is spread over cores ends when the slowest of them does, and beside other
programs that takes many times the step itself.

Sources: T. Gonzalez, Clustering to minimize the maximum intercluster distance (1985); K. Roth et al., Towards
total recall in industrial anomaly detection (PatchCore, 2022), Alg. 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from kizu import engine
from kizu.accel.frame import CHUNK, UNIT32, Frame, squared_norms

Progress = Callable[[int, int], None]
Part = TypeVar("Part")
Result = TypeVar("Result")
BLOCK = 4096
FRONT = 512
ROWS, COLUMNS = 512, 1024
"""Shape of one product: a result of 2 MiB stays in the cache of a core."""
LEAST = 32
"""Rows of a product, where there are many threads to share the rows."""
PAIRS = 2**20
"""Numbers of one piece of direct differences."""


def lazy_greedy(features: Tensor, n: int, start: int, progress: Progress | None) -> np.ndarray:
    """Picks (n,) int64 of the greedy k-centre loop in float64 over features (N, D), the first one `start`.

    Of rows equally far the smallest index is picked. `progress(picks so far, n)` is called now and then.
    """
    frame, threads = Frame.of(features), torch.get_num_threads()
    with engine.one_thread():
        state = Distances(features, frame, n, start, threads)
        while state.count < n:
            _pick_from_block(state, n, progress)
    return state.picks


class Distances:
    """The picks so far, and what is known of each row's squared distance to its nearest pick (frame units).

    bound (N,): upper bound, -1 once picked; bound_at (N,): the number of picks it accounts for. exact (N,)
    and exact_at (N,), on the host: the same for the exact distance. centres: the picks as columns of
    products. threads: how many bring rows up to date on a CPU.
    """

    def __init__(self, features: Tensor, frame: Frame, n: int, start: int, threads: int) -> None:
        rows, device = features.shape[0], features.device
        self.features, self.frame = features, frame
        self.threads = threads if device.type == "cpu" else 1
        self.norms = torch.cat(
            self._map(lambda part: squared_norms(frame.shift(part)), features.split(CHUNK))
        )
        self.centres = torch.empty((n, features.shape[1] + 1), device=device)
        self.picks, self.count = np.empty(n, dtype=np.int64), 0
        self.bound = torch.full((rows,), torch.inf, dtype=torch.float64, device=device)
        self.bound_at = torch.zeros(rows, dtype=torch.int64, device=device)
        self.exact, self.exact_at = np.full(rows, np.inf), np.zeros(rows, dtype=np.int64)
        self.add_picks(np.array([start]))

    def add_picks(self, picked: np.ndarray) -> None:
        """Append picks, in order."""
        first, self.count = self.count, self.count + len(picked)
        self.picks[first : self.count] = picked
        index = torch.as_tensor(picked, device=self.bound.device)
        self.centres[first : self.count] = as_columns(self.rows(index))
        self.bound[index] = -1.0

    def rows(self, index: Tensor) -> Tensor:
        """Rows `index` (R, D) in the frame, float32."""
        return self.frame.shift(self.features[index])

    def update_bounds(self, index: Tensor) -> None:
        """Bring the bounds of rows `index` up to date; each chunk holds rows whose bounds are of like age."""
        stale = index[self.bound_at[index] < self.count]
        rows = min(ROWS, max(LEAST, len(stale) // (2 * self.threads)))
        chunks = stale[self.bound_at[stale].argsort()].split(rows) if len(stale) else ()
        for chunk, bound in zip(chunks, self._map(self._bounds, chunks), strict=True):
            self.bound[chunk], self.bound_at[chunk] = bound, self.count

    def update_exact(self, index: np.ndarray) -> np.ndarray:
        """Exact squared distances (E,) float64 of rows `index` to their nearest pick; kept for later."""
        stale = index[self.exact_at[index] < self.count]
        order = np.argsort(self.exact_at[stale], kind="stable")
        chunks = np.array_split(stale[order], max(1, len(stale) // 64)) if len(stale) else []
        for chunk, distance in zip(chunks, self._map(self._exact, chunks), strict=True):
            self.exact[chunk], self.exact_at[chunk] = distance, self.count
        return self.exact[index]

    def store_front(self, front: np.ndarray, distance: np.ndarray, picked: list[int]) -> None:
        """Store what a front ends with: its picks, in order, and its exact distances after them."""
        self.add_picks(front[picked])
        index = torch.as_tensor(front, device=self.bound.device)
        self.bound[index] = torch.as_tensor(distance, device=self.bound.device)
        self.bound_at[index] = self.count
        self.exact[front], self.exact_at[front] = distance, self.count

    def rows64(self, index: np.ndarray) -> np.ndarray:
        """Rows `index` in float64 on the host, scaled but not shifted: both steps are exact."""
        chosen = self.features[torch.as_tensor(index, device=self.features.device)]
        return (chosen.to(torch.float64) * self.frame.scale).cpu().numpy()

    def _map(self, work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
        """[work(part) for part in parts], by several threads on a CPU. `work` changes nothing."""
        return engine.thread_map(work, parts, threads=self.threads)

    def _bounds(self, chunk: Tensor) -> Tensor:
        """Upper bounds (R,) float64 of some rows that account for all picks; the oldest bound comes first."""
        oldest = int(self.bound_at[chunk[0]])
        products = _row_maxima(as_rows(self.rows(chunk)), self.centres[oldest : self.count])
        norms = self.norms[chunk]
        return torch.minimum(self.bound[chunk], norms - 2.0 * products + self.frame.margin(norms))

    def _exact(self, chunk: np.ndarray) -> np.ndarray:
        """Exact squared distances (R,) of some rows to their nearest pick; the oldest distance comes
        first."""
        oldest = int(self.exact_at[chunk[0]])
        index = torch.as_tensor(chunk, device=self.bound.device)
        pairs = _candidate_pairs(
            self.frame, self.rows(index), self.norms[index], self.centres[oldest : self.count]
        )
        row, pick = (pair.cpu().numpy() for pair in pairs)
        nearest = np.full(len(chunk), np.inf)
        step = max(1, PAIRS // self.features.shape[1])
        for first in range(0, len(row), step):
            a, b = row[first : first + step], pick[first : first + step]
            difference = self.rows64(chunk[a]) - self.rows64(self.picks[oldest + b])
            np.minimum.at(nearest, a, np.square(difference).sum(1))
        return np.minimum(self.exact[chunk], nearest)


def _pick_from_block(state: Distances, n: int, progress: Progress | None) -> None:
    """Choose the block of largest bounds and pick from it while the next pick is provably inside."""
    block, outside = _largest(state.bound, torch.arange(len(state.bound), device=state.bound.device), BLOCK)
    while state.count < n:
        state.update_bounds(block)
        front, rest = _largest(state.bound[block], block, FRONT)
        picked = _pick_from_front(state, front.cpu().numpy(), max(outside, rest), n)
        if not picked and outside >= rest:
            return
        if progress is not None:
            progress(state.count, n)


def _pick_from_front(state: Distances, front: np.ndarray, limit: tuple[float, int], n: int) -> int:
    """Pick from the front while its best row is ahead of `limit`, the (bound, -index) that leads all other
    rows.

    Returns the number of picks.
    """
    front = front[state.bound[torch.as_tensor(front, device=state.bound.device)].cpu().numpy() >= 0]
    if not len(front):
        return 0
    distance, rows, at_least = state.update_exact(front), state.rows64(front), _pairwise_bounds(state, front)
    picked: list[int] = []
    while state.count + len(picked) < n:
        best = int(distance.argmax())
        if (distance[best], -int(front[best])) < limit or distance[best] < 0:
            break
        picked.append(best)
        distance[best] = -1.0
        close = np.flatnonzero(at_least[best] < distance)  # only these can be nearer to the new pick
        if len(close):
            difference = rows[close] - rows[best]
            distance[close] = np.minimum(distance[close], np.square(difference).sum(1))
    state.store_front(front, distance, picked)
    return len(picked)


def _largest(bounds: Tensor, index: Tensor, size: int) -> tuple[Tensor, tuple[float, int]]:
    """The `size` rows of largest bound, ascending, and the (bound, -index) that leads the others.

    `index` (M,), ascending, holds the numbers of the rows of bounds (M,). Equal bounds: smallest index first.
    """
    if len(index) <= size:
        return index, (-torch.inf, 0)
    least = bounds.topk(size).values.min()
    chosen = bounds > least
    level = (bounds == least).nonzero()[:, 0]
    chosen[level[: size - int(chosen.sum())]] = True
    others = torch.where(chosen, -torch.inf, bounds)
    leader = others.amax()
    first = (others == leader).nonzero()[0, 0]
    return index[chosen], (float(leader), -int(index[first]))


def as_rows(rows: Tensor) -> Tensor:
    """(R, D) -> (R, D+1): a one behind each row, so that a product with `as_columns` is a.b - |b|^2 / 2."""
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)


def as_columns(rows: Tensor) -> Tensor:
    """(M, D) -> (M, D+1): minus half the squared norm behind each row."""
    return torch.cat([rows, (-0.5 * squared_norms(rows)).to(rows.dtype)[:, None]], dim=1)


def _row_maxima(rows: Tensor, columns: Tensor) -> Tensor:
    """Row maxima (R,) of the product of rows (R, D+1) with columns (M, D+1)."""
    best = torch.full((rows.shape[0],), -torch.inf, device=rows.device)
    for part in columns.split(COLUMNS):
        best = torch.maximum(best, (rows @ part.T).amax(1))
    return best


def _pairwise_bounds(state: Distances, front: np.ndarray) -> np.ndarray:
    """Lower bounds (E, E) of the squared distances inside the front."""
    index = torch.as_tensor(front, device=state.bound.device)
    rows, norms = state.rows(index), state.norms[index]
    squared = norms[:, None] - 2.0 * (as_rows(rows) @ as_columns(rows).T).double()
    return (squared - state.frame.margin(norms)[:, None]).cpu().numpy()


def _candidate_pairs(frame: Frame, rows: Tensor, norms: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs (row, column) that may be the row's nearest, as two (M,) tensors of positions.

    rows (R, D) with squared norms (R,) in the frame; columns (M, D+1) as `as_columns` builds them.
    """
    products = as_rows(rows) @ columns.T
    least = (products.amax(1).double() - frame.margin(norms)).float()
    least = least.nextafter(least.new_tensor(-torch.inf))  # the cast above may have rounded up
    row, column = (products >= least[:, None]).nonzero(as_tuple=True)
    if len(row) <= 4 * len(rows):
        return row, column
    step = max(1, PAIRS // rows.shape[1])  # many: reduce them by float64 differences of the float32 rows
    pieces = zip(row.split(step), column.split(step), strict=True)
    squared = torch.cat([(rows[a].double() - columns[b, :-1].double()).square_().sum(1) for a, b in pieces])
    best = squared.new_full((len(rows),), torch.inf).scatter_reduce(0, row, squared, "amin")
    limit = (best.sqrt() + 8 * UNIT32 * (norms.sqrt() + frame.largest**0.5)).square()
    keep = squared <= limit[row]
    return row[keep], column[keep]
