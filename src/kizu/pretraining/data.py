"""Training images as one endless seeded sequence: any folder, ImageNet's layout, kizu's generator, or
several of these in turn."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kizu import images
from kizu.checks import whole_numbers
from kizu.digests import files_digest
from kizu.errors import EmptyData, ImageError, LayoutError, UsageError
from kizu.image_files import find_images
from kizu.training import Position

CACHE = 2 * 2**30
"""Bytes of decoded images that are kept in memory. Larger sets are decoded again each time."""
ENDLESS = "procedural"
"""Name of the source that draws its images."""


class Folder:
    """Images of a folder, at any depth. Where it has at least two folders and no image beside them, these
    are the classes (ImageNet's layout).

    Files that cannot be read are added to `skipped` with the reason, and the next readable file stands in
    for them. Raises LayoutError when `path` is no folder, EmptyData when it holds no images."""

    def __init__(self, path: Path, side: int, white_level: int | None = None) -> None:
        if not path.is_dir():
            raise LayoutError(
                f"{path} is no folder. Give a folder of images, of class folders with images, or '{ENDLESS}'."
            )
        found = find_images([path])
        paths = found.images
        tops = [
            file.relative_to(path).parts[0] if len(file.relative_to(path).parts) > 1 else "" for file in paths
        ]
        names = sorted(set(tops))
        labelled = len(names) > 1 and "" not in names
        self.classes = tuple(names) if labelled else ("",)
        numbers = {name: number for number, name in enumerate(names)}
        self.labels = np.array([numbers[top] if labelled else 0 for top in tops], dtype=np.int64)
        self.paths, self.side, self.skipped = paths, side, dict(found.unused)
        self.white_level = white_level
        self.name, self.count = path.name, len(paths)
        fits = len(paths) * side * side * 3 <= CACHE
        self._cache: NDArray[np.uint8] | None = (
            np.empty((len(paths), side, side, 3), np.uint8) if fits else None
        )
        self._is_cached = np.zeros(len(paths), dtype=bool)
        self._digests: dict[int, str] = {}
        self._lock = threading.Lock()

    def image(self, number: int) -> tuple[NDArray[np.uint8], int]:
        """((side, side, 3) uint8, label) of one file, or of the next readable one when it is broken.

        Raises EmptyData when no file can be read."""
        for offset in range(self.count):
            index = (number + offset) % self.count
            if str(self.paths[index]) in self.skipped:
                continue
            if self._cache is not None and self._is_cached[index]:
                return self._cache[index], int(self.labels[index])
            try:
                decoded, self._digests[index] = identified_square(
                    self.paths[index], self.side, self.white_level
                )
            except ImageError as error:
                with self._lock:
                    self.skipped[str(self.paths[index])] = error.reason
                continue
            if self._cache is not None:
                self._cache[index] = decoded
                self._is_cached[index] = True
            return decoded, int(self.labels[index])
        raise EmptyData(
            f"None of the {self.count} images can be read; the first: {next(iter(self.skipped.items()))}."
        )

    def digests(self, numbers: Iterable[int]) -> list[str]:
        """What identifies the images of these numbers; files that cannot be read have nothing."""
        for number in set(numbers) - set(self._digests):
            with contextlib.suppress(ImageError):
                self._digests[number] = images.image_digest(self.paths[number])
        return [self._digests[number] for number in sorted(set(numbers)) if number in self._digests]


def identified_square(path: Path, side: int, white_level: int | None = None) -> tuple[NDArray[np.uint8], str]:
    """The middle of the image, (side, side, 3) uint8, after resizing its short side to `side`, and what
    identifies the image. white_level: see `Images`. Raises ImageError."""
    height, width = images.image_shape(path)
    scale = side / min(height, width)
    size = (max(round(height * scale), side), max(round(width * scale), side))
    resized, digest = images.open_identified(path, size=size, white_level=white_level)
    colour = resized if resized.ndim == 3 else np.repeat(resized[..., None], 3, axis=2)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return colour[top : top + side, left : left + side], digest


class Generated:
    """Images of kizu's generator: endless, seeded, free of any licence."""

    def __init__(self, classes: int, side: int, seed: int) -> None:
        from kizu.synthetic.scenes import SceneGenerator

        self._source = SceneGenerator(size=side, seed=seed, classes=classes)
        self.classes, self.name, self.count, self.skipped = (
            self._source.classes,
            ENDLESS,
            None,
            dict[str, str](),
        )

    def image(self, number: int) -> tuple[NDArray[np.uint8], int]:
        """((side, side, 3) uint8, label)."""
        return self._source.image(number)


class Turns:
    """Which image of which source comes where in an endless sequence: place k is of source k % S, and each
    pass over a source has a new order.

    counts: images of each source; None for an endless one, whose images come by their number."""

    def __init__(self, counts: Sequence[int | None], seed: int) -> None:
        self.counts, self.seed = tuple(counts), seed
        self._orders: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._lock = threading.Lock()

    def __call__(self, place: int) -> tuple[int, int]:
        """(source, number of its image) of a place in the sequence."""
        which, number = place % len(self.counts), place // len(self.counts)
        count = self.counts[which]
        if count is not None:
            number = int(self._order(which, number // count, count)[number % count])
        return which, number

    def drawn(self, which: int, places: int) -> list[int]:
        """Numbers of the images of a source that come in the first `places`; none of an endless one."""
        count, drawn = self.counts[which], len(range(which, places, len(self.counts)))
        if count is None:
            return []
        return list(range(count)) if drawn >= count else self._order(which, 0, count)[:drawn].tolist()

    def _order(self, which: int, pass_number: int, count: int) -> NDArray[np.int64]:
        """The permutation of one pass over one source; those of the two latest passes are kept."""
        key = (which, pass_number)
        with self._lock:  # one thread draws it, the others wait
            if key not in self._orders:
                for old in [one for one in self._orders if one[0] == which and one[1] < pass_number - 1]:
                    del self._orders[old]
                self._orders[key] = np.random.default_rng([self.seed, *key]).permutation(count)
            return self._orders[key]


class Images:
    """The stream of a pretraining: S sources in turn, and their classes numbered one after the other.

    Image k of the sequence is number k // S of source k % S; each pass over a source has a new order.
    sources: folders, "procedural" or "procedural:CLASSES". side: of the images, in pixels. seed: of orders
    and drawn images. threads: that decode. white_level: value of white in grey files of more than 8 bits,
    where not as they say (kizu.grey_depth). Raises UsageError, LayoutError, EmptyData."""

    def __init__(
        self,
        sources: Sequence[str | Path],
        *,
        side: int,
        seed: int = 0,
        threads: int = 2,
        white_level: int | None = None,
    ) -> None:
        if not sources:
            raise UsageError(f"Give images to train on: a folder, or '{ENDLESS}'.")
        whole_numbers(side=side, threads=threads)
        whole_numbers(least=0, seed=seed)
        self.sources = [_source(source, side, seed, white_level) for source in sources]
        self.side, self.seed = side, seed
        starts = np.cumsum([0, *(len(source.classes) for source in self.sources)])
        self._starts, self.classes = starts[:-1], int(starts[-1])
        self._turns = Turns([source.count for source in self.sources], seed)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="kizu-images")

    @property
    def count(self) -> int | None:
        """How many different images there are; None when endless."""
        counts = [source.count for source in self.sources]
        finite = [count for count in counts if count is not None]
        return sum(finite) if len(finite) == len(counts) else None

    @property
    def skipped(self) -> dict[str, str]:
        """Files that could not be read, with the reason."""
        return {path: reason for source in self.sources for path, reason in source.skipped.items()}

    def digest(self) -> str:
        """What identifies the images of folders, by names and sizes of the files."""
        folders = [source for source in self.sources if isinstance(source, Folder)]
        return files_digest(
            (path, label)
            for source in folders
            for path, label in zip(source.paths, source.labels.tolist(), strict=True)
        )

    def card(self) -> list[dict[str, Any]]:
        """The sources, for the card of a representation."""
        return [
            {"name": source.name, "images": source.count, "classes": len(source.classes)}
            for source in self.sources
        ]

    def seen(self, count: int) -> list[str]:
        """What identifies the images of folders among the first `count` of the sequence."""
        return [
            digest
            for which, source in enumerate(self.sources)
            if isinstance(source, Folder)
            for digest in source.digests(self._turns.drawn(which, count))
        ]

    def __call__(self, position: Position) -> tuple[Tensor, Tensor]:
        """(images (B, side, side, 3) uint8, labels (B,) int64) of a position in the run."""
        samples = list(self._pool.map(self._one, range(position.first, position.first + position.count)))
        stacked = np.stack([image for image, _ in samples])
        return torch.from_numpy(stacked), torch.tensor([label for _, label in samples])

    def _one(self, index: int) -> tuple[NDArray[np.uint8], int]:
        which, number = self._turns(index)
        image, label = self.sources[which].image(number)
        return image, label + int(self._starts[which])


def _source(source: str | Path, side: int, seed: int, white_level: int | None) -> Folder | Generated:
    name, _, classes = str(source).partition(":")
    if name == ENDLESS:
        if classes and not classes.isdecimal():
            raise UsageError(
                f"After '{ENDLESS}:' comes the number of classes, as in {ENDLESS}:200; got '{classes}'."
            )
        return Generated(int(classes or 200), side, seed)
    return Folder(Path(source), side, white_level)
