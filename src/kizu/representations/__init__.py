"""Image -> FeatureMaps: one file a kind of representation (level 2)."""

from kizu import rooms

rooms.open_room(__name__)
