"""Protocols: who trains on what, and run folders (level 4)."""

from kizu import registry

registry.open_room(__name__)
