"""Run folders -> tables, figures, HTML; no torch (level 5)."""

from kizu import registry

registry.open_room(__name__)
