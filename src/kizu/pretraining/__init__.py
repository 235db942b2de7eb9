"""Pretraining: objectives that turn images into a representation on disk, which every detector reads (level
3).

pretrain("simsiam", ["photos/"], "rep/", steps=10_000, backbone="resnet18", spd=True)     resume("rep/")
"""

from kizu import registry
from kizu.pretraining.run import pretrain, resume

__all__ = ["pretrain", "resume"]

registry.open_room(__name__)
