"""Disk -> Samples: one file a data set (level 1)."""

from kizu import registry

registry.open_room(__name__)
