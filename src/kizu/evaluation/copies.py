"""Copies among good images: equal ones count once, nearly equal ones are warned of.

The promise of calibration rests on good parts that are exchangeable with a new one. Two files of one
photograph, or two frames of one part, are no two parts: one of them in the fit and the other among the
calibration images, the detector has seen what it is calibrated on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from kizu.errors import ImageError
from kizu.images import open_identified
from kizu.samples import Samples
from kizu.types import Progress

SIDE = 32
"""Side of the thumbnails that are compared, in pixels."""
NEAR = 0.1
"""Images nearer than this share of the usual distance between two of them are nearly equal."""
BLOCK = 1024
"""Images that are compared with all others at once."""
THREADS = 2
Result = TypeVar("Result")


@dataclass(frozen=True)
class Identity:
    """digest: what identifies the image, "" for a file that cannot be read. thumbnail: (SIDE, SIDE) uint8
    grey."""

    digest: str
    thumbnail: NDArray[np.uint8]


def identify(
    paths: Sequence[str], progress: Progress | None = None, *, white_level: int | None = None
) -> list[Identity]:
    """The identity of each file, in order. white_level: for the thumbnails."""
    return for_each(functools.partial(_identity, white_level=white_level), paths, progress)


def for_each(
    work: Callable[[str], Result], paths: Sequence[str], progress: Progress | None = None
) -> list[Result]:
    """What `work` makes of each file, in order, by several threads."""
    made: list[Result] = []
    with ThreadPoolExecutor(THREADS, thread_name_prefix="kizu-images") as pool:
        for result in pool.map(work, paths):
            made.append(result)
            if progress:
                progress(len(made), "comparing images")
    return made


def grouped(samples: Samples, images: Sequence[Identity]) -> Samples:
    """The samples with equal images in one group, joined with the groups that they had.

    images: their identities. Where neither groups nor copies are, the samples as they are."""
    groups = samples.table["group"].to_list()
    unit = list(range(len(samples)))

    def root(row: int) -> int:
        while unit[row] != row:
            row = unit[row]
        return row

    for labels in (groups, [image.digest or None for image in images]):
        first: dict[str, int] = {}
        for row, label in enumerate(labels):
            if label is not None:
                unit[root(row)] = root(first.setdefault(label, row))
    roots = [root(row) for row in range(len(samples))]
    sizes = np.bincount(roots, minlength=len(samples))
    names = [
        groups[row] if sizes[of] == 1 else (groups[of] or f"copies of {samples.paths[of]}")
        for row, of in enumerate(roots)
    ]
    table = samples.table.with_columns(pl.Series("group", names, dtype=pl.String))
    return Samples(table, unused=samples.unused, passed_over=samples.passed_over, mask_rule=samples.mask_rule)


def nearly_equal(images: Sequence[Identity], units: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Pairs of rows of different units whose thumbnails differ by less than NEAR times what two images of
    these usually differ by (the median over all pairs, root mean square); each row with its nearest one.

    units: (n,) number of the group of each image. Fewer than 3 images have no usual difference; images that
    could not be read are left aside."""
    readable = [row for row, image in enumerate(images) if image.digest]
    rows = np.asarray([images[row].thumbnail.reshape(-1) for row in readable], dtype=np.float32)
    if len(rows) < 3:
        return []
    units = units[readable]
    rows -= rows.mean(0)
    some = rows[:: -(-len(rows) // BLOCK)]
    usual = float(np.median(_squared_distances(some, some)[np.triu_indices(len(some), 1)]))
    pairs: set[tuple[int, int]] = set()
    for start in range(0, len(rows), BLOCK):
        squared = _squared_distances(rows[start : start + BLOCK], rows)
        squared[units[start : start + BLOCK, None] == units[None]] = np.inf
        nearest = squared.argmin(1)
        for place in np.flatnonzero(squared.min(1) < NEAR**2 * usual):
            row, other = readable[start + int(place)], readable[int(nearest[place])]
            pairs.add((min(row, other), max(row, other)))
    return sorted(pairs)


def _squared_distances(rows: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, D), (m, D) -> (n, m)."""
    norms = (rows**2).sum(1)[:, None] + (others**2).sum(1)
    return np.maximum(norms - 2.0 * rows @ others.T, 0.0)


def _identity(path: str, *, white_level: int | None) -> Identity:
    try:
        values, digest = open_identified(path, white_level=white_level)
    except ImageError:
        return Identity("", np.zeros((SIDE, SIDE), np.uint8))
    small = Image.fromarray(values).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return Identity(digest, np.asarray(small))
