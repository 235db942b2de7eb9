"""Adaptation: (representation, good images of one product) -> representation; one file each (level 3)."""

# From here to the end: written by tools/exports.py, from the files of this folder.
from __future__ import annotations

from typing import TYPE_CHECKING

from kizu import registry

if TYPE_CHECKING:
    from kizu.adaptation import base as base
    from kizu.adaptation.adabn import adabn
    from kizu.adaptation.base import Adaptation
    from kizu.adaptation.fewshot_contrastive import fewshot_contrastive
    from kizu.adaptation.mean_shifted import mean_shifted
    from kizu.adaptation.panda import panda
    from kizu.adaptation.residual import residual

__all__ = ["Adaptation", "adabn", "fewshot_contrastive", "mean_shifted", "panda", "residual"]

registry.open_room(__name__, {"Adaptation": "base"})
