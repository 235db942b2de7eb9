"""Few-shot contrastive fine-tuning (under review, anonymous): Tables 1 to 8.

Few-Shot Anomaly Detection on Industrial Images through Contrastive Fine-Tuning. ResNet-18 (Table 7:
ResNet-101), image AUROC. Several printed averages of Tables 1, 3 and 4 are not the means of their printed
rows; the `note` column says which and gives the mean. The text of one row of Table 1 lost a category (2
shots, with negative pairs): only its average is held. Table 6 and section 4.6.1 disagree on one number,
Tables 3 and 5 on another. Table 4 numbers the superclasses of CIFAR-100, taken for their labels. Tables 5
and 7 name rows by check marks, here by words, and say accuracy where they mean AUROC. Table 8 varies the
anomalous test images and does not say how many shots.

Numbers of images that the text has wrong, or leaves open: 952 of the magnetic tiles are free of defects, not
defective. Of 140 AITEX images 5 patches are 700, of which 600 are test images: 100 are to draw from; section
A.7 counts 100 defective test patches where section 4.1 counts 105. CIFAR has 1,000 clean test pictures of a
class (500 of a superclass), not 5,000, and the nine corruptions are not named."""

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
