"""Data sets laid out as MVTec AD is: <category>/train, test and ground_truth, in folders of classes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from kizu.datasets._layout import chosen, folders_in, need_good, read_tree, root_of, to_samples, unread
from kizu.errors import LayoutError, some
from kizu.samples import Samples, Wanted

Counts = dict[str, tuple[int, int, int]]
"""Category -> published numbers of good training, good test and defective test images."""


def read_categories(
    path: Path | str,
    dataset: str,
    *,
    title: str,
    official: Collection[str],
    category: Wanted,
    split: Wanted,
    good: str = "good",
) -> Samples:
    """Samples of <category>/train/<good>, test/<good>, test/<defect> and ground_truth/<defect>.

    path: the folder of the categories, or one category's own folder. A category is called by its folder's
    name, or by the official category that the name ends in ("mvtec-screw" -> "screw"). Folders that are not
    laid out so are passed over. title: what messages call the data set. Every defective image must have its
    mask. Raises LayoutError, UnknownName for a category that is not there, EmptyData, MaskError."""
    root = root_of(path, dataset)
    by_name: dict[str, Path] = {}
    for place in [root] if _is_category(root, good) else folders_in(root):
        name = _name(place, official)
        if _is_category(place, good) and by_name.setdefault(name, place) is not place:
            raise LayoutError(
                f"{root} holds the category {name} twice: {by_name[name].name}, {place.name}. Keep one."
            )
    if not by_name:
        inside = [sub.name for sub in folders_in(root)]
        raise LayoutError(
            f"{root} holds no category: <category>/train/{good} and <category>/test were expected; there "
            f"are: {some(inside) or 'none'}."
        )
    rows, names = [], chosen(category, list(by_name), "category")
    for name in names:
        folder = by_name[name]
        if not (folder / "test").is_dir() or not (folder / "ground_truth").is_dir():
            raise LayoutError(
                f"{folder} lacks test/ or ground_truth/, which {title} has beside train/. For a folder "
                "without, use 'folder'."
            )
        part = read_tree(
            folder, category=name, good=(good,), masks=folder / "ground_truth", splits=("train", "test")
        )
        need_good(part, folder, (good,))
        rows += part
    found = unread(rows, [by_name[name] for name in names])
    return to_samples(rows, dataset, found).where(split=split)


def categories_in(
    root: Path, is_category: Callable[[Path], bool], *, noun: str, expected: str
) -> dict[str, Path]:
    """The categories below a folder, or the folder itself where it is one, by name. noun: what they are
    called; expected: what one holds. Raises LayoutError where there is none."""
    places = [root] if is_category(root) else folders_in(root)
    by_name = {place.name: place for place in places if is_category(place)}
    if not by_name:
        inside = some([sub.name for sub in folders_in(root)]) or "none"
        raise LayoutError(f"{root} holds no {noun}: {expected} were expected; there are: {inside}.")
    return by_name


def counts_by_split(counts: Counts) -> dict[tuple[str, str | None, int], int]:
    """(category, split, label) -> published number of images."""
    keys = (("train", 0), ("test", 0), ("test", 1))
    return {
        (name, split, label): n
        for name, three in counts.items()
        for (split, label), n in zip(keys, three, strict=True)
    }


def _is_category(folder: Path, good: str) -> bool:
    return (folder / "train" / good).is_dir()


def _name(folder: Path, official: Collection[str]) -> str:
    tail = folder.name.lower().replace("-", "_")
    return next((name for name in official if tail.endswith(f"_{name}")), folder.name)
