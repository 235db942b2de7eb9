"""Parameterised bricks without opinion (level 1)."""
