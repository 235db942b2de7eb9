"""Protocols: who trains on what, and run folders (level 4)."""

from kizu import rooms

rooms.open_room(__name__)
