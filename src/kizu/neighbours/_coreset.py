"""The greedy k-centre coreset by lazy blocks: the picks of the plain loop, most of its work left out.

Sources: T. Gonzalez, Clustering to minimize the maximum intercluster distance (1985); K. Roth et al., Towards
total recall in industrial anomaly detection (PatchCore, 2022), Alg. 1. The plain loop picks the row whose
distance to its nearest pick is largest, n times. That distance only shrinks as picks are added, so an old
value is an upper bound of it. Three tiers follow:

    all N rows      an upper bound each, as old as it may be
    a block         the rows of largest bound; their bounds are renewed by matrix products against the picks since
    the front       the rows of largest bound in the block; their distances are known in float64, by direct difference

The best row of the front is the next pick of the plain loop as soon as no bound outside the front is above
its distance. Products are float32 and carry a proven rounding margin; they only decide which float64
distances are computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kizu.neighbours._filter import CHUNK, Frame, as_columns, as_rows, close_pairs, squared_norms

Progress = Callable[[int, int], None]
BLOCK = 4096
FRONT = 512
ROWS, COLUMNS = 512, 1024
"""Shape of one product: a result of 2 MiB stays in the cache of a core."""


def exact_greedy(features: Tensor, n: int, start: int, progress: Progress | None) -> np.ndarray:
    """Picks (n,) int64 of the greedy k-centre loop in float64 over features (N, D); equal distances: the
    smallest index."""
    state = _State.begin(features, n, start)
    while state.count < n:
        _spend_block(state, n, progress)
    return state.picks


@dataclass
class _State:
    """What is known of the N rows. `upper`: bound of the squared distance to the nearest pick, -1 once picked
    (float64, frame units); `stamp`: how many picks the bound has seen; `exact`, `exact_stamp`: the same for
    the float64 distance (host)."""

    features: Tensor
    frame: Frame
    norms: Tensor
    centres: Tensor
    picks: np.ndarray
    count: int
    upper: Tensor
    stamp: Tensor
    exact: np.ndarray
    exact_stamp: np.ndarray

    @classmethod
    def begin(cls, features: Tensor, n: int, start: int) -> _State:
        rows, device = features.shape[0], features.device
        frame = Frame.of(features)
        state = cls(
            features=features,
            frame=frame,
            norms=torch.cat([squared_norms(frame.shift(part)) for part in features.split(CHUNK)]),
            centres=torch.empty((n, features.shape[1] + 1), device=device),
            picks=np.empty(n, dtype=np.int64),
            count=0,
            upper=torch.full((rows,), torch.inf, dtype=torch.float64, device=device),
            stamp=torch.zeros(rows, dtype=torch.int64, device=device),
            exact=np.full(rows, np.inf),
            exact_stamp=np.zeros(rows, dtype=np.int64),
        )
        state.add(np.array([start]))
        return state

    def add(self, picked: np.ndarray) -> None:
        """Append picks, in order."""
        first, self.count = self.count, self.count + len(picked)
        self.picks[first : self.count] = picked
        index = torch.as_tensor(picked, device=self.upper.device)
        self.centres[first : self.count] = as_columns(self.rows(index))
        self.upper[index] = -1.0

    def rows(self, index: Tensor) -> Tensor:
        """Rows `index` (R, D) in the frame, float32."""
        return self.frame.shift(self.features[index])

    def renew(self, index: Tensor) -> None:
        """Bring the bounds of rows `index` up to date: products in chunks of like staleness."""
        order = self.stamp[index].argsort()
        for chunk in index[order].split(ROWS):
            oldest = int(self.stamp[chunk[0]])
            if oldest == self.count:
                continue
            products = _largest(as_rows(self.rows(chunk)), self.centres[oldest : self.count])
            norms = self.norms[chunk]
            bound = norms - 2.0 * products + self.frame.margin(norms)
            self.upper[chunk] = torch.minimum(self.upper[chunk], bound)
            self.stamp[chunk] = self.count

    def renew_exact(self, index: np.ndarray) -> np.ndarray:
        """float64 squared distances (E,) of rows `index` to their nearest pick, by direct difference; kept
        for later."""
        order = np.argsort(self.exact_stamp[index], kind="stable")
        for chunk in np.array_split(index[order], max(1, len(index) // 64)):
            oldest = int(self.exact_stamp[chunk].min())
            if oldest < self.count:
                self.exact[chunk] = np.minimum(self.exact[chunk], self._nearest_exact(chunk, oldest))
                self.exact_stamp[chunk] = self.count
        return self.exact[index]

    def _nearest_exact(self, chunk: np.ndarray, oldest: int) -> np.ndarray:
        index = torch.as_tensor(chunk, device=self.upper.device)
        pairs = close_pairs(
            self.frame, self.rows(index), self.norms[index], self.centres[oldest : self.count]
        )
        left, right = (pair.cpu().numpy() for pair in pairs)
        best = np.full(len(chunk), np.inf)
        np.minimum.at(best, left, self.frame.direct(self.features, chunk[left], self.picks[oldest + right]))
        return best

    def keep(self, front: np.ndarray, distance: np.ndarray, picked: list[int]) -> None:
        """Take over what a front has learnt: its picks, in order, and its float64 distances after them."""
        self.add(front[picked])
        index = torch.as_tensor(front, device=self.upper.device)
        self.upper[index] = torch.as_tensor(distance, device=self.upper.device)
        self.stamp[index] = self.count
        self.exact[front], self.exact_stamp[front] = distance, self.count


def _largest(rows: Tensor, columns: Tensor) -> Tensor:
    """Row maxima (R,) of rows (R, D+1) times columns (M, D+1) transposed."""
    best = torch.full((rows.shape[0],), -torch.inf, device=rows.device)
    for part in columns.split(COLUMNS):
        best = torch.maximum(best, (rows @ part.T).amax(1))
    return best


def _spend_block(state: _State, n: int, progress: Progress | None) -> None:
    """Take the block of largest bounds and pick from it while the next pick is provably inside."""
    block, outside = _split(state.upper, torch.arange(len(state.upper), device=state.upper.device), BLOCK)
    while state.count < n:
        state.renew(block)
        front, rest = _split(state.upper[block], block, FRONT)
        limit = max(outside, rest)
        if not _spend_front(state, front.cpu().numpy(), limit, n) and outside >= rest:
            return
        if progress is not None:
            progress(state.count, n)


def _split(bounds: Tensor, index: Tensor, size: int) -> tuple[Tensor, tuple[float, int]]:
    """Rows of the `size` largest bounds, ascending, equal bounds by smallest index; and the (bound, -index)
    that leads the others.

    `index` (M,) ascending names the rows of bounds (M,).
    """
    if len(index) <= size:
        return index, (-torch.inf, 0)
    least = bounds.topk(size).values.min()
    above = bounds > least
    level = (bounds == least).nonzero()[:, 0]
    taken = above.clone()
    taken[level[: size - int(above.sum())]] = True
    others = torch.where(taken, -torch.inf, bounds)
    lead = others.amax()
    first = (others == lead).nonzero()[0, 0]
    return index[taken], (float(lead), -int(index[first]))


def _spend_front(state: _State, front: np.ndarray, limit: tuple[float, int], n: int) -> int:
    """Pick from the front while its best is ahead of `limit` = (bound, -index) of all other rows; number of
    picks made."""
    front = front[state.upper[torch.as_tensor(front, device=state.upper.device)].cpu().numpy() >= 0]
    if not len(front):
        return 0
    distance = state.renew_exact(front)
    rows = state.frame.rows64(state.features, front)
    pairs = _pairwise(state, front)
    picked: list[int] = []
    while state.count + len(picked) < n:
        best = int(distance.argmax())
        if (distance[best], -int(front[best])) < limit or distance[best] < 0:
            break
        picked.append(best)
        distance[best] = -1.0
        close = np.flatnonzero(pairs[best] < distance)
        if len(close):
            difference = rows[close] - rows[best]
            distance[close] = np.minimum(distance[close], np.square(difference).sum(1))
    state.keep(front, distance, picked)
    return len(picked)


def _pairwise(state: _State, front: np.ndarray) -> np.ndarray:
    """Lower bounds (E, E) of the squared distances inside the front."""
    index = torch.as_tensor(front, device=state.upper.device)
    rows, norms = state.rows(index), state.norms[index]
    squared = norms[:, None] - 2.0 * (as_rows(rows) @ as_columns(rows).T).double()
    return (squared - state.frame.margin(norms)[:, None]).cpu().numpy()
