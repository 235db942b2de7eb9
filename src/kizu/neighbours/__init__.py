"""Exact nearest-neighbour search and the greedy k-centre coreset.

nearest(queries (Q, D), bank (N, D), k) -> distances, indices    one search
NearestNeighbours(bank).query(queries, k)                        many searches of one bank
greedy_coreset(features (N, D), n) -> indices (n,)               rows that cover all others
covering_radius(features, centres) -> float                      how well they cover
StreamingCoreset(n).update(features) ... .finish() -> rows       more rows than fit in memory
random_projection(features, "auto", generator=...) -> (N, d)     fewer dimensions before it
"""

from __future__ import annotations

from kizu.neighbours.coreset import covering_radius, greedy_coreset
from kizu.neighbours.index import NearestNeighbours, nearest
from kizu.neighbours.projection import random_projection
from kizu.neighbours.streaming import StreamingCoreset

__all__ = [
    "NearestNeighbours",
    "StreamingCoreset",
    "covering_radius",
    "greedy_coreset",
    "nearest",
    "random_projection",
]
