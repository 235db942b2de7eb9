"""Losses: pure functions of embeddings, lower is better (level 1)."""

from kizu import registry

registry.open_room(__name__)
