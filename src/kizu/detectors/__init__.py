"""Detectors: fit on good images, predict map and score; one file each (level 3)."""

from kizu import registry

registry.open_room(__name__)
