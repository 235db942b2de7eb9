"""Image -> FeatureMaps: one file a kind of representation (level 2)."""

# From here to the end: written by tools/exports.py, from the files of this folder.
from __future__ import annotations

from typing import TYPE_CHECKING

from kizu import registry

if TYPE_CHECKING:
    from kizu.representations import base as base
    from kizu.representations import centres as centres
    from kizu.representations import grad_cam as grad_cam
    from kizu.representations import imagebind as imagebind
    from kizu.representations import imagenet as imagenet
    from kizu.representations import networks as networks
    from kizu.representations import sources as sources
    from kizu.representations import trainable as trainable
    from kizu.representations import weights as weights
    from kizu.representations.aligned_residual import AlignedResidual
    from kizu.representations.backbone import Backbone
    from kizu.representations.base import InferenceCopy, Representation
    from kizu.representations.imagenet import Package
    from kizu.representations.networks import Variant
    from kizu.representations.pixels import Pixels
    from kizu.representations.projected import Projected
    from kizu.representations.residual import Residual
    from kizu.representations.small import Small
    from kizu.representations.stacked import Stacked

__all__ = [
    "AlignedResidual", "Backbone", "InferenceCopy", "Package", "Pixels", "Projected", "Representation",
    "Residual", "Small", "Stacked", "Variant",
]  # fmt: skip

registry.open_room(__name__, {
    "InferenceCopy": "base", "Package": "imagenet", "Representation": "base", "Variant": "networks",
})  # fmt: skip
