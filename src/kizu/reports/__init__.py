"""Run folders -> tables, figures, HTML; no torch (level 5)."""

from kizu import rooms

rooms.open_room(__name__)
