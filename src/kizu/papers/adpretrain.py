"""ADPretrain (NeurIPS 2025): Table 1 (five backbones, six detectors, five data sets) and Table 5 (few shots).

ADPretrain: Advancing Industrial Anomaly Detection via Anomaly Representation Pretraining. A row marked
with a dagger uses the pretrained features, the row without it the backbone's own. Averages over the
categories of each data set; image AUROC and PRO (200 thresholds; GLASS by a measure of its own,
`variant`). Two printed gains of Table 1 differ from the difference of their two rows; the `note` column
says which."""

from __future__ import annotations

import polars as pl

from kizu.papers.base import published

CITATION = (
    "ADPretrain: Advancing Industrial Anomaly Detection via Anomaly Representation Pretraining, NeurIPS 2025"
)


def adpretrain(table: str | None = None) -> pl.DataFrame:
    """Printed numbers of the paper, in per cent; columns as in `kizu.papers.base`.

    table: "1", "5" or None for all.

    Raises UnknownName for another table.
    """
    return published("adpretrain", CITATION, table)
