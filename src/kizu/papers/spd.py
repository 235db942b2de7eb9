"""SPot-the-Difference and VisA (ECCV 2022): Tables 2 to 6 and, from the supplement, 7, 12, 13 and 14.

Zou, Jeong, Pemula, Zhang, Dabeer: SPot-the-Difference Self-supervised Pre-training for Anomaly Detection
and Segmentation. Tables 2, 5 and 7: PaDiM, one class; Table 6: PatchCore, one class; Table 3: supervised
training on the high-shot side; Tables 4 and 12 to 14: on 5 or 10 images of each class. AU-PR stands under
image_ap and pixel_ap; its variant is the trapezoid rule, and all pixel figures are those of 202
thresholds. Numbers that lost a digit or a point in the text of the supplement carry a note. The
per-category tables 8 to 11 are left out: too many did."""

from __future__ import annotations

import polars as pl

from kizu.papers.base import published

CITATION = (
    "Zou et al., SPot-the-Difference Self-supervised Pre-training for Anomaly Detection and Segmentation, "
    "ECCV 2022"
)


def spd(table: str | None = None) -> pl.DataFrame:
    """Printed numbers of the paper, in per cent; columns as in `kizu.papers.base`.

    table: "2" to "7", "12", "13", "14" or None for all.

    Raises UnknownName for another table.
    """
    return published("spd", CITATION, table)
