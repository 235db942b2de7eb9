"""Views: pure functions of image batches, for training on looks that should not matter and on flaws that
should (level 1)."""

from kizu import registry

registry.open_room(__name__)
