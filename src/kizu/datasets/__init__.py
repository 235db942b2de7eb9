"""Disk -> Samples: one file a data set (level 1)."""

from kizu import rooms

rooms.open_room(__name__)
