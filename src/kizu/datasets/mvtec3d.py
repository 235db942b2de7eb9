"""MVTec 3D-AD (10 products, 4,147 scans): its colour images. The 3-D points (xyz) are not read."""

from __future__ import annotations

from pathlib import Path

from kizu.datasets._categories import categories_in
from kizu.datasets._layout import chosen, folders_in, images_in, need_good, root_of, to_samples, unread
from kizu.datasets._masks import Row, pair
from kizu.errors import EmptyData, LayoutError, some
from kizu.images import list_images
from kizu.masks import MaskRule
from kizu.samples import Samples, Wanted

LICENCE = "CC BY-NC-SA 4.0 (not for commercial use)"
CITATION = (
    "P. Bergmann, X. Jin, D. Sattlegger, C. Steger: The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly "
    "Detection and Localization, VISAPP 2022"
)
HOMEPAGE = "https://www.mvtec.com/company/research/datasets/mvtec-3d-ad"
MASK_RULE: MaskRule = "nonzero"
"""The grey value of a mask is a number of the defect: images of combined defects have several."""

COUNTS = {
    "bagel": (244, 22, 22, 88),
    "cable_gland": (223, 23, 21, 87),
    "carrot": (286, 29, 27, 132),
    "cookie": (210, 22, 28, 103),
    "dowel": (288, 34, 26, 104),
    "foam": (236, 27, 20, 80),
    "peach": (361, 42, 26, 106),
    "potato": (300, 33, 22, 92),
    "rope": (298, 33, 32, 69),
    "tire": (210, 29, 25, 87),
}
"""Published counts of each product: training, validation, good test and defective test images (2,656 / 294 /
249 / 948 in all)."""


def mvtec3d(path: Path | str, *, category: Wanted = None, split: Wanted = None) -> Samples:
    """<product>/{train,validation}/good/rgb, test/<class>/rgb, and test/<class>/gt with masks of their names.

    path: the folder of the products, or one product's own folder. Validation images are good and have no
    split: they may serve calibration. Masks of good images mark nothing and are left aside, as are the
    folders xyz. category, split: take only these. Raises LayoutError, UnknownName for a product that is not
    there, EmptyData, MaskError for images and masks that do not pair."""
    root = root_of(path, "mvtec3d")
    by_name = categories_in(
        root, _is_category, noun="product", expected="<product>/train/good/rgb and <product>/test"
    )
    rows, names = [], chosen(category, list(by_name), "category")
    for name in names:
        part = _read(by_name[name])
        need_good(part, by_name[name], ("good",))
        rows += part
    folders = [by_name[name] for name in names]
    points = [file for folder in folders for xyz in folder.glob("*/*/xyz") for file in xyz.iterdir()]
    return to_samples(rows, "mvtec3d", unread(rows, folders, aside=points)).where(split=split)


def expected_counts() -> dict[tuple[str, str | None, int], int]:
    """(product, split, label) -> published number of images; no split: validation."""
    keys = (("train", 0), (None, 0), ("test", 0), ("test", 1))
    return {
        (name, split, label): n
        for name, four in COUNTS.items()
        for (split, label), n in zip(keys, four, strict=True)
    }


def _read(folder: Path) -> list[Row]:
    """Rows of one product."""
    if not (folder / "test").is_dir():
        raise LayoutError(f"{folder} lacks test/, which MVTec 3D-AD has beside train/.")
    name = folder.name
    rows = [Row(image, name, "good", 0, "train") for image in _colour(folder / "train" / "good")]
    if (folder / "validation" / "good").is_dir():
        rows += [Row(image, name, "good", 0) for image in _colour(folder / "validation" / "good")]
    for sub in folders_in(folder / "test"):
        images = _colour(sub)
        if sub.name == "good":
            rows += [Row(image, name, "good", 0, "test") for image in images]
            continue
        masks = pair(images, list_images(sub / "gt") if (sub / "gt").is_dir() else [], where=sub / "gt")
        rows += [Row(image, name, sub.name, 1, "test", masks[image]) for image in images]
    return rows


def _colour(folder: Path) -> list[Path]:
    """The colour images of one class."""
    if not (folder / "rgb").is_dir():
        inside = some([sub.name for sub in folders_in(folder)]) or "none"
        raise LayoutError(f"{folder} holds no folder rgb of colour images; there are: {inside}.")
    images = images_in(folder / "rgb")
    if not images:
        raise EmptyData(f"{folder / 'rgb'} is there, but holds no image. Put images into it, or remove it.")
    return images


def _is_category(folder: Path) -> bool:
    return (folder / "train" / "good" / "rgb").is_dir()
