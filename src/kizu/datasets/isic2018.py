"""ISIC 2018, task 3: dermoscopic images of seven kinds of skin lesion; nevi (NV) are normal, the other six
are anomalous."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kizu.datasets._layout import folders_in, root_of, to_samples, unread
from kizu.datasets._masks import Row
from kizu.datasets._prepared import is_prepared, read_prepared, write_prepared
from kizu.errors import LayoutError, UsageError, counted, some
from kizu.images import list_images, resize_image
from kizu.masks import MaskRule
from kizu.samples import Samples, Wanted

LICENCE = "CC BY-NC 4.0 (not for commercial use)"
CITATION = (
    "N. Codella et al.: Skin Lesion Analysis Toward Melanoma Detection 2018, arXiv:1902.03368; "
    "P. Tschandl, C. Rosendahl, H. Kittler: The HAM10000 dataset, Scientific Data 5, 2018"
)
HOMEPAGE = "https://challenge.isic-archive.com/data/#2018"
MASK_RULE: MaskRule = "half"
"""There are no masks: image metrics only."""

KINDS = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
"""Columns of the ground truth: melanoma, nevus, basal cell carcinoma, actinic keratosis, benign keratosis,
dermatofibroma, vascular."""
NORMAL_KIND = "NV"
COUNTS = {"train": (6705, 3310), "test": (123, 70)}
"""Nevi and other lesions of the official training set (10,015) and of the official validation set (193),
which is the test set."""
_PARTS = {"train": "Training", "test": "Validation"}


def isic2018(path: Path | str, *, split: Wanted = None) -> Samples:
    """As downloaded: ISIC2018_Task3_{Training,Validation}_{Input,GroundTruth}, in `path` or in its folder
    original/; or as prepared.

    The split is that of AE-FLOW and ReContrast: the nevi of the training set are train, the whole official
    validation set is test; other lesions of the training set have no split. Where
    ISIC2018_Task3_Training_LesionGroupings.csv lies in `path`, `group` is the lesion, several of whose
    photographs may be in the training set. Prepared: {train,test}/NORMAL, test/<kind>, see `prepare`; they
    come first. Papers resize to 256 x 256 pixels and keep the central 224 x 224; images as downloaded have
    the whole border. Normal and anomalous images show different lesions, so the published image scores are
    means of the map, not its maximum. split: take only this one. Raises LayoutError."""
    given = root_of(path, "isic2018")
    if is_prepared(given):
        rows, places = read_prepared(given, "isic2018"), [given / "train", given / "test"]
    else:
        rows = _raw(given)
        places = sorted({row.image.parent for row in rows})
    return to_samples(rows, "isic2018", unread(rows, places)).where(split=split)


def prepare(
    path: Path | str,
    out: Path | str,
    *,
    resize: int = 256,
    crop: int = 224,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the split's images, resized to `resize` and cropped to their central `crop` pixels a side, as
    out/<split>/{NORMAL,<kind>} PNG.

    The folder appears whole or not at all. progress(done, total). Raises UsageError, LayoutError,
    OutputExists, ImageError."""
    if not 0 < crop <= resize:
        raise UsageError(f"crop is the side kept of resize, in pixels, from 1 to {resize}; got {crop}.")
    write_prepared(
        _raw(root_of(path, "isic2018")),
        out,
        partial(central, resize=resize, crop=crop),
        overwrite=overwrite,
        progress=progress,
    )


def central(image: NDArray[np.uint8], *, resize: int, crop: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 -> (crop, crop, 3) uint8: resized to (resize, resize), aspect not kept, and cut out of
    the middle."""
    start = round((resize - crop) / 2.0)
    return resize_image(image, (resize, resize))[start : start + crop, start : start + crop]


def expected_counts() -> dict[tuple[str, str | None, int], int]:
    """(category, split, label) -> published number of images."""
    (nevi, others), (good, bad) = COUNTS["train"], COUNTS["test"]
    name = "isic2018"
    return {
        (name, "train", 0): nevi,
        (name, None, 1): others,
        (name, "test", 0): good,
        (name, "test", 1): bad,
    }


def _raw(given: Path) -> list[Row]:
    root = next(
        (place for place in (given, given / "original") if _folder(place, "train", "Input").is_dir()), None
    )
    if root is None:
        there = some([sub.name for sub in folders_in(given)]) or "none"
        raise LayoutError(
            f"{given} holds neither ISIC2018_Task3_Training_Input nor the prepared train/NORMAL and "
            f"test/NORMAL; its folders: {there}."
        )
    lesions = _lesions(root)
    rows = []
    for split in _PARTS:
        images = _folder(root, split, "Input")
        for name, kind in _kinds(root, split).items():
            normal = kind == NORMAL_KIND
            kept = split if normal or split == "test" else None
            rows.append(
                Row(
                    images / f"{name}.jpg",
                    "isic2018",
                    "good" if normal else kind,
                    int(not normal),
                    kept,
                    group=lesions.get(name),
                )
            )
    return rows


def _folder(root: Path, split: str, what: str) -> Path:
    return root / f"ISIC2018_Task3_{_PARTS[split]}_{what}"


def _kinds(root: Path, split: str) -> dict[str, str]:
    """Image name -> kind of lesion, in the order of the list. Raises LayoutError when list and images
    disagree."""
    folder, images = _folder(root, split, "GroundTruth"), _folder(root, split, "Input")
    file = folder / f"{folder.name}.csv"
    if not file.is_file() or not images.is_dir():
        raise LayoutError(
            f"{file} and {images.name}/ belong together; {'the folder' if file.is_file() else 'the list'} is "
            "not there."
        )
    table = pl.read_csv(file, infer_schema=False)
    if table.columns != ["image", *KINDS]:
        raise LayoutError(
            f"{file} has the columns {', '.join(table.columns)}; image, {', '.join(KINDS)} are needed."
        )
    chosen = table.select(pl.col("image"), *(pl.col(kind).cast(pl.Float64, strict=False) for kind in KINDS))
    odd = [row[0] for row in chosen.iter_rows() if sorted(map(str, row[1:])) != ["0.0"] * 6 + ["1.0"]]
    if odd:
        raise LayoutError(
            f"{file}: each image has a 1 in one column and a 0 in the others, not so: {some(odd)}."
        )
    kinds = {row[0]: KINDS[row[1:].index(1.0)] for row in chosen.iter_rows()}
    there = {image.stem for image in list_images(images) if image.suffix == ".jpg"}
    missing, extra = [name for name in kinds if name not in there], sorted(there - kinds.keys())
    if missing or extra or len(kinds) < table.height:
        raise LayoutError(
            f"{file.name} and {images.name}/ disagree: "
            f"{counted(len(missing), 'image')} of the list are not there "
            f"({some(missing)}), {len(extra)} are not in the list ({some(extra)}), "
            f"{table.height - len(kinds)} are listed twice."
        )
    return kinds


def _lesions(root: Path) -> dict[str, str]:
    """Image name -> lesion, where the official list of them is at hand."""
    file = root / "ISIC2018_Task3_Training_LesionGroupings.csv"
    if not file.is_file():
        return {}
    table = pl.read_csv(file, infer_schema=False)
    if not {"image", "lesion_id"} <= set(table.columns):
        raise LayoutError(
            f"{file} has the columns {', '.join(table.columns)}; image and lesion_id are needed."
        )
    return dict(table.select("image", "lesion_id").iter_rows())
