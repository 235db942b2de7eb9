"""SPot-the-Difference and VisA (ECCV 2022): Tables 2, 4, 5, 6 and, from the supplement, 7.

Zou, Jeong, Pemula, Zhang, Dabeer: SPot-the-Difference Self-supervised Pre-training for Anomaly Detection and
Segmentation. Tables 2, 5 and 7: PaDiM, one class; Table 6: PatchCore, one class; Table 4: supervised training
with 5 or 10 images of each class. AU-PR stands under image_ap and pixel_ap. Table 3 and the per-category
tables 8 to 14 are left out: their text is damaged."""

from __future__ import annotations

import polars as pl

from kizu.papers.base import published

CITATION = (
    "Zou et al., SPot-the-Difference Self-supervised Pre-training for Anomaly Detection and Segmentation, "
    "ECCV 2022"
)


def spd(table: str | None = None) -> pl.DataFrame:
    """Printed numbers of the paper, in per cent; columns as in `kizu.papers.base`.

    table: "2", "4", "5", "6", "7" or None for all.

    Raises UnknownName for another table.
    """
    return published("spd", CITATION, table)
