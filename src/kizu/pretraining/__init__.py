"""Pretraining: objectives that turn images into a representation on disk, for every detector (level 3).

pretrain("simsiam", ["photos/"], "rep/", steps=10_000, backbone="resnet18", spd=True)     resume("rep/")
"""

# From here to the end: written by tools/exports.py, from the files of this folder.
from __future__ import annotations

from typing import TYPE_CHECKING

from kizu import registry

if TYPE_CHECKING:
    from kizu.pretraining import base as base
    from kizu.pretraining import data as data
    from kizu.pretraining import run as run
    from kizu.pretraining import spd as spd
    from kizu.pretraining.adpretrain import ADPretrain
    from kizu.pretraining.base import Encoder, Pretraining
    from kizu.pretraining.byol import BYOL
    from kizu.pretraining.data import Folder, Generated, Images, Turns
    from kizu.pretraining.moco import MoCo
    from kizu.pretraining.run import pretrain, resume
    from kizu.pretraining.simclr import SimCLR
    from kizu.pretraining.simsiam import SimSiam
    from kizu.pretraining.spd import SPDConfig
    from kizu.pretraining.supervised import Supervised

__all__ = [
    "BYOL", "ADPretrain", "Encoder", "Folder", "Generated", "Images", "MoCo", "Pretraining", "SPDConfig",
    "SimCLR", "SimSiam", "Supervised", "Turns", "pretrain", "resume",
]  # fmt: skip

registry.open_room(__name__, {
    "Encoder": "base", "Folder": "data", "Generated": "data", "Images": "data", "Pretraining": "base",
    "SPDConfig": "spd", "Turns": "data", "pretrain": "run", "resume": "run",
})  # fmt: skip
