"""Disk -> Samples: one file a dataset (level 2)."""

# From here to the end: written by tools/exports.py, from the files of this folder.
from __future__ import annotations

from typing import TYPE_CHECKING

from kizu import registry

if TYPE_CHECKING:
    from kizu.datasets import checking as checking
    from kizu.datasets.aitex import aitex
    from kizu.datasets.aptos import aptos
    from kizu.datasets.btad import btad
    from kizu.datasets.checking import Report
    from kizu.datasets.cifar10 import cifar10
    from kizu.datasets.cifar10_c import cifar10_c
    from kizu.datasets.cifar100_c import cifar100_c
    from kizu.datasets.folder import folder
    from kizu.datasets.isic2018 import isic2018
    from kizu.datasets.ksdd import ksdd
    from kizu.datasets.magnetic_tile import magnetic_tile
    from kizu.datasets.mpdd import mpdd
    from kizu.datasets.mvtec import mvtec
    from kizu.datasets.mvtec3d import mvtec3d
    from kizu.datasets.mvtec_loco import mvtec_loco
    from kizu.datasets.oct2017 import oct2017
    from kizu.datasets.planted import planted
    from kizu.datasets.real_iad import real_iad
    from kizu.datasets.semicon import semicon
    from kizu.datasets.visa import visa

__all__ = [
    "Report", "aitex", "aptos", "btad", "cifar10", "cifar10_c", "cifar100_c", "folder", "isic2018", "ksdd",
    "magnetic_tile", "mpdd", "mvtec", "mvtec3d", "mvtec_loco", "oct2017", "planted", "real_iad", "semicon",
    "visa",
]  # fmt: skip

registry.open_room(__name__, {"Report": "checking"})
