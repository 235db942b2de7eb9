"""MVTec AD (15 products and textures, 73 kinds of defect), and any folder laid out like it."""

from __future__ import annotations

from pathlib import Path

from kizu.datasets._layout import chosen, folders_in, need_good, read_tree, root_of, to_samples, unread
from kizu.errors import LayoutError, some
from kizu.masks import MaskRule
from kizu.samples import Samples, Wanted

LICENCE = "CC BY-NC-SA 4.0 (not for commercial use)"
CITATION = (
    "P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger, C. Steger: The MVTec Anomaly Detection Dataset, "
    "IJCV 129, 2021; P. Bergmann, M. Fauser, D. Sattlegger, C. Steger: MVTec AD, CVPR 2019"
)
HOMEPAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad"
MASK_RULE: MaskRule = "half"

COUNTS = {
    "bottle": (209, 20, 63),
    "cable": (224, 58, 92),
    "capsule": (219, 23, 109),
    "carpet": (280, 28, 89),
    "grid": (264, 21, 57),
    "hazelnut": (391, 40, 70),
    "leather": (245, 32, 92),
    "metal_nut": (220, 22, 93),
    "pill": (267, 26, 141),
    "screw": (320, 41, 119),
    "tile": (230, 33, 84),
    "toothbrush": (60, 12, 30),
    "transistor": (213, 60, 40),
    "wood": (247, 19, 60),
    "zipper": (240, 32, 119),
}
"""Published counts of each category: good training, good test and defective test images (3,629 / 467 / 1,258
in all)."""


def mvtec(path: Path | str, *, category: Wanted = None, split: Wanted = None) -> Samples:
    """<category>/train/good, test/good, test/<defect> and ground_truth/<defect>/<image>_mask.png.

    path: the folder of the categories, or one category's own folder. A category is called by its folder's
    name, or by the official category that the name ends in ("mvtec-screw" -> "screw"). Folders that are not
    laid out so are passed over. category, split: take only these. Every defective image must have its mask.

    Raises LayoutError, UnknownName for a category that is not there, EmptyData, MaskError.
    """
    root = root_of(path, "mvtec")
    by_name: dict[str, Path] = {}
    for place in [root] if _is_category(root) else folders_in(root):
        if _is_category(place) and by_name.setdefault(_name(place), place) is not place:
            raise LayoutError(
                f"{root} holds the category {_name(place)} twice: {by_name[_name(place)].name}, "
                f"{place.name}. Keep one."
            )
    if not by_name:
        inside = [sub.name for sub in folders_in(root)]
        raise LayoutError(
            f"{root} holds no category: <category>/train/good and <category>/test were expected; there are: "
            f"{some(inside) or 'none'}."
        )
    rows, names = [], chosen(category, list(by_name), "category")
    for name in names:
        folder = by_name[name]
        if not (folder / "test").is_dir() or not (folder / "ground_truth").is_dir():
            raise LayoutError(
                f"{folder} lacks test/ or ground_truth/, which MVTec AD has beside train/. For a folder "
                "without, use 'folder'."
            )
        part = read_tree(
            folder, category=name, good=("good",), masks=folder / "ground_truth", splits=("train", "test")
        )
        need_good(part, folder, ("good",))
        rows += part
    found = unread(rows, [by_name[name] for name in names])
    return to_samples(rows, "mvtec", found).where(split=split)


def expected_counts() -> dict[tuple[str, str | None, int], int]:
    """(category, split, label) -> published number of images."""
    keys = (("train", 0), ("test", 0), ("test", 1))
    return {
        (name, split, label): n
        for name, counts in COUNTS.items()
        for (split, label), n in zip(keys, counts, strict=True)
    }


def _is_category(folder: Path) -> bool:
    return (folder / "train" / "good").is_dir()


def _name(folder: Path) -> str:
    tail = folder.name.lower().replace("-", "_")
    return next((name for name in COUNTS if tail.endswith(f"_{name}")), folder.name)
