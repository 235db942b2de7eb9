"""Few-shot contrastive fine-tuning (under review, anonymous): Tables 1 to 8.

Few-Shot Anomaly Detection on Industrial Images through Contrastive Fine-Tuning. ResNet-18 (Table 7:
ResNet-101), image AUROC. Several printed averages of Tables 1, 3 and 4 are not the means of their printed
rows; the `note` column says which and gives the mean. The text of one row of Table 1 lost a category (2
shots, with negative pairs): only its average is held. Table 6 and section 4.6.1 disagree on one number.
Tables 5 and 7 name rows by check marks, here by words. Table 8 varies the anomalous test images and does
not say how many shots."""

from __future__ import annotations

import polars as pl

from kizu.papers.base import published

CITATION = (
    "Few-Shot Anomaly Detection on Industrial Images through Contrastive Fine-Tuning (anonymous, under "
    "review)"
)


def fewshot_contrastive(table: str | None = None) -> pl.DataFrame:
    """Printed numbers of the paper, in per cent; columns as in `kizu.papers.base`.

    table: "1" to "8" or None for all.

    Raises UnknownName for another table.
    """
    return published("fewshot_contrastive", CITATION, table)
