"""Whatever a user may hand to fit or predict -> an iterator of Batch. Files begin to be decoded when it is
made."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from kizu import images as image_files
from kizu.datasets.folder import folder
from kizu.errors import EmptyData, ShapeError, UsageError
from kizu.loader import Batches, batches
from kizu.samples import Samples
from kizu.types import Batch

AHEAD = 64 * 2**20
"""Bytes of float32 images that may be decoded ahead, beyond one batch."""
Errors = list[tuple[str, str]]
Images: TypeAlias = Tensor | np.ndarray | str | Path | Samples | Iterable[str | Path] | Iterable[Batch]


def as_batches(
    data: Samples | str | Path | Tensor | Iterable[Batch | Tensor],
    size: tuple[int, int],
    batch_size: int,
    errors: Errors,
) -> Iterator[Batch]:
    """Training data -> batches. Samples and folders may hold good images only, or a training split of them.

    Raises UsageError for rows labelled anomalous: a detector of this kind learns from good images alone.
    """
    if isinstance(data, str | Path):
        data = folder(data)
        data = data.train.normal if len(data.train.normal) else data.normal
    if isinstance(data, Samples):
        bad = len(data.anomalous)
        if bad:
            raise UsageError(
                f"fit takes good images only, got {bad} labelled anomalous among {len(data)}. Give "
                "samples.train.normal, or use a protocol."
            )
        return _from_files(data, size, batch_size, errors)
    return _from_tensor(data, batch_size) if isinstance(data, Tensor) else _from_items(data)


def _from_items(items: Iterable[Batch | Tensor]) -> Iterator[Batch]:
    for item in items:
        if isinstance(item, Batch):
            yield item if item.features is not None else replace(item, images=_checked(item.images))
        elif isinstance(item, Tensor):
            yield Batch(_checked(item))
        else:
            raise UsageError(
                "fit takes Samples, a folder, a tensor, or batches of tensors; got an iterable of "
                f"{type(item).__name__}."
            )


def image_batches(images: Images, size: tuple[int, int], batch_size: int, errors: Errors) -> Iterator[Batch]:
    """Images to look at -> batches; labels and masks are never touched."""
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(images)
    if isinstance(images, Tensor):
        return _from_tensor(images, batch_size)
    if isinstance(images, Samples):
        return _from_files(images, size, batch_size, errors)
    if isinstance(images, str | Path):
        return _from_files(_paths(Path(images)), size, batch_size, errors)
    first, rest = _peek(images)
    if isinstance(first, Batch):
        return as_batches(cast(Iterable[Batch], rest), size, batch_size, errors)
    return _from_files([Path(path) for path in cast(Iterable[str | Path], rest)], size, batch_size, errors)


def _peek(items: Iterable[Any]) -> tuple[Any, Iterable[Any]]:
    """The first item, and all of them again."""
    iterator = iter(items)
    first = next(iterator, None)
    return first, () if first is None else itertools.chain([first], iterator)


def _paths(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = image_files.list_images(path)
    if not found:
        raise EmptyData(f"{path} holds no images.")
    return found


def _from_files(
    source: Samples | list[Path], size: tuple[int, int], batch_size: int, errors: Errors
) -> Iterator[Batch]:
    """Decoding begins at once, before the first batch is asked for; one batch ahead, up to three where they
    take no more than AHEAD."""
    ahead = min(max(AHEAD // (12 * size[0] * size[1] * batch_size), 1), 3)
    loader = batches(source, image_size=size, batch_size=batch_size, on_error="collect", prefetch=ahead)
    loader.start()
    return _until_read(loader, errors)


def _until_read(loader: Batches, errors: Errors) -> Iterator[Batch]:
    with loader:
        yield from loader
    errors.extend(loader.errors)


def _from_tensor(images: Tensor, batch_size: int) -> Iterator[Batch]:
    checked = _checked(images)
    for start in range(0, len(checked), batch_size):
        yield Batch(checked[start : start + batch_size])


def _checked(images: Tensor) -> Tensor:
    if images.ndim != 4 or images.shape[1] != 3:
        raise ShapeError(f"images must have shape (B, 3, H, W), got {tuple(images.shape)}.")
    if not images.is_floating_point():
        raise UsageError(f"images are float32 in [0, 1], got {images.dtype}. Divide 8-bit values by 255.")
    low, high = (float(edge) for edge in torch.aminmax(images)) if images.numel() else (0.0, 0.0)
    if not (low >= -1e-3 and high <= 1.0 + 1e-3):
        raise UsageError(
            f"images are float32 in [0, 1], got values from {low:g} to {high:g}. Divide 8-bit values by 255; "
            "do not normalise."
        )
    return images.float()
