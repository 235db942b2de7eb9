"""ADPretrain (NeurIPS 2025): Tables 1 to 13.

ADPretrain: Advancing Industrial Anomaly Detection via Anomaly Representation Pretraining. A row marked
with a dagger uses the pretrained features, the row without it the backbone's own. Averages over the
categories of each data set; image AUROC and PRO (200 thresholds; GLASS by a measure of its own,
`variant`). Table 1: five backbones, six detectors, five data sets; 5: few shots. All others but 7 are of
ImageBind. 2a, 2b and 8 to 13: ablations on VisA; 3a: a tenth of the good images; 3b: noise; 4: three sets of
references, with the spread; 6: the data of the pretraining; 7: the cost of the projector.

Two printed gains of Table 1 and two of Table 3b (those of one row have changed places) differ from the
difference of their rows; the `note` column says which. One configuration is printed with several figures
(ImageBind, residual features, PaDiM on VisA: 95.4/88.7 in Table 2a, 95.5/88.8 in 2b and 13, 95.5/88.0 in 12,
95.6/88.6 in 1), so gaps of that size say nothing."""

from __future__ import annotations

import polars as pl

from kizu.papers.base import published

CITATION = (
    "ADPretrain: Advancing Industrial Anomaly Detection via Anomaly Representation Pretraining, NeurIPS 2025"
)


def adpretrain(table: str | None = None) -> pl.DataFrame:
    """Printed numbers of the paper, in per cent; columns as in `kizu.papers.base`.

    table: "1", "2a", "2b", "3a", "3b", "4" to "13", or None for all.

    Raises UnknownName for another table.
    """
    return published("adpretrain", CITATION, table)
