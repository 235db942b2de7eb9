"""Masks and the rows that they belong to, paired by name, never by order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kizu.errors import MaskError, counted, some
from kizu.image_files import images_below, list_images

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
    inner: str = ""
    """Folder of the image below that of its class, "" directly in it."""


def pair(
    images: Sequence[Path], masks: Sequence[Path], *, where: Path, others: Sequence[Path] = ()
) -> dict[Path, Path]:
    """Image -> its mask, by name: the image's stem, or the stem and one of MASK_SUFFIXES.

    others: images that need none; masks of theirs are left aside. Raises MaskError, with the files, for
    images without a mask, masks without an image, an image with two masks, and images of one name."""
    by_stem: dict[str, Path] = {}
    for image in images:
        other = by_stem.setdefault(image.stem, image)
        if other is not image:
            raise MaskError(
                f"{where}: masks cannot be distinguished, two images have the name {image.stem}: {other}, "
                f"{image}."
            )
    needless = {image.stem for image in others}
    mask_of: dict[Path, Path] = {}
    extra: list[str] = []
    for mask in masks:
        owner = next((by_stem[stem] for stem in _stems(mask) if stem in by_stem), None)
        if owner is None:
            extra += [] if needless.intersection(_stems(mask)) else [mask.name]
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


def add_masks(rows: list[Row], masks: Path) -> list[Row]:
    """Give each anomalous row its mask from <masks>/<split>/<class>, <masks>/<class> or <masks> itself, or
    from folders in there named as those of the images.

    Masks of good images are left aside: they mark nothing. Raises MaskError as `pair` does, and for masks of
    classes that have no images."""
    bad = [row for row in rows if row.label == 1]
    good = [row.image for row in rows if row.label == 0]
    flat = list_images(masks)
    if flat:
        mask_of = pair([row.image for row in bad], flat, where=masks, others=good)
        return [row._replace(mask=mask_of.get(row.image)) for row in rows]
    mask_of, places = {}, dict[Path, list[Path]]()
    for row in bad:
        places.setdefault(_place(row, masks), []).append(row.image)
    for place, images in sorted(places.items()):
        if not place.is_dir():
            raise MaskError(_unpaired([image.name for image in images], [], place))
        mask_of |= pair(images, list_images(place), where=place)
    known = {_class_folder(row).name for row in rows}
    orphans = [
        f"{place.name}/ ({counted(len(images_below(place)), 'mask')})"
        for place in _folders_of_classes(masks, rows)
        if place.name not in known and images_below(place)
    ]
    if orphans:
        raise MaskError(
            f"{masks} holds masks of classes that have no images: {some(orphans)}. Remove them, or give "
            "their images."
        )
    return [row._replace(mask=mask_of.get(row.image)) for row in rows]


def _place(row: Row, masks: Path) -> Path:
    """The folder that should hold the mask of a row."""
    name = _class_folder(row).name
    of_split = masks / row.split / name if row.split else masks
    place = of_split if row.split and of_split.is_dir() else masks / name
    return place / row.inner if row.inner and (place / row.inner).is_dir() else place


def _class_folder(row: Row) -> Path:
    return row.image.parents[len(Path(row.inner).parts)]


def _folders_of_classes(masks: Path, rows: Sequence[Row]) -> Iterator[Path]:
    """Folders in that of the masks, those of splits opened."""
    splits = {row.split for row in rows if row.split}
    for entry in sorted(masks.iterdir()):
        if not entry.is_dir() or entry.name.startswith("."):
            continue
        if entry.name in splits:
            yield from (inner for inner in sorted(entry.iterdir()) if inner.is_dir())
        else:
            yield entry


def _stems(mask: Path) -> list[str]:
    return [mask.stem, *(mask.stem.removesuffix(s) for s in MASK_SUFFIXES if mask.stem.endswith(s))]


def _unpaired(missing: list[str], extra: list[str], where: Path) -> str:
    parts = []
    if missing:
        parts.append(f"{counted(len(missing), 'image')} without a mask: {some(missing)}")
    if extra:
        parts.append(f"{counted(len(extra), 'mask')} without an image: {some(extra)}")
    return (
        f"{where}: "
        + "; ".join(parts)
        + ". A mask has the name of its image, or that name and _mask, _label or _gt."
    )
