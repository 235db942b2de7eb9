"""Losses: pure functions of embeddings, lower is better (level 1)."""

from kizu import rooms

rooms.open_room(__name__)
