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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kizu.datasets.folder import folder
from kizu.errors import EmptyData, ShapeError, UsageError, some
from kizu.images import floats_digest, list_images, open_image, resize_image, values_digest
from kizu.loader import batches, masks_for
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
) -> Iterator[Batch]:
    """Batches of at most `batch_size` images; `errors` grows by (path, reason) for files that cannot be read.

    size: (H, W) to which files and 8-bit arrays are resized. supervision: None to look at images, "normal" or
    "labelled" to learn from them. channels: order of colours in arrays and tensors ("bgr" as OpenCV has
    them). Files begin to be decoded at once. Raises UsageError for what is none of the above, and for samples
    labelled anomalous where only good ones may come; ShapeError; EmptyData for a folder without images."""
    if channels not in ("rgb", "bgr"):
        raise UsageError(f"channels is 'rgb' or 'bgr', got {channels!r}.")
    if isinstance(data, str | Path) and supervision is not None and _is_data_set(Path(data)):
        data = _training_samples(Path(data), supervision)
    if isinstance(data, Samples):
        _refuse_channels(channels)
        found = _from_samples(data, size, batch_size, errors, supervision)
    else:
        found = _from_items(data, size, batch_size, errors, channels, digests=supervision is not None)
    return map(_without_labels, found) if supervision == "normal" else found


def _is_data_set(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() == ".csv"


def _training_samples(path: Path, supervision: Supervision) -> Samples:
    """The part of a data set in a folder from which is learned."""
    samples = folder(path)
    if supervision == "labelled":
        return samples.train if len(samples.train) else samples
    return samples.train.normal if len(samples.train.normal) else samples.normal


def _from_samples(
    samples: Samples, size: tuple[int, int], batch_size: int, errors: Errors, supervision: Supervision | None
) -> Iterator[Batch]:
    if supervision == "normal":
        _refuse_anomalous(len(samples.anomalous), len(samples))
    found = _from_files(samples, size, batch_size, errors, digests=supervision is not None)
    return _labelled(found, samples, size) if supervision == "labelled" else found


def _labelled(given: Iterator[Batch], samples: Samples, size: tuple[int, int]) -> Iterator[Batch]:
    """The batches with their labels, and with their masks where every anomalous sample has one."""
    labels = torch.tensor(samples.labels)
    masked = len(samples.pixel_labelled) == len(samples)
    for batch in given:
        rows = list(batch.rows)
        masks = torch.from_numpy(masks_for(samples.take(rows), size)) if masked else None
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
) -> Iterator[Batch]:
    """Paths, arrays, PIL images or batches; one, or several of one kind."""
    if isinstance(data, np.ndarray) and data.dtype.kind in "OU":
        data = data.tolist()  # of names, or of images of several sizes
    if isinstance(data, str | Path | Tensor | np.ndarray | Image.Image | Batch | bytes | io.BytesIO):
        data = [data]
    if not isinstance(data, Iterable):
        raise _unknown(data)
    items = iter(data)
    first = next(items, _NOTHING)
    if first is _NOTHING:
        return iter(())
    items = itertools.chain([first], items)
    if isinstance(first, str | Path | Batch | Image.Image | bytes | io.BytesIO):
        _refuse_channels(channels)
    if isinstance(first, str | Path):
        return _from_files(_paths(items), size, batch_size, errors, digests=digests)
    if isinstance(first, Batch):
        return (_checked(item, digests) if isinstance(item, Batch) else _raise(item) for item in items)
    arrays = (_from_array(item, size, channels, digests) for item in items)
    return (part for batch in _gathered(arrays, batch_size) for part in batch.split(batch_size))


def _refuse_channels(channels: Channels) -> None:
    if channels != "rgb":
        raise UsageError(
            "channels is for arrays and tensors; colours in files, PIL images and Batches are in no doubt. "
            "Leave it away."
        )


def _paths(items: Iterable[Any]) -> list[Path]:
    paths: list[Path] = []
    for item in items:
        if not isinstance(item, str | Path):
            raise _unknown(item)
        path = Path(item)
        inside = list_images(path) if path.is_dir() else [path]
        if not inside:
            raise EmptyData(_no_images(path))
        paths += inside
    return paths


def _no_images(folder: Path) -> str:
    """Why a folder gives no image, and what to give instead."""
    deeper = sorted(inner.name for inner in folder.iterdir() if inner.is_dir())
    if not deeper:
        return f"{folder} holds no images."
    return (
        f"{folder} holds folders ({some(deeper)}) and no images of its own. Give the folder that holds the "
        f"images, or kizu.dataset('folder', {str(folder)!r}) for all of them."
    )


