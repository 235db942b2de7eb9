"""Losses: pure functions of embeddings, lower is better (level 1)."""

# From here to the end: written by tools/exports.py, from the files of this folder.
from __future__ import annotations

from typing import TYPE_CHECKING

from kizu import registry

if TYPE_CHECKING:
    from kizu.losses.angle_norm import angle_norm
    from kizu.losses.cosine import cosine
    from kizu.losses.focal import focal
    from kizu.losses.info_nce import info_nce
    from kizu.losses.negative_cosine import negative_cosine
    from kizu.losses.nt_xent import nt_xent
    from kizu.losses.spd import spd
    from kizu.losses.ssim import ssim

__all__ = ["angle_norm", "cosine", "focal", "info_nce", "negative_cosine", "nt_xent", "spd", "ssim"]

registry.open_room(__name__)
