"""Images in memory -> batches: NumPy arrays, tensors and PIL images, checked."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kizu.errors import ShapeError, UsageError
from kizu.images import floats_digest, open_image, resize_image, values_digest
from kizu.roi import Roi
from kizu.types import Batch


def from_array(
    item: Any,
    size: tuple[int, int],
    *,
    bgr: bool,
    digests: bool,
    white_level: int | None = None,
    roi: Roi | None = None,
) -> Batch:
    """An array, a tensor, a PIL image or bytes of a file -> a batch; 8-bit images get the `size` (H, W).

    bgr: the order of its colours. digests: with what identifies each image as it was given.
    white_level: of grey files of more than 8 bits, for bytes. roi: what is cut out of them first. Raises
    ShapeError, UsageError."""
    if isinstance(item, bytes | io.BytesIO):
        stream = io.BytesIO(item) if isinstance(item, bytes) else item
        item = open_image(stream, white_level=white_level)
    if isinstance(item, Image.Image):
        if item.mode.startswith(("I", "F")):
            raise UsageError(
                f"A PIL image of mode {item.mode!r} has more than 8 bits, and Pillow cuts them off. Give the "
                "path of its file or its bytes, whose white level is known."
            )
        item = np.asarray(item.convert("RGB"))
    if isinstance(item, np.ndarray) and item.dtype == np.uint8:
        images, order = _resized(item, size, roi), -1 if bgr else 1
        whole = (item if item.ndim == 4 else item[None])[..., ::order]
        known = tuple(values_digest(one) for one in whole) if digests else ()
        sizes = ((int(whole.shape[1]), int(whole.shape[2])),) * len(whole)
        return Batch(images.flip(1) if bgr else images, digests=known, file_sizes=sizes)
    images = _tensor(item)
    images = images.flip(1) if bgr else images
    known = digests_of(images) if digests else ()
    return Batch(roi.cut_tensor(images) if roi else images, digests=known)


def digests_of(images: Tensor) -> tuple[str, ...]:
    """What identifies each of images (B, 3, H, W)."""
    return tuple(floats_digest(image.detach().cpu().contiguous().numpy()) for image in images)


def _resized(item: NDArray[np.uint8], size: tuple[int, int], roi: Roi | None) -> Tensor:
    """(H, W, 3) or (B, H, W, 3) uint8 -> (B, 3, *size) float32 in [0, 1]."""
    if item.ndim not in (3, 4) or item.shape[-1] != 3:
        raise ShapeError(
            f"8-bit arrays have shape (H, W, 3) or (B, H, W, 3), got {item.shape}. {_advice(item.shape)}"
        )
    whole = item if item.ndim == 4 else item[None]
    stacked = np.stack([resize_image(roi.cut(one) if roi else one, size) for one in whole])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float().div_(255.0)


def _tensor(item: Any) -> Tensor:
    """A tensor or an array of floats -> (B, 3, H, W) float32 in [0, 1]."""
    if isinstance(item, np.ndarray) and item.dtype.kind in "biuf":
        item = torch.from_numpy(np.ascontiguousarray(item))
    if not isinstance(item, Tensor):
        raise unknown_input(item)
    return float_images(item[None] if item.ndim == 3 else item)


def float_images(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] as float32. Raises ShapeError, UsageError for anything else."""
    if not images.is_floating_point():
        raise UsageError(
            f"images are float32 in [0, 1], got {images.dtype}. Divide 8-bit values by 255, or give NumPy "
            "arrays (H, W, 3) uint8."
        )
    if images.ndim != 4 or images.shape[1] != 3:
        shape = tuple(images.shape)
        raise ShapeError(f"images must have shape (B, 3, H, W), got {shape}. {_advice(shape)}")
    images = images.detach()
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
    grey = (
        len(shape) == 2 or 1 in (shape[-1], shape[-3]) or (len(shape) == 3 and min(shape[-1], shape[-3]) > 4)
    )
    if grey:
        return "Repeat a grey image three times along its channels, or give its file, or PIL's image of it."
    if shape[-1] == 3:
        return "Turn channels-last values with numpy.moveaxis(array, -1, -3) or tensor.movedim(-1, -3)."
    if shape[-3] == 3:
        return "Turn channels-first 8-bit values with numpy.moveaxis(array, -3, -1)."
    if 4 in (shape[-1], shape[-3]):
        return "Leave out the alpha channel."
    return "An image has three channels: red, green and blue."


def unknown_input(item: Any) -> UsageError:
    """The error for what is no image."""
    return UsageError(
        "Images are Samples, a folder, paths, arrays (H, W, 3) uint8, PIL images, bytes of a file, tensors "
        f"(B, 3, H, W) in [0, 1], or Batches of them; got {type(item).__name__}."
    )
