"""Metrics: pure functions of raw scores; higher is more anomalous (level 1)."""

from kizu import registry

registry.open_room(__name__)
