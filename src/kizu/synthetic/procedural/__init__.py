"""Drawn training images without end and without a licence: `Procedural`."""

from kizu.synthetic.procedural.generator import Procedural

__all__ = ["Procedural"]
