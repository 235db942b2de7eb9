"""What `kizu inspect` writes of one image beside its score: flaw regions, the raw map, a table of all."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kizu import store
from kizu.errors import ImageError, UsageError
from kizu.images import image_shape
from kizu.masks import resize_mask
from kizu.regions import Region, find_regions, number_regions

if TYPE_CHECKING:
    from kizu.detectors.base import Detector
    from kizu.types import Prediction

TABLE = "results.csv"
MAP_KINDS = ("npy", "tiff")
_LONGEST = 120
"""Bytes of a file name's part that comes from the image's path."""
_COLUMNS = (
    *("path", "score", "p_value", "is_anomalous", "region", "x", "y", "width", "height", "area"),
    *("peak", "peak_x", "peak_y", "centre_x", "centre_y", "error"),
)


@dataclass(frozen=True)
class Outputs:
    """What is written beside results.jsonl and the page. maps: "npy" or "tiff", None for no maps. Raises
    UsageError for another."""

    panels: bool = True
    maps: str | None = None
    table: bool = False

    def __post_init__(self) -> None:
        if self.maps is not None and self.maps not in MAP_KINDS:
            raise UsageError(
                f"--maps is npy (NumPy) or tiff, both float32 at the size of the image; got '{self.maps}'."
            )


def names_of(paths: Iterable[Path | str]) -> dict[str, str]:
    """Path -> what is shown of it: all below the folder that the images have in common, so that two images of
    one file name differ.

    >>> names_of(["parts/good/002.png", "parts/crack/002.png"])
    {'parts/good/002.png': 'good/002.png', 'parts/crack/002.png': 'crack/002.png'}
    """
    places = {str(path): Path(os.path.abspath(path)) for path in paths}  # noqa: PTH100 (.. is resolved too)
    if not places:
        return {}
    common = Path(os.path.commonpath([place.parent for place in places.values()]))
    return {path: place.relative_to(common).as_posix() for path, place in places.items()}


def stem_of(number: int, name: str) -> str:
    """The name of an image's panel and map, without suffix: its number, which makes it unique, and its name
    in characters that every file system takes.

    >>> stem_of(3, "crack/002.png")
    '000003-crack-002'
    """
    plain = re.sub(r"[^\w.]+", "-", str(Path(name).with_suffix("")), flags=re.ASCII).strip("-.")
    return f"{number:06d}-{plain[-_LONGEST:] or 'image'}"


def numbered(detector: Detector, part: Prediction, index: int) -> NDArray[np.int32] | None:
    """(H, W) the number of the flaw region of each map value, 0 for none; None where nothing is decided."""
    threshold = detector.decision_.map_threshold if detector.decision_ else None
    if threshold is None or part.is_anomalous is None:
        return None
    if not bool(part.is_anomalous[index]):
        return np.zeros(part.map.shape[1:], dtype=np.int32)
    return number_regions(part.map[index], threshold, inside=_inside(detector, part))


def regions_of(detector: Detector, part: Prediction, index: int) -> list[dict[str, Any]] | None:
    """The flaw regions of an image, in pixels of its file; none of one that passed; None where nothing is
    decided, or the file is gone since it was scored."""
    threshold = detector.decision_.map_threshold if detector.decision_ else None
    if threshold is None or part.is_anomalous is None:
        return None
    if not bool(part.is_anomalous[index]):
        return []
    roi = detector.roi
    try:
        size = image_shape(part.paths[index]) if roi is None else (roi.box[3], roi.box[2])
    except ImageError:
        return None
    origin = (0, 0) if roi is None else roi.box[:2]
    inside = _inside(detector, part)
    found = find_regions(part.map[index], threshold, size, inside=inside, origin=origin)
    return [_plain(region) for region in found]


def _inside(detector: Detector, part: Prediction) -> NDArray[np.bool_] | None:
    """(H, W) of a map: what is inside of the region of interest; None where all of it is."""
    if detector.roi is None or detector.roi.inside is None:
        return None
    return resize_mask(detector.roi.inside, (int(part.map.shape[1]), int(part.map.shape[2])))


def _plain(region: Region) -> dict[str, Any]:
    return {
        "box": list(region.box),
        "area": region.area,
        "peak": region.peak,
        "peak_at": list(region.peak_at),
        "centre": [round(place, 2) for place in region.centre],
    }


def write_map(
    out: Path, stem: str, detector: Detector, part: Prediction, index: int, kind: str
) -> str | None:
    """Write the raw map at the size of the image, (H, W) float32, NaN outside of a region of interest; its
    name within `out`, None when the image is gone since it was scored."""
    import torch
    from torch.nn import functional

    roi = detector.roi
    try:
        size = image_shape(part.paths[index])
    except ImageError:
        return None
    target = size if roi is None else (roi.box[3], roi.box[2])
    with torch.inference_mode():
        wide = functional.interpolate(part.map[index][None, None], size=target, mode="bilinear")
    heat = wide[0, 0].numpy()
    heat = heat if roi is None else roi.place(heat, size)
    name = f"maps/{stem}.{kind}"
    with store.replacing(out / name) as temporary:
        if kind == "npy":
            with temporary.open("wb") as stream:
                np.save(stream, heat, allow_pickle=False)
        else:
            Image.fromarray(heat).save(temporary, format="TIFF")
    return name


def write_table(out: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write results.csv: a line for each region, one line for an image without any."""
    with (
        store.replacing(out / TABLE) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        table = csv.writer(stream)
        table.writerow(_COLUMNS)
        for row in rows:
            head = [row["path"], row["score"], row["p_value"], row["is_anomalous"]]
            for number, region in enumerate(row.get("regions") or [], 1):
                places = [*region["box"], region["area"], region["peak"]]
                places += [*region["peak_at"], *region["centre"]]
                table.writerow([*head, number, *places, row["error"]])
            if not row.get("regions"):
                table.writerow([*head, *[""] * (len(_COLUMNS) - len(head) - 1), row["error"]])
    return out / TABLE
