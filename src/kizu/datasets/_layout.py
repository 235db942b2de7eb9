"""Folders of images -> rows. Images and masks are paired by name, never by order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import polars as pl

from kizu.checks import check_name
from kizu.datasets._masks import MASK_SUFFIXES, Row, add_masks
from kizu.errors import EmptyData, LayoutError, UnknownName, is_utf8, some
from kizu.image_files import (
    READABLE,
    Found,
    further_pages,
    images_below,
    inside,
    list_images,
    look_below,
    why_passed_over,
)
from kizu.sample_table import SCHEMA
from kizu.samples import Samples


def to_samples(rows: Iterable[Row], dataset: str, found: Found | None = None) -> Samples:
    """Rows -> Samples, in the order given. found: what else lies there; see `not_in`."""
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
    found = found or Found()
    table = pl.DataFrame(records, schema=SCHEMA, orient="row")
    return Samples(table, unused=found.unused, passed_over=found.passed_over)


def not_in(rows: Sequence[Row], root: Path, masks: Path | None) -> Found:
    """What lies below a folder and is neither an image of the rows nor a mask, each with the reason."""
    found, used = look_below(root), {row.image for row in rows}
    real = {image.resolve() for image in used}
    for image in found.images:
        if image in used or (masks is not None and image.is_relative_to(masks)) or image.resolve() in real:
            continue
        place = image.relative_to(root).parent.as_posix()
        where = f"lies in {place}/" if place != "." else "lies beside the folders"
        found.unused.append((str(image), f"{where}, which this layout does not read."))
    for image in used:
        found.unused += further_pages(image)
    found.passed_over = [note for note in found.passed_over if masks is None or Path(note[0]) != masks]
    return found


def unread(
    rows: Sequence[Row],
    folders: Iterable[Path],
    *,
    aside: Collection[Path] = (),
    why: str = "which this layout does not read there",
) -> Found:
    """What lies below the folders of a published data set and is neither an image nor a mask of the rows.

    aside: other files that belong to the data set. why: what is said of an image that no row names.
    Folders of masks are its own, and are not said."""
    known = {row.image for row in rows} | {row.mask for row in rows} | set(aside)
    every = Found()
    for folder in folders:
        found = look_below(folder)
        every.unused += found.unused
        every.passed_over += [note for note in found.passed_over if note[1] != "a folder of masks"]
        for image in found.images:
            if image not in known:
                place = image.parent.relative_to(folder.parent).as_posix()
                every.unused.append((str(image), f"lies in {place}/, {why}."))
    for row in rows:
        every.unused += further_pages(row.image)
    return every


def root_of(path: Path | str, dataset: str) -> Path:
    """The absolute path of an existing folder, with a name that is UTF-8. Raises LayoutError."""
    root = Path(path).absolute()
    check_name(root)
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
    """Folders directly in a folder, sorted by name: no hidden one, none that kizu wrote, no link back."""
    real = folder.resolve()
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.is_dir()
        and is_utf8(entry.name)
        and why_passed_over(entry) in ("", "a folder of masks")
        and not real.is_relative_to(entry.resolve())
    )


def images_in(folder: Path) -> list[Path]:
    """Images of a folder that should hold nothing but images of one class, in folders of their own or not.

    Raises LayoutError when a folder holds two images of one name (a.jpg, a.png), or what looks like masks
    beside images."""
    images = look_below(folder).images
    places = list(dict.fromkeys(image.parent for image in images))
    for place in places:
        _check_names(place, [image for image in images if image.parent == place])
    return images


def _check_names(folder: Path, images: Sequence[Path]) -> None:
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


def read_tree(
    folder: Path, *, category: str, good: Collection[str], masks: Path | None, splits: Sequence[str]
) -> list[Row]:
    """Rows of <folder>/<split>/<class>/<image>, for the splits given; class names in `good` (lower case) are
    normal.

    Images directly in train/ are normal as well. `masks`: the folder of masks, or None to go without; see
    `add_masks`."""
    rows: list[Row] = []
    for name in splits:
        split = name.lower()
        part = read_classes(
            folder / name, category=category, good=good, split=split, bare_is_good=split == "train"
        )
        if not part:
            raise EmptyData(
                f"{folder / name} is there, but yields no image: {inside(folder / name)}. Put images into "
                "it, or remove it."
            )
        rows += part
    return add_masks(rows, masks) if masks else rows


def read_classes(
    folder: Path,
    *,
    category: str,
    good: Collection[str],
    split: str | None,
    bare_is_good: bool,
    skip: Collection[Path | None] = (),
) -> list[Row]:
    """Rows of <folder>/<class>/<image>. bare_is_good: the folder may hold normal images directly instead.
    skip: folders to pass over."""
    classes = [
        sub
        for sub in folders_in(folder)
        if sub not in skip and not why_passed_over(sub) and images_below(sub)
    ]
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
        defect = "good" if normal else sub.name
        for image in images_in(sub):
            within = image.parent.relative_to(sub).as_posix()
            inner = "" if within == "." else within
            rows.append(Row(image, category, defect, int(not normal), split, inner=inner))
    return rows


def need_good(rows: Sequence[Row], folder: Path, good: Collection[str]) -> None:
    """Raise EmptyData when no row is normal, LayoutError when good ones seem to lie deeper."""
    if not rows:
        raise EmptyData(f"{folder} holds no images: {inside(folder)}. {READABLE}.")
    if not any(row.label == 0 for row in rows):
        deeper = {row.image.parent for row in rows if set(row.inner.lower().split("/")) & set(good)}
        if deeper:
            raise LayoutError(
                f"{folder} holds good images too deep, in {some(sorted(map(str, deeper)))}. Give the folder "
                "right above it."
            )
        names = sorted({row.defect for row in rows})
        raise EmptyData(
            f"{folder} holds no good images. A folder named {' or '.join(sorted(good))} was expected; there "
            f"are: {some(names)}."
        )
