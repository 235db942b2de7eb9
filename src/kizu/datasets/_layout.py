"""Folders of images -> rows. Images and masks are paired by name, never by order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from kizu.errors import EmptyData, LayoutError, MaskError, UnknownName, some
from kizu.images import is_image, list_images
from kizu.sample_table import SCHEMA
from kizu.samples import Samples

MASK_SUFFIXES = ("_mask", "_label", "_gt")
"""What a mask's name may have after the name of its image: 007.png -> 007.png, 007_mask.png, 007_label.png,
007_gt.png."""


class Row(NamedTuple):
    """One image on its way into Samples."""

    image: Path
    category: str
    defect: str
    label: int | None
    split: str | None = None
    mask: Path | None = None
    view: str | None = None
    group: str | None = None


def to_samples(rows: Iterable[Row], dataset: str) -> Samples:
    """Rows -> Samples, in the order given."""
    records = [
        (
            str(r.image),
            r.mask and str(r.mask),
            r.label,
            r.category,
            r.defect,
            r.split,
            r.view,
            r.group,
            dataset,
        )
        for r in rows
    ]
    return Samples(pl.DataFrame(records, schema=SCHEMA, orient="row"))


def root_of(path: Path | str, dataset: str) -> Path:
    """The absolute path of an existing folder. Raises LayoutError."""
    root = Path(path).absolute()
    if not root.exists():
        raise LayoutError(
            f"{root}: there is no such folder. The data set '{dataset}' wants the folder that holds its "
            "images."
        )
    if not root.is_dir():
        raise LayoutError(
            f"{root} is a file; the data set '{dataset}' wants the folder that holds its images."
        )
    return root


def chosen(wanted: str | Collection[str] | None, known: Sequence[str], kind: str) -> list[str]:
    """The wanted ones of the known names, in the order of `known`; all for None. Raises UnknownName."""
    names = list(known) if wanted is None else [wanted] if isinstance(wanted, str) else list(wanted)
    for name in names:
        if name not in known:
            raise UnknownName(kind, name, known)
    return [name for name in known if name in names]


def folders_in(folder: Path) -> list[Path]:
    """Visible folders directly in a folder, sorted by name."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def images_in(folder: Path) -> list[Path]:
    """Images of a folder that should hold nothing but images of one class.

    Raises LayoutError when it holds folders of images, two images of one name (a.jpg, a.png), or what looks
    like masks beside images."""
    images = list_images(folder)
    inner = [sub.name for sub in folders_in(folder) if any(is_image(entry) for entry in sub.iterdir())]
    if inner:
        raise LayoutError(
            f"{folder} should hold images of one class, but it holds folders of images: {some(inner)}."
        )
    stems: dict[str, Path] = {}
    for image in images:
        other = stems.setdefault(image.stem, image)
        if other is not image:
            raise LayoutError(
                f"{folder} holds two images of one name: {other.name}, {image.name}. If one is a mask, move "
                "it to a mask folder."
            )
    beside = [
        image.name
        for image in images
        if any(image.stem.endswith(s) and image.stem.removesuffix(s) in stems for s in MASK_SUFFIXES)
    ]
    if beside:
        raise LayoutError(
            f"{folder} holds masks beside images: {some(beside)}. Move them to a mask folder, such as "
            "ground_truth/."
        )
    return images


def pair(images: Sequence[Path], masks: Sequence[Path], *, where: Path) -> dict[Path, Path]:
    """Image -> its mask, by name: the image's stem, or the stem and one of MASK_SUFFIXES.

    Raises MaskError, with the files, for images without a mask, masks without an image, an image with two
    masks, and images of one name."""
    by_stem: dict[str, Path] = {}
    for image in images:
        other = by_stem.setdefault(image.stem, image)
        if other is not image:
            raise MaskError(
                f"{where}: masks cannot be distinguished, two images have the name {image.stem}: {other}, "
                f"{image}."
            )
    mask_of: dict[Path, Path] = {}
    extra: list[str] = []
    for mask in masks:
        owner = next((by_stem[stem] for stem in _stems(mask) if stem in by_stem), None)
        if owner is None:
            extra.append(mask.name)
        elif owner in mask_of:
            raise MaskError(
                f"{owner} has two masks: {mask_of[owner].name}, {mask.name} in {where}. Keep one."
            )
        else:
            mask_of[owner] = mask
    missing = [image.name for image in images if image not in mask_of]
    if missing or extra:
        raise MaskError(_unpaired(missing, extra, where))
    return mask_of


