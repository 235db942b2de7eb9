"""Run folders -> tables, figures, HTML; no torch (level 7)."""

# From here to the end: written by tools/exports.py, from the files of this folder.
from __future__ import annotations

from typing import TYPE_CHECKING

from kizu import registry

if TYPE_CHECKING:
    from kizu.reports.attention import attention
    from kizu.reports.contact_sheet import contact_sheet
    from kizu.reports.diagnosis import diagnosis
    from kizu.reports.feature_embedding import feature_embedding
    from kizu.reports.html import html
    from kizu.reports.inspection_html import inspection_html
    from kizu.reports.negatives_sheet import negatives_sheet
    from kizu.reports.panel import panel
    from kizu.reports.score_distributions import score_distributions
    from kizu.reports.suspicious_html import suspicious_html
    from kizu.reports.table import table

__all__ = [
    "attention", "contact_sheet", "diagnosis", "feature_embedding", "html", "inspection_html",
    "negatives_sheet", "panel", "score_distributions", "suspicious_html", "table",
]  # fmt: skip

registry.open_room(__name__)
