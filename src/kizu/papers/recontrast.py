"""ReContrast (NeurIPS 2023): Tables 1 to 6 and A1 to A7.

Guo, Lu, Jia, Zhang, Li: ReContrast: Domain-Specific Anomaly Detection via Contrastive Reconstruction. One
model per category, but for Table 4; the rows of other methods are copied by the paper from elsewhere. The
paper's own figures are those of the last iteration; Table 6 prints the best on the test set beside them
(AUPRO 95.20 last, 95.29 best; Table 2 prints 95.2). Its AUPRO is that of each anomalous image by itself.
Table A2 gives mean and spread over three seeds. Of Table A1 the AUPRO of seven categories is lost in the
text."""

from __future__ import annotations

import polars as pl

from kizu.papers.base import published

CITATION = "Guo et al., ReContrast, NeurIPS 2023"


def recontrast(table: str | None = None) -> pl.DataFrame:
    """Printed numbers of the paper, in per cent; columns as in `kizu.papers.base`.

    table: "1" to "6", "A1" to "A7" or None for all.

    Raises UnknownName for another table.
    """
    return published("recontrast", CITATION, table)
