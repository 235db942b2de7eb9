"""Nearest-neighbour search and the greedy k-centre coreset, both exact.

greedy_coreset(features (N, D), n) -> indices (n,)              covering_radius(features, centres) -> float
StreamingCoreset(n).update(features) ... .finish() -> rows      random_projection(features, "auto", generator=...) -> (N, d)
nearest(queries (Q, D), bank (N, D), k) -> distances, indices   NearestNeighbours(bank).query(queries, k), prepared once
"""

from __future__ import annotations

from kizu.neighbours._index import NearestNeighbours
from kizu.neighbours._nearest import nearest
from kizu.neighbours._projection import random_projection
from kizu.neighbours._select import covering_radius, greedy_coreset
from kizu.neighbours._streaming import StreamingCoreset

__all__ = ["NearestNeighbours", "StreamingCoreset", "covering_radius", "greedy_coreset", "nearest", "random_projection"]
