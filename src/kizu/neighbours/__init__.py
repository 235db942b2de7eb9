"""Nearest-neighbour search and the greedy k-centre coreset, both exact.

greedy_coreset(features (N, D), n) -> indices (n,)              covering_radius(features, centres) -> float
StreamingCoreset(n).update(features) ... .finish() -> rows      random_projection(features, "auto", generator=...) -> (N, d)
nearest(queries (Q, D), bank (N, D), k) -> distances, indices   NearestNeighbours(bank).query(queries, k), prepared once
"""

from __future__ import annotations

from kizu.neighbours.index import NearestNeighbours
from kizu.neighbours.nearest import nearest
from kizu.neighbours.projection import random_projection
from kizu.neighbours.select import covering_radius, greedy_coreset
from kizu.neighbours.streaming import StreamingCoreset

__all__ = [
    "NearestNeighbours",
    "StreamingCoreset",
    "covering_radius",
    "greedy_coreset",
    "nearest",
    "random_projection",
]
