"""ReContrast (NeurIPS 2023): Tables 1 to 6, A2, A3, A5 and A6.

Guo, Lu, Jia, Zhang, Li: ReContrast: Domain-Specific Anomaly Detection via Contrastive Reconstruction. One
model per category, but for Table 4; the rows of other methods are copied by the paper from elsewhere. The
released code keeps the best step on the test set (`selection`), so the paper's own numbers are upper bounds;
Table A2 gives mean and spread over three seeds. Table A1 is left out: its text is damaged."""

from __future__ import annotations

import polars as pl

from kizu.papers.base import published

CITATION = "Guo et al., ReContrast, NeurIPS 2023"


def recontrast(table: str | None = None) -> pl.DataFrame:
    """Printed numbers of the paper, in per cent; columns as in `kizu.papers.base`.

    table: "1" to "6", "A2", "A3", "A5", "A6" or None for all.

    Raises UnknownName for another table.
    """
    return published("recontrast", CITATION, table)
