"""Protocols: who trains on what, pure functions Samples -> Split (level 5)."""

# From here to the end: written by tools/exports.py, from the files of this folder.
from __future__ import annotations

from typing import TYPE_CHECKING

from kizu import registry

if TYPE_CHECKING:
    from kizu.protocols import base as base
    from kizu.protocols.base import Split
    from kizu.protocols.few_shot import few_shot
    from kizu.protocols.imbalanced import imbalanced
    from kizu.protocols.noisy import noisy
    from kizu.protocols.one_class import one_class
    from kizu.protocols.reference_sensitivity import reference_sensitivity
    from kizu.protocols.sample_efficiency import sample_efficiency
    from kizu.protocols.two_class import two_class
    from kizu.protocols.unified import unified

__all__ = [
    "Split", "few_shot", "imbalanced", "noisy", "one_class", "reference_sensitivity", "sample_efficiency",
    "two_class", "unified",
]  # fmt: skip

registry.open_room(__name__, {"Split": "base"})
