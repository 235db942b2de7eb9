"""The classes of scenes: families of drawings, each in endless variants.

Class i is variant i // n of family i % n, so that few classes already span all kinds of content."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, zip_longest

from kizu.synthetic.noise import Field
from kizu.synthetic.scenes import cluttered, compositing, fractals, objects, patterns, textures
from kizu.synthetic.scenes.canvas import SceneCanvas
from kizu.synthetic.scenes.parameters import ClassParameters

Family = Callable[[SceneCanvas, ClassParameters], Field]
"""Draws an image (3, size, size), 0 to 1, of the class with these parameters."""

_TEXTURES: tuple[Family, ...] = (
    textures.cloud, textures.brushed, textures.leather, textures.marble, textures.cast, textures.wood,
    textures.granite, textures.labyrinth, textures.turned_metal, textures.grained, textures.cracks,
    textures.rust, textures.veins, textures.mosaic, textures.pebbles, textures.contours, textures.moire,
    textures.water, textures.glow,
)  # fmt: skip
_PATTERNS: tuple[Family, ...] = (
    patterns.weave, patterns.tiles, patterns.stripes, patterns.perforated, patterns.knit, patterns.bricks,
    patterns.hexagons, patterns.dots, patterns.checks, patterns.tread, patterns.tartan, patterns.zigzag,
    patterns.truchet, patterns.scales, patterns.corrugated, patterns.quasicrystal, patterns.rings,
)  # fmt: skip
_OBJECTS: tuple[Family, ...] = (
    objects.screw, objects.gear, objects.package, objects.polygon, objects.nut, objects.capsule,
    objects.plate, objects.washer, objects.turned_part, objects.star, objects.ball, objects.glyph,
    objects.spring, objects.flower,
)  # fmt: skip
_MIXED: tuple[Family, ...] = (
    cluttered.leaves, cluttered.board, cluttered.heap, fractals.ifs, cluttered.cables, fractals.julia,
    cluttered.fibres, fractals.flame, cluttered.text, compositing.inlay, fractals.tree, fractals.mandelbrot,
)  # fmt: skip

FAMILIES: tuple[Family, ...] = tuple(
    family
    for family in chain.from_iterable(zip_longest(_TEXTURES, _OBJECTS, _PATTERNS, _MIXED))
    if family is not None
)


def scene_class(index: int) -> tuple[str, Family, ClassParameters]:
    """Name, drawing function and parameters of class `index`, the same however many classes are used.

    >>> scene_class(0)[0], scene_class(62)[0]
    ('cloud-0', 'cloud-1')
    """
    variant, family = divmod(index, len(FAMILIES))
    return f"{FAMILIES[family].__name__}-{variant}", FAMILIES[family], ClassParameters(family, variant)
