"""The split lists of Real-IAD: <product>.json, its images to learn from and to test on, with their masks."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from kizu.errors import LayoutError

EXPECTED = (
    "a split list of Real-IAD is an object with the lists train and test, of objects with image_path, "
    "mask_path (null for a good image) and anomaly_class"
)


class Entry(NamedTuple):
    """One image; paths below the product's folder, with /. mask: None for a good one. defect: the code, or
    "good"."""

    image: str
    mask: str | None
    defect: str
    split: str | None


def read_list(file: Path) -> list[Entry]:
    """The entries, those of train first, each list in its order.

    An image is good where it has no mask or its class is meta.normal_class ("OK" where that is not said).
    Raises LayoutError for a file that is no such list, or that names a path out of the product's folder."""
    try:
        content: Any = json.loads(file.read_text("utf-8"))
        normal = str(content.get("meta", {}).get("normal_class", "OK"))
        return [_entry(one, normal, split) for split in ("train", "test") for one in content[split]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LayoutError(f"{file} cannot be read ({type(error).__name__}: {error}); {EXPECTED}.") from error


def _entry(one: Any, normal: str, split: str) -> Entry:
    image, mask, kind = one["image_path"], one["mask_path"], one["anomaly_class"]
    if not isinstance(image, str) or not isinstance(kind, str) or not isinstance(mask, str | None):
        raise ValueError(f"an entry holds {one!r:.200}")
    shown = mask if mask and kind != normal else None
    return Entry(_below(image), shown and _below(shown), kind if shown else "good", split)


def _below(text: str) -> str:
    """A path that stays below the product's folder."""
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{text!r} leads out of the product's folder")
    return path.as_posix()
