"""MPDD, Metal Parts Defect Detection (6 metal parts, 1,346 images), in changing places, turns and light."""

from __future__ import annotations

from pathlib import Path

from kizu.datasets._categories import Counts, counts_by_split, read_categories
from kizu.masks import MaskRule
from kizu.samples import Samples, Wanted

LICENCE = "none stated by its authors (anomalib names CC BY-NC-SA 4.0)"
CITATION = (
    "S. Jezek, M. Jonak, R. Burget, P. Dvorak, M. Skotak: Deep learning-based defect detection of metal "
    "parts: evaluating current methods in complex conditions, ICUMT 2021"
)
HOMEPAGE = "https://github.com/stepanje/MPDD"
MASK_RULE: MaskRule = "nonzero"
"""As ADPretrain reads them: a pixel is a defect where the mask is not 0."""

COUNTS: Counts = {
    "bracket_black": (289, 32, 47),
    "bracket_brown": (185, 26, 51),
    "bracket_white": (110, 30, 30),
    "connector": (128, 30, 14),
    "metal_plate": (54, 26, 71),
    "tubes": (122, 32, 69),
}
"""Numbers of each part: good training, good test and defective test images (888 / 176 / 282 in all)."""


def mpdd(path: Path | str, *, category: Wanted = None, split: Wanted = None) -> Samples:
    """<part>/train/good, test/good, test/<defect> and ground_truth/<defect>/<image>_mask.png.

    path: the folder of the parts, or one part's own folder. category, split: take only these. Every defective
    image must have its mask. Raises LayoutError, UnknownName for a part that is not there, EmptyData,
    MaskError."""
    return read_categories(path, "mpdd", title="MPDD", official=COUNTS, category=category, split=split)


def expected_counts() -> dict[tuple[str, str | None, int], int]:
    """(part, split, label) -> number of images of the archive."""
    return counts_by_split(COUNTS)
