"""Published tables as data, each row with its source (level 5)."""

# From here to the end: written by tools/exports.py, from the files of this folder.
from __future__ import annotations

from typing import TYPE_CHECKING

from kizu import registry

if TYPE_CHECKING:
    from kizu.papers import base as base
    from kizu.papers.adpretrain import adpretrain
    from kizu.papers.fewshot_contrastive import fewshot_contrastive
    from kizu.papers.recontrast import recontrast
    from kizu.papers.spd import spd

__all__ = ["adpretrain", "fewshot_contrastive", "recontrast", "spd"]

registry.open_room(__name__)
