"""Your own images: a folder of good ones, good/ beside folders of defects, train/ and test/, or a CSV
file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from kizu import checks
from kizu.datasets._layout import (
    folders_in,
    images_in,
    need_good,
    not_in,
    read_classes,
    read_tree,
    root_of,
    to_samples,
)
from kizu.datasets._masks import Row, add_masks
from kizu.errors import ImageError, LayoutError, UsageError, some
from kizu.image_files import MASK_NAMES, images_below, list_images, plain_name, why_passed_over
from kizu.images import open_image
from kizu.masks import MaskRule, checked_rule
from kizu.samples import Samples

LICENCE = "your own"
CITATION = "none"
HOMEPAGE = "none"
MASK_RULE: MaskRule = "half"
GOOD_NAMES = ("good", "ok", "normal")
"""Class folders, in any case, that hold normal images."""
SPLITS = ("train", "test")
"""Folders, in any case, that are splits. Others beside them, such as val/, are not read, and said."""
OTHER_SPLITS = ("val", "valid", "validation", "calib", "calibration", "holdout", "dev", "eval")
"""Folders, in any case, that are splits of other people's: no defect has such a name."""


def folder(
    path: Path | str,
    *,
    category: str | None = None,
    mask_folder: Path | str | None = None,
    use_masks: bool = True,
    good: Sequence[str] = GOOD_NAMES,
    mask_rule: MaskRule | None = None,
) -> Samples:
    """Images of a folder, by whichever of these layouts it has.

        images only                         all normal, split train
        good/  scratch/  dent/ ...          split null (a protocol splits them); good/ may be alone
        train/ and/or test/, with good/     split as said; images directly in train/ are good
        and defect folders in them          (one that is not there is empty)
        a .csv file                         the columns of Samples; relative paths are meant from its folder

    category: what to call the product (default: the name of the folder). good: names of the folders of normal
    images, in any case. Folders within those of splits and classes are read too, at any depth. Masks are used
    when there is a folder ground_truth/, masks/, mask/ or gt/ below `path` (in any case), or the given
    `mask_folder` (absolute, or from `path`): then every anomalous image must have one, in <masks>/<class>/ or
    in <masks>/ itself, named as the image or with _mask, _label or _gt after it. use_masks=False goes
    without. mask_rule: how their grey values count, by default a value above half is a defect
    (`kizu.masks.open_mask`).

    Beside good/, folders named val/, validation/, holdout/ and the like, those with a good/ of their own, and
    those whose images have two values, as masks have, are no classes. Images that this layout does not read
    are in `unused` of the samples, each with the reason; hidden folders and what kizu wrote are in
    `passed_over`.

    Raises LayoutError for another layout, EmptyData without any image or any good one, and for a split that
    is there and yields none; MaskError for masks and images that do not pair; for a CSV what
    `Samples.from_csv` raises."""
    checks.switches(use_masks=use_masks)
    source = Path(path)
    if source.is_file() and source.suffix.lower() == ".csv":
        if mask_folder is not None or category is not None:
            raise UsageError(f"{source} is a CSV file: category and masks are columns of it, not arguments.")
        samples = Samples.from_csv(source)
        samples = samples if use_masks else Samples(samples.table.with_columns(mask=pl.lit(None, pl.String)))
        return samples.read_masks_by(checked_rule(mask_rule)) if mask_rule else samples
    root = root_of(source, "folder (a folder of images, or a .csv file)")
    if not isinstance(good, str) and not all(isinstance(name, str) for name in checks.listed(good=good)):
        raise UsageError(f"good is the name of a folder of normal images, or several, got {good!r}.")
    names = frozenset(name.lower() for name in ((good,) if isinstance(good, str) else good))
    masks = _mask_folder(root, mask_folder, use_masks)
    skip = _mask_folder(root, mask_folder, True)
    rows = _rows(root, category or root.name, names, masks, skip=skip)
    samples = to_samples(rows, "folder", not_in(rows, root, skip))
    return samples.read_masks_by(checked_rule(mask_rule)) if mask_rule else samples


def expected_counts() -> dict[tuple[str, str | None, int], int]:
    """Nothing: a folder promises no counts."""
    return {}


def _rows(
    root: Path, category: str, good: frozenset[str], masks: Path | None, *, skip: Path | None
) -> list[Row]:
    inner = [sub for sub in folders_in(root) if sub != skip and not why_passed_over(sub)]
    splits = [sub.name for sub in inner if sub.name.lower() in SPLITS]
    if splits:
        splits.sort(key=lambda name: SPLITS.index(name.lower()))
        rows = read_tree(root, category=category, good=good, masks=None, splits=splits)
        need_good(rows, root, good)
        return add_masks(rows, masks) if masks else rows
    _refuse_several(root, inner)
    bare = list_images(root)
    if bare and skip is not None:
        raise LayoutError(
            f"{root} holds images beside the mask folder {skip.name}/, so which are good? Put them in good/ "
            "and <defect>/, or use a CSV."
        )
    all_good = root.name.lower() in good and not any(sub.name.lower() in good for sub in inner)
    if all_good or (bare and not any(images_below(sub) for sub in inner)):
        return [Row(image, category, "good", 0, "train") for image in images_in(root)]
    aside = {sub for sub in inner if _is_no_class(sub, good)} | {skip}
    rows = read_classes(root, category=category, good=good, split=None, bare_is_good=False, skip=aside)
    need_good(rows, root, good)
    return add_masks(rows, masks) if masks else rows


def _mask_folder(root: Path, given: Path | str | None, wanted: bool) -> Path | None:
    if not wanted:
        return None
    if given is None:
        named = {plain_name(sub.name): sub for sub in folders_in(root)}
        return next((named[name] for name in MASK_NAMES if name in named), None)
    place = root / given
    if not place.is_dir():
        raise LayoutError(
            f"{place}: there is no such folder of masks. mask_folder is an absolute path, or one below "
            f"{root}."
        )
    return place


def _is_no_class(folder: Path, good: frozenset[str]) -> bool:
    """Whether a folder beside good/ is another split, a data set of its own, or holds masks."""
    inner = {sub.name.lower() for sub in folders_in(folder)}
    return folder.name.lower() in OTHER_SPLITS or bool(inner & good) or _holds_masks(folder)


def _holds_masks(folder: Path) -> bool:
    """Whether the first images of a folder have two values, as masks have and photographs have not."""
    first = images_below(folder)[:3]
    return bool(first) and all(_is_two_valued(image) for image in first)


def _is_two_valued(path: Path) -> bool:
    try:
        values = open_image(path)
    except ImageError:
        return False
    return bool(np.all((values == values.min()) | (values == values.max())) and values.min() < values.max())


def _refuse_several(root: Path, inner: list[Path]) -> None:
    """Raise LayoutError for a folder of data sets."""
    several = [sub.name for sub in inner if (sub / "train").is_dir()]
    if several:
        raise LayoutError(
            f"{root} holds several data sets: {some(several)}. Give one of them, or use the data set mvtec."
        )