def _from_files(
    source: Samples | Sequence[str | Path],
    size: tuple[int, int],
    batch_size: int,
    errors: Errors,
    *,
    digests: bool,
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
    )
    loader.start()
    return loader


def _checked(batch: Batch, digests: bool) -> Batch:
    if batch.features is not None:
        batch = replace(batch, features=[level.detach() for level in batch.features])
    if batch.images is None:
        return batch
    images = _float_images(batch.images)
    known = batch.digests or (_digests(images) if digests else ())
    return replace(batch, images=images, digests=known)


def _from_array(item: Any, size: tuple[int, int], channels: Channels, digests: bool) -> Batch:
    """An array, a tensor, a PIL image or a file's bytes -> a batch, with what identifies each image."""
    if isinstance(item, bytes | io.BytesIO):
        item = open_image(io.BytesIO(item) if isinstance(item, bytes) else item)
    if isinstance(item, Image.Image):
        item = np.asarray(item.convert("RGB"))
    if isinstance(item, np.ndarray) and item.dtype == np.uint8:
        images, order = _resized(item, size), -1 if channels == "bgr" else 1
        whole = (item if item.ndim == 4 else item[None])[..., ::order]
        known = tuple(values_digest(one) for one in whole) if digests else ()
        return Batch(images.flip(1) if channels == "bgr" else images, digests=known)
    images = _tensor(item)
    images = images.flip(1) if channels == "bgr" else images
    return Batch(images, digests=_digests(images) if digests else ())


def _digests(images: Tensor) -> tuple[str, ...]:
    return tuple(floats_digest(image.detach().cpu().contiguous().numpy()) for image in images)


def _resized(item: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """(H, W, 3) or (B, H, W, 3) uint8 -> (B, 3, *size) float32 in [0, 1]."""
    if item.ndim not in (3, 4) or item.shape[-1] != 3:
        raise ShapeError(
            f"8-bit arrays have shape (H, W, 3) or (B, H, W, 3), got {item.shape}. {_advice(item.shape)}"
        )
    stacked = np.stack([resize_image(one, size) for one in (item if item.ndim == 4 else item[None])])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float().div_(255.0)


def _tensor(item: Any) -> Tensor:
    """A tensor or an array of floats -> (B, 3, H, W) float32 in [0, 1]."""
    if isinstance(item, np.ndarray) and item.dtype.kind in "biuf":
        item = torch.from_numpy(np.ascontiguousarray(item))
    if not isinstance(item, Tensor):
        raise _unknown(item)
    return _float_images(item[None] if item.ndim == 3 else item)


def _float_images(images: Tensor) -> Tensor:
    if images.ndim != 4 or images.shape[1] != 3:
        shape = tuple(images.shape)
        raise ShapeError(f"images must have shape (B, 3, H, W), got {shape}. {_advice(shape)}")
    images = images.detach()
    if not images.is_floating_point():
        raise UsageError(
            f"images are float32 in [0, 1], got {images.dtype}. Divide 8-bit values by 255, or give NumPy "
            "arrays (H, W, 3) uint8."
        )
    low, high = (float(edge) for edge in torch.aminmax(images)) if images.numel() else (0.0, 0.0)
    if not (low >= -1e-3 and high <= 1.0 + 1e-3):
        raise UsageError(
            f"images are float32 in [0, 1], got values from {low:g} to {high:g}. Divide 8-bit values by 255; "
            "do not normalise."
        )
    return images.float()


def _advice(shape: tuple[int, ...]) -> str:
    """What to do with an array of that shape."""
    if len(shape) < 2:
        return "Give an image, not a row of numbers."
    if len(shape) == 2 or 1 in (shape[-1], shape[-3]):
        return "Repeat a grey image three times along its channels, or give its file, or PIL's image of it."
    if shape[-1] == 3:
        return "Turn channels-last values with numpy.moveaxis(array, -1, -3) or tensor.movedim(-1, -3)."
    if shape[-3] == 3:
        return "Turn channels-first 8-bit values with numpy.moveaxis(array, -3, -1)."
    if 4 in (shape[-1], shape[-3]):
        return "Leave out the alpha channel."
    return "An image has three channels: red, green and blue."


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
    return Batch(images, digests=tuple(digest for batch in batches for digest in batch.digests))


def _unknown(item: Any) -> UsageError:
    return UsageError(
        "Images are Samples, a folder, paths, arrays (H, W, 3) uint8, PIL images, bytes of a file, tensors "
        f"(B, 3, H, W) in [0, 1], or Batches of them; got {type(item).__name__}."
    )


def _raise(item: Any) -> Batch:
    raise _unknown(item)
