"""Images of data sets with their labels, masks and pools of reference images, for the pretraining of
projectors."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kizu import images, registry
from kizu.digests import files_digest
from kizu.errors import EmptyData, ImageError, MaskError, UsageError, some
from kizu.loader import masks_for
from kizu.pretraining._recipe import NAMED
from kizu.pretraining.data import CACHE
from kizu.samples import Samples


def read_source(source: str) -> Samples:
    """The labelled images of "NAME:PATH", or of some categories of it, "NAME[bottle,cable]:PATH".

    NAME is a file of kizu/datasets. Raises UsageError for another text, UnknownName for a data set or a
    category that is not there, and what the data set raises."""
    found = NAMED.fullmatch(source)
    if found is None:
        raise UsageError(
            f"Labelled images are named NAME:PATH, as in mvtec:data/mvtec, or NAME[CATEGORY,...]:PATH; got "
            f"{source!r}. `kizu list datasets` has the names; planted:FOLDER draws images there."
        )
    samples: Samples = registry.load("datasets", found["name"])(Path(found["path"]))
    if found["categories"] is not None:
        samples = samples.where(category=[one.strip() for one in found["categories"].split(",")])
    return samples


class LabelledImages:
    """Labelled images of several data sets under one numbering, each with its label, mask and references.

    sources: see `read_source`. side: to which images are resized, their aspect not kept. shots: most
    references of one image. white_level: value of white in grey files of more than 8 bits, where not as they
    say. unmasked: anomalous images without a mask are an "error", or "left_out". same_view: whether
    references are of the image's own view (camera). Rows without a label are left out. Raises MaskError for
    anomalous images without a mask, UsageError where images have too few good others of their data set,
    category and view to be compared with."""

    def __init__(
        self,
        sources: Sequence[str],
        *,
        side: int,
        shots: int,
        white_level: int | None = None,
        unmasked: str = "error",
        same_view: bool = True,
    ) -> None:
        self.side, self.white_level, self.skipped = side, white_level, dict[str, str]()
        found = [read_source(source) for source in sources]
        self.tables = [samples.take(np.flatnonzero(samples.labels >= 0)) for samples in found]
        if unmasked == "left_out":
            self.tables = [_with_masks(table) for table in self.tables]
        counts = [len(table) for table in self.tables]
        for source, count in zip(sources, counts, strict=True):
            if not count:
                raise EmptyData(f"{source} holds no image with a label.")
        self.starts = np.cumsum([0, *counts])
        self.paths = [path for table in self.tables for path in table.paths]
        self.labels = np.concatenate([table.labels for table in self.tables])
        self._pools = _Pools(self.tables, same_view)
        self._check(shots)
        fits = len(self.paths) * side * side * 4 <= CACHE
        self._cache: dict[int, NDArray[np.uint8]] | None = {} if fits else None
        self._masks: dict[int, Tensor] | None = {} if fits else None
        self._digests: dict[int, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def names(self) -> list[str]:
        """Names of the data sets, each once."""
        every = [name for table in self.tables for name in table.table["dataset"].unique().sort().to_list()]
        return list(dict.fromkeys(every))

    @property
    def without_anomalies(self) -> NDArray[np.bool_]:
        """(n,) whether an image is good and its data set and category have no anomalous image."""
        return (self.labels == 0) & ~np.isin(self._pools.products, self._pools.products[self.labels == 1])

    def card(self) -> list[dict[str, Any]]:
        """The sources, for the card of what is trained."""
        return [
            {
                "name": name,
                "images": len(rows),
                "anomalous": len(rows.anomalous),
                "categories": sorted(rows.table["category"].unique().to_list()),
            }
            for table in self.tables
            for name in table.table["dataset"].unique().sort().to_list()
            for rows in (table.where(dataset=name),)
        ]

    def digest(self) -> str:
        """What identifies the images, by all columns of their tables and sizes of the files."""
        return files_digest((table.digest(),) for table in self.tables)

    def digests(self) -> list[str]:
        """What identifies each image; files that cannot be read have nothing. Opens those that were not
        opened so far."""
        for number in range(len(self)):
            if number not in self._digests and self.paths[number] not in self.skipped:
                self.image(number)
        return [self._digests[number] for number in sorted(self._digests)]

    def image(self, number: int) -> NDArray[np.uint8] | None:
        """(side, side, 3) uint8, or None for a file that cannot be read, which is noted in `skipped`."""
        if self._cache is not None and number in self._cache:
            return self._cache[number]
        path, size = self.paths[number], (self.side, self.side)
        if path in self.skipped:
            return None
        try:
            values, digest = images.open_identified(path, size=size, white_level=self.white_level)
        except ImageError as error:
            with self._lock:
                self.skipped[path] = error.reason
            return None
        colour = values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)
        with self._lock:
            self._digests[number] = digest
            if self._cache is not None:
                self._cache[number] = colour
        return colour

    def mask(self, number: int) -> Tensor:
        """(side, side) bool, all False for a good image. Raises MaskError."""
        if self.labels[number] == 0:
            return torch.zeros(self.side, self.side, dtype=torch.bool)
        if self._masks is not None and number in self._masks:
            return self._masks[number]
        table, row = self._place(number)
        mask = torch.from_numpy(masks_for(self.tables[table].take([row]), (self.side, self.side))[0])
        if self._masks is not None:
            self._masks[number] = mask
        return mask

    def references(
        self, number: int, count: int, generator: torch.Generator, known: Container[int] = ()
    ) -> dict[int, NDArray[np.uint8] | None]:
        """`count` good images of the same data set, category and view by number, never the image itself or
        one of its group, without replacement; None for those that are `known`. Files that cannot be read are
        passed over.

        Raises EmptyData where too few of them can be read."""
        candidates = self._pools.candidates(number)
        chosen: dict[int, NDArray[np.uint8] | None] = {}
        for place in torch.randperm(len(candidates), generator=generator).tolist():
            if len(chosen) == count:
                break
            one = int(candidates[place])
            image = None if one in known else self.image(one)
            if image is not None or one in known:
                chosen[one] = image
        if len(chosen) < count:
            raise EmptyData(
                f"{self.paths[number]}: only {len(chosen)} of the {len(candidates)} good images to "
                f"compare it with can be read, {count} are needed."
            )
        return chosen

    def _place(self, number: int) -> tuple[int, int]:
        """(table, row) of a number."""
        table = int(np.searchsorted(self.starts, number, side="right")) - 1
        return table, number - int(self.starts[table])

    def _check(self, shots: int) -> None:
        bare = [path for table in self.tables for path in _without_mask(table)]
        if bare:
            raise MaskError(
                f"{len(bare)} anomalous images have no mask, which says where they are: {some(bare)}. Give "
                "masks, or leave them out: unmasked='left_out' (at the command line --set unmasked=left_out)."
            )
        few = self._pools.too_small(shots)
        if few:
            raise UsageError(
                f"An image is compared with up to {shots} good others of its data set, category and view (of "
                f"other groups); there are too few of them in {some(few)}. Give more good images, fewer "
                "shots, or same_view=False, which takes them from all views."
            )


class _Pools:
    """Good images by data set, category and view, and which of them an image may be compared with."""

    def __init__(self, tables: Sequence[Samples], same_view: bool) -> None:
        rows = [row for table in tables for row in table.table.iter_rows(named=True)]
        self.products = np.array([f"{row['dataset']}/{row['category']}" for row in rows])
        self._names = [
            f"{product}{' ' + row['view'] if same_view and row['view'] is not None else ''}"
            for product, row in zip(self.products, rows, strict=True)
        ]
        self._groups = [
            None if row["group"] is None else (row["dataset"], row["category"], row["group"]) for row in rows
        ]
        self._good = [row["label"] == 0 for row in rows]
        members: dict[str, list[int]] = defaultdict(list)
        for number, good in enumerate(self._good):
            if good:
                members[self._names[number]].append(number)
        self._members = {name: np.array(numbers) for name, numbers in members.items()}

    def candidates(self, number: int) -> NDArray[np.int64]:
        """Numbers of the good images that an image may be compared with, rising."""
        members = self._members.get(self._names[number], np.zeros(0, dtype=np.int64))
        group = self._groups[number]
        if group is None:
            return members[members != number]
        return np.array([one for one in members if one != number and self._groups[one] != group], dtype=int)

    def too_small(self, count: int) -> list[str]:
        """Names of the pools in which some image has fewer than `count` candidates, with how many there
        are."""
        least: dict[str, int] = {}
        seen: set[tuple[Any, ...]] = set()
        for number, name in enumerate(self._names):
            members = self._members.get(name, np.zeros(0, dtype=np.int64))
            group = self._groups[number]
            key = (name, group, None if group else self._good[number])
            if key not in seen:
                seen.add(key)
                least[name] = min(least.get(name, len(members)), len(self.candidates(number)))
        return [f"{name} ({found})" for name, found in least.items() if found < count]


def _without_mask(table: Samples) -> list[str]:
    """Paths of the anomalous images that have none."""
    whole = set(table.pixel_labelled.paths)
    return [path for path in table.anomalous.paths if path not in whole]


def _with_masks(table: Samples) -> Samples:
    """Without the anomalous images that have none."""
    bare = set(_without_mask(table))
    return table.take([row for row, path in enumerate(table.paths) if path not in bare])
