"""Published tables as data, each row with its source (level 4)."""

from kizu import rooms

rooms.open_room(__name__)
