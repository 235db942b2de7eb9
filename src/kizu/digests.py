"""What identifies an image: a digest of its pixels, whatever the format and the name of its file. What
identifies a file, whatever it holds: a digest of its bytes; a list of files: their names and sizes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def values_digest(values: NDArray[np.uint8]) -> str:
    """128 bits of the SHA-256 of pixels (H, W, 3) uint8, in hex. Two of a billion images have the same one
    with probability 1e-21. Grey images may come as (H, W), or with three equal channels."""
    if values.ndim == 3 and all(np.array_equal(values[..., 0], values[..., other]) for other in (1, 2)):
        values = values[..., 0]
    digest = hashlib.sha256(f"{values.shape}".encode())
    digest.update(np.ascontiguousarray(values).data)
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


def file_digest(path: str | os.PathLike[str]) -> str | None:
    """SHA-256 of a file's bytes; None for one that cannot be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def files_digest(rows: Iterable[tuple[object, ...]]) -> str:
    """What identifies a list of files without opening one: the size of each in bytes, its path below the
    folder that they share, and what else its row says. rows: (path, ...) each, in order."""
    listed = [(str(path), more) for path, *more in rows]
    folders = {os.path.dirname(path) for path, _ in listed}  # noqa: PTH120 (strings: there may be a million)
    top = os.path.commonpath(folders) if folders else ""
    digest = hashlib.sha256()
    for path, more in listed:
        digest.update(os.fsencode(f"{path.removeprefix(top)}\n{_size(path)}\n{more}\n"))
    return digest.hexdigest()


def _size(path: str) -> int:
    """In bytes; -1 for a file that is not there."""
    try:
        return os.path.getsize(path)  # noqa: PTH202
    except OSError:
        return -1


def seen_digests(card: dict[str, Any]) -> set[str]:
    """What identifies the images that a card lists under "images_seen", those of the cards within it too.

    >>> parts = [{"images_seen": ["c"]}]
    >>> sorted(seen_digests({"images_seen": ["a"], "base": {"images_seen": ["b"]}, "parts": parts}))
    ['a', 'b', 'c']
    >>> seen_digests({"recipe": {"images_seen": 5}})
    set()
    """
    values = [one for value in card.values() for one in (value if isinstance(value, list) else [value])]
    inner = [seen_digests(value) for value in values if isinstance(value, dict)]
    listed = card.get("images_seen")
    own = {one for one in listed if isinstance(one, str)} if isinstance(listed, list) else set()
    return own.union(*inner)
