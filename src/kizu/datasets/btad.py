"""BTAD, beanTech Anomaly Detection (3 products, 2,540 images): flaws of body and surface."""

from __future__ import annotations

from pathlib import Path

from kizu.datasets._categories import Counts, counts_by_split, read_categories
from kizu.masks import MaskRule
from kizu.samples import Samples, Wanted

LICENCE = "none stated with the archive (anomalib names CC BY-NC-SA 4.0)"
CITATION = (
    "P. Mishra, R. Verk, D. Fornasier, C. Piciarelli, G. L. Foresti: VT-ADL: A Vision Transformer Network "
    "for Image Anomaly Detection and Localization, ISIE 2021"
)
HOMEPAGE = "http://avires.dimi.uniud.it/papers/btad/btad.zip"
MASK_RULE: MaskRule = "half"
"""0/255; copies that went through a lossy format have grey edges."""

COUNTS: Counts = {"01": (400, 21, 49), "02": (399, 30, 200), "03": (1000, 400, 41)}
"""Numbers of each product: good training, good test and defective test images (1,799 / 451 / 290 in all)."""


def btad(path: Path | str, *, category: Wanted = None, split: Wanted = None) -> Samples:
    """<product>/train/ok, test/ok, test/ko and ground_truth/ko, as in BTech_Dataset_transformed/.

    Images are BMP (01, 03) or PNG (02), masks PNG (01, 02) or BMP (03); they are paired by their names
    without the suffix. path: the folder of the products, or one product's own folder. `defect` is "ko", the
    data set names no kinds. category, split: take only these. Every image of test/ko must have its mask.
    Raises LayoutError, UnknownName for a product that is not there, EmptyData, MaskError."""
    return read_categories(
        path, "btad", title="BTAD", official=COUNTS, category=category, split=split, good="ok"
    )


def expected_counts() -> dict[tuple[str, str | None, int], int]:
    """(product, split, label) -> number of images of the archive."""
    return counts_by_split(COUNTS)
