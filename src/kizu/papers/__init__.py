"""Published tables as data, each row with its source (level 4)."""

from kizu import registry

registry.open_room(__name__)
