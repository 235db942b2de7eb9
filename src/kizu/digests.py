"""What identifies an image: a digest of its pixels, whatever the format and the name of its file."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def values_digest(values: NDArray[np.uint8]) -> str:
    """128 bits of the SHA-256 of pixels (H, W, 3) uint8, in hex. Two of a billion images have the same one
    with probability 1e-21. Grey images may come as (H, W)."""
    colour = values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)
    digest = hashlib.sha256(f"{colour.shape}".encode())
    digest.update(np.ascontiguousarray(colour).data)
    return digest.hexdigest()[:32]


def floats_digest(image: NDArray[np.float32]) -> str:
    """What identifies an image that came as numbers, (3, H, W) float32 in [0, 1]: `values_digest` where these
    are whole 255ths, as a decoded file's are, else that of the very floats."""
    whole = np.rint(image * np.float32(255.0))
    if np.array_equal(whole / np.float32(255.0), image):
        return values_digest(whole.astype(np.uint8).transpose(1, 2, 0))
    return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()[:32]


def deep_digest(values: NDArray[Any]) -> str:
    """What identifies a grey image of more than 8 bits, (H, W) whole numbers: a digest of these."""
    digest = hashlib.sha256(f"deep {values.shape}".encode())
    digest.update(np.ascontiguousarray(values, dtype="<i4").data)
    return digest.hexdigest()[:32]