def read_tree(
    folder: Path, *, category: str, good: Collection[str], masks: Path | None, splits: Sequence[str]
) -> list[Row]:
    """Rows of <folder>/<split>/<class>/<image>, for the splits given; class names in `good` (lower case) are
    normal.

    Images directly in train/ are normal as well. `masks`: the folder of masks, or None to go without; see
    `add_masks`."""
    rows: list[Row] = []
    for split in splits:
        rows += read_classes(
            folder / split, category=category, good=good, split=split, bare_is_good=split == "train"
        )
    return add_masks(rows, masks) if masks else rows


def read_classes(
    folder: Path,
    *,
    category: str,
    good: Collection[str],
    split: str | None,
    bare_is_good: bool,
    skip: Path | None = None,
) -> list[Row]:
    """Rows of <folder>/<class>/<image>. bare_is_good: the folder may hold normal images directly instead.
    skip: a folder to pass over."""
    classes = [sub for sub in folders_in(folder) if sub != skip and list_images(sub)]
    bare = list_images(folder)
    if bare and classes:
        raise LayoutError(
            f"{folder} holds both images ({some([b.name for b in bare], 3)}) and folders of images "
            f"({some([c.name for c in classes])})."
        )
    if bare and not bare_is_good:
        raise LayoutError(
            f"{folder} holds images directly, so which are good? Put them in {folder.name}/good and "
            f"{folder.name}/<defect>."
        )
    if bare:
        return [Row(image, category, "good", 0, split) for image in images_in(folder)]
    rows: list[Row] = []
    for sub in classes:
        normal = sub.name.lower() in good
        rows += [
            Row(image, category, "good" if normal else sub.name, int(not normal), split)
            for image in images_in(sub)
        ]
    return rows


def add_masks(rows: list[Row], masks: Path) -> list[Row]:
    """Give each anomalous row its mask from <masks>/<split>/<class>, <masks>/<class> or <masks> itself;
    raises MaskError as `pair` does."""
    flat = list_images(masks)
    bad = [row for row in rows if row.label == 1]
    if flat:
        mask_of = pair([row.image for row in bad], flat, where=masks)
        return [row._replace(mask=mask_of.get(row.image)) for row in rows]
    mask_of = {}
    classes = {(row.split, row.image.parent.name) for row in bad}
    used: set[Path] = set()
    for split, name in sorted(classes, key=str):
        images = [row.image for row in bad if (row.split, row.image.parent.name) == (split, name)]
        place = masks / split / name if split and (masks / split / name).is_dir() else masks / name
        used.add(place)
        if not place.is_dir():
            raise MaskError(_unpaired([image.name for image in images], [], place))
        mask_of |= pair(images, list_images(place), where=place)
    normal = {row.image.parent.name for row in rows if row.label == 0}
    used |= {masks / name for name in normal}
    unused = [place for place in folders_in(masks) if place not in used]
    orphans = [f"{place.name}/ ({len(list_images(place))} masks)" for place in unused if list_images(place)]
    if orphans:
        raise MaskError(
            f"{masks} holds masks of classes that have no images: {some(orphans)}. Remove them, or give "
            "their images."
        )
    return [row._replace(mask=mask_of.get(row.image)) for row in rows]


def need_good(rows: Sequence[Row], folder: Path, good: Collection[str]) -> None:
    """Raise EmptyData when no row is normal."""
    if not rows:
        raise EmptyData(f"{folder} holds no images (by suffix: .png, .jpg, .bmp, .tif, ...).")
    if not any(row.label == 0 for row in rows):
        names = sorted({row.image.parent.name for row in rows})
        raise EmptyData(
            f"{folder} holds no good images. A folder named {' or '.join(sorted(good))} was expected; there "
            f"are: {some(names)}."
        )


def _stems(mask: Path) -> list[str]:
    return [mask.stem, *(mask.stem.removesuffix(s) for s in MASK_SUFFIXES if mask.stem.endswith(s))]


def _unpaired(missing: list[str], extra: list[str], where: Path) -> str:
    parts = []
    if missing:
        parts.append(f"{len(missing)} images without a mask: {some(missing)}")
    if extra:
        parts.append(f"{len(extra)} masks without an image: {some(extra)}")
    return (
        f"{where}: "
        + "; ".join(parts)
        + ". A mask has the name of its image, or that name and _mask, _label or _gt."
    )
