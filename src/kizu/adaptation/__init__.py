"""(representation, good images of one product) -> representation for this product: one file an adaptation (level 3)."""

from kizu import registry

registry.open_room(__name__)
