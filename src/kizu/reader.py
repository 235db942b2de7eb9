"""Whatever a user hands to `fit`, `predict` or `adapt` -> an iterator of Batch. The one way in.

    Samples, a folder, a file, a list of paths     read from disk and resized to `size`, ahead of their use
    (H, W, 3) or (B, H, W, 3) uint8 arrays, PIL    resized to `size`, as files are
    bytes, io.BytesIO                              the content of one file, decoded and resized
    (B, 3, H, W) float tensors or arrays           taken as they are, in [0, 1]
    an iterable of any one of these, or of Batch

Who learns from good images only ("normal") is never handed a label or a mask, and a sample labelled anomalous
is refused wherever it comes from."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kizu.arrays import digests_of, float_images, from_array, unknown_input
from kizu.datasets.folder import folder
from kizu.errors import UsageError
from kizu.image_files import find_images
from kizu.loader import batches, masks_for
from kizu.roi import Roi
from kizu.samples import Samples
from kizu.types import Batch

PREFETCH_BYTES = 64 * 2**20
"""Bytes of float32 images that may be decoded ahead, beyond one batch."""
One: TypeAlias = "str | Path | Tensor | NDArray[Any] | Image.Image | bytes | io.BytesIO"
Images: TypeAlias = "Samples | Batch | One | Iterable[One] | Iterable[Batch]"
"""What `fit` and `predict` take."""
Supervision = Literal["normal", "labelled"]
Channels = Literal["rgb", "bgr"]
Errors = list[tuple[str, str]]
_NOTHING = object()


def read(
    data: Images,
    *,
    size: tuple[int, int],
    batch_size: int,
    errors: Errors,
    supervision: Supervision | None = None,
    channels: Channels = "rgb",
    white_level: int | None = None,
    roi: Roi | None = None,
) -> Iterator[Batch]:
    """Batches of at most `batch_size` images; `errors` grows by (path, reason) for files that cannot be read.

    size: (H, W) to which files and 8-bit arrays are resized. supervision: None to look at images, "normal" or
    "labelled" to learn from them. channels: order of colours in arrays and tensors ("bgr" as OpenCV has
    them). white_level: of grey files of more than 8 bits, where not as they say (kizu.grey_depth). roi: all
    but Batches are cut to it first; a Batch holds what a detector looks at. Files begin to be decoded at
    once. Raises UsageError for what is none of the above, and for samples labelled anomalous where only good
    ones may come; ShapeError, also for an array that the region does not fit; EmptyData for a folder without
    images."""
    if channels not in ("rgb", "bgr"):
        raise UsageError(f"channels is 'rgb' or 'bgr', got {channels!r}.")
    if isinstance(data, str | Path) and supervision is not None and _is_data_set(Path(data)):
        data = _training_samples(Path(data), supervision)
    if isinstance(data, Samples):
        _refuse_channels(channels)
        errors += data.unused
        found = _from_samples(data, size, batch_size, errors, supervision, white_level, roi)
    else:
        digests = supervision is not None
        found = _from_items(
            data, size, batch_size, errors, channels, digests=digests, white_level=white_level, roi=roi
        )
    return map(_without_labels, found) if supervision == "normal" else found


def _is_data_set(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() == ".csv"


def _training_samples(path: Path, supervision: Supervision) -> Samples:
    """The part of a data set in a folder from which is learned."""
    samples = folder(path).to_learn
    return samples if supervision == "labelled" else samples.normal


def _from_samples(
    samples: Samples,
    size: tuple[int, int],
    batch_size: int,
    errors: Errors,
    supervision: Supervision | None,
    white_level: int | None,
    roi: Roi | None,
) -> Iterator[Batch]:
    if supervision == "normal":
        _refuse_anomalous(len(samples.anomalous), len(samples))
    digests = supervision is not None
    found = _from_files(samples, size, batch_size, errors, digests=digests, white_level=white_level, roi=roi)
    return _labelled(found, samples, size, roi) if supervision == "labelled" else found


def _labelled(
    given: Iterator[Batch], samples: Samples, size: tuple[int, int], roi: Roi | None
) -> Iterator[Batch]:
    """The batches with their labels, and with their masks where every anomalous sample has one."""
    labels = torch.tensor(samples.labels)
    masked = len(samples.pixel_labelled) == len(samples)
    for batch in given:
        rows = list(batch.rows)
        masks = torch.from_numpy(masks_for(samples.take(rows), size, roi=roi)) if masked else None
        yield replace(batch, labels=labels[rows], masks=masks)


def _without_labels(batch: Batch) -> Batch:
    if batch.labels is not None:
        _refuse_anomalous(int((batch.labels == 1).sum()), len(batch))
    elif batch.masks is not None:
        _refuse_anomalous(int(batch.masks.flatten(1).any(1).sum()), len(batch))
    return replace(batch, labels=None, masks=None)


def _refuse_anomalous(bad: int, count: int) -> None:
    if bad:
        raise UsageError(
            f"fit takes good images only, got {bad} labelled anomalous among {count}. Give "
            "samples.train.normal, or use a protocol."
        )


def _from_items(
    data: Any,
    size: tuple[int, int],
    batch_size: int,
    errors: Errors,
    channels: Channels,
    *,
    digests: bool,
    white_level: int | None,
    roi: Roi | None,
) -> Iterator[Batch]:
    """Paths, arrays, PIL images or batches; one, or several of one kind."""
    if isinstance(data, np.ndarray) and data.dtype.kind in "OU":
        data = data.tolist()  # of names, or of images of several sizes
    if isinstance(data, str | Path | Tensor | np.ndarray | Image.Image | Batch | bytes | io.BytesIO):
        data = [data]
    if not isinstance(data, Iterable) or isinstance(data, Mapping):
        raise unknown_input(data)
    items = iter(data)
    first = next(items, _NOTHING)
    if first is _NOTHING:
        return iter(())
    items = itertools.chain([first], items)
    if isinstance(first, str | Path | Batch | Image.Image | bytes | io.BytesIO):
        _refuse_channels(channels)
    if isinstance(first, str | Path):
        files = _paths(items, errors)
        return _from_files(files, size, batch_size, errors, digests=digests, white_level=white_level, roi=roi)
    if isinstance(first, Batch):
        return (_checked(item, digests) if isinstance(item, Batch) else _raise(item) for item in items)
    arrays = (
        from_array(item, size, bgr=channels == "bgr", digests=digests, white_level=white_level, roi=roi)
        for item in items
    )
    return (part for batch in _gathered(arrays, batch_size) for part in batch.split(batch_size))


def _refuse_channels(channels: Channels) -> None:
    if channels != "rgb":
        raise UsageError(
            "channels is for arrays and tensors; colours in files, PIL images and Batches are in no doubt. "
            "Leave it away."
        )


def _paths(items: Iterable[Any], errors: Errors) -> list[Path]:
    """The files, and the images in the folders at any depth; `errors` grows by what is not used."""
    paths: list[Path] = []
    for item in items:
        if not isinstance(item, str | Path):
            raise unknown_input(item)
        found = find_images([item])
        paths += found.images
        errors += found.unused
    return paths


def _from_files(
    source: Samples | Sequence[str | Path],
    size: tuple[int, int],
    batch_size: int,
    errors: Errors,
    *,
    digests: bool,
    white_level: int | None,
    roi: Roi | None,
) -> Iterator[Batch]:
    """Decoding begins at once; one batch ahead, up to three where they take no more than PREFETCH_BYTES."""
    ahead = min(max(PREFETCH_BYTES // (12 * size[0] * size[1] * batch_size), 1), 3)
    loader = batches(
        source,
        image_size=size,
        batch_size=batch_size,
        on_error="collect",
        prefetch=ahead,
        errors=errors,
        digests=digests,
        white_level=white_level,
        roi=roi,
    )
    loader.start()
    return loader


def _checked(batch: Batch, digests: bool) -> Batch:
    if batch.features is not None:
        batch = replace(batch, features=[level.detach() for level in batch.features])
    if batch.images is None:
        return batch
    images = float_images(batch.images)
    known = batch.digests or (digests_of(images) if digests else ())
    return replace(batch, images=images, digests=known)


def _gathered(batches: Iterator[Batch], batch_size: int) -> Iterator[Batch]:
    """Neighbours of one size joined into batches; what comes in batches already stays as it is."""
    waiting: list[Batch] = []
    for batch in batches:
        full = sum(map(len, waiting)) + len(batch) > batch_size
        if waiting and (full or batch.size != waiting[0].size):
            yield _joined(waiting)
            waiting = []
        waiting.append(batch)
    if waiting:
        yield _joined(waiting)


def _joined(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    images = torch.cat([batch.require_images() for batch in batches])
    digests = tuple(digest for batch in batches for digest in batch.digests)
    return Batch(
        images, digests=digests, file_sizes=tuple(size for one in batches for size in one.file_sizes)
    )


def _raise(item: Any) -> Batch:
    raise unknown_input(item)
