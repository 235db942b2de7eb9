"""MVTec AD (15 products and textures, 73 kinds of defect), and any folder laid out like it."""

from __future__ import annotations

from pathlib import Path

from kizu.datasets._categories import Counts, counts_by_split, read_categories
from kizu.masks import MaskRule
from kizu.samples import Samples, Wanted

LICENCE = "CC BY-NC-SA 4.0 (not for commercial use)"
CITATION = (
    "P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger, C. Steger: The MVTec Anomaly Detection Dataset, "
    "IJCV 129, 2021; P. Bergmann, M. Fauser, D. Sattlegger, C. Steger: MVTec AD, CVPR 2019"
)
HOMEPAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad"
MASK_RULE: MaskRule = "half"

COUNTS: Counts = {
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
    return read_categories(path, "mvtec", title="MVTec AD", official=COUNTS, category=category, split=split)


def expected_counts() -> dict[tuple[str, str | None, int], int]:
    """(category, split, label) -> published number of images."""
    return counts_by_split(COUNTS)
