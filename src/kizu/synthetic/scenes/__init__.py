"""Endless drawn images in classes, to train representations on, without a licence: `SceneGenerator`."""

from kizu.synthetic.scenes.generator import SceneGenerator

__all__ = ["SceneGenerator"]
