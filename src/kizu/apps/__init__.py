"""The command line and the web page: they call the rooms and decide nothing (level 6)."""
