"""Image -> FeatureMaps: one file a kind of representation (level 2)."""

from kizu import registry

registry.open_room(__name__)
