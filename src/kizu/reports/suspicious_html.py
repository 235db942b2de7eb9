"""Good images that stand out among the others, as one HTML file: the most suspicious first, each with its
heat map, so that a person can say which of them are flawed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kizu.errors import ImageError, UsageError
from kizu.images import open_image
from kizu.reports._draw import figure, panel_images
from kizu.reports._page import photo_uri, render
from kizu.store import replacing

_BYTES = 5_000_000
LONGEST = 320
"""Pixels of an image's longer side."""

Suspect = tuple[str, float, NDArray[np.floating] | None]
"""Path, score, and map (H, W), higher is more anomalous, or None."""


def suspicious_html(
    images: Sequence[Suspect],
    out: Path | str,
    *,
    limit: float | None = None,
    left_out: bool = False,
    shown: int = 100,
    reading: Callable[[str], NDArray[np.uint8]] = open_image,
) -> Path:
    """Write the page and return its path; an old one is replaced.

    images: in the order in which they are shown. limit: the score beyond which an image stands out, where
    there is one. left_out: whether the model was fitted without them. shown: how many at most; the page says
    how many are not. reading: opens a file as the model sees it, (H, W, 3) uint8. A file that cannot be
    opened any more has a line without a picture. Raises UsageError for shown < 1."""
    if shown < 1:
        raise UsageError(f"suspicious_html needs shown >= 1, got {shown}.")
    target, first = Path(out), images[:shown]
    page = render(
        "suspicious.html.j2",
        title="Good images that stand out",
        cards=[_card(image, reading, _BYTES // max(1, len(first))) for image in first],
        total=len(images),
        limit="" if limit is None else figure(limit),
        left_out=left_out,
    )
    with replacing(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


def _card(image: Suspect, reading: Callable[[str], NDArray[np.uint8]], budget: int) -> dict[str, Any]:
    path, score, heat = image
    card = {
        "path": path,
        "name": PurePath(path).name,
        "score": figure(score),
        "uri": "",
        "wide": 1,
        "high": 1,
    }
    try:
        picture = reading(path)
    except ImageError as error:
        return card | {"problem": error.reason}
    if heat is None:
        heat = np.zeros(picture.shape[:2], dtype=np.float32)
    low, high = float(np.median(heat)), float(heat.max())
    shown = panel_images(picture, heat, None, (low, high if high > low else low + 1.0), LONGEST)
    beside = np.concatenate([shown.image, shown.decision], axis=1)
    return card | {
        "uri": photo_uri(beside, budget),
        "wide": beside.shape[1],
        "high": beside.shape[0],
        "problem": "",
    }
