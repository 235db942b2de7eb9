"""The families in the order in which the classes go through them: class i is variant i // n of family i % n."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, zip_longest

from kizu.synthetic.procedural import fractals, inlays, objects, patterns, scenes, textures
from kizu.synthetic.procedural.canvas import Canvas
from kizu.synthetic.procedural.noise import Field
from kizu.synthetic.procedural.parameters import Parameters

Family = Callable[[Canvas, Parameters], Field]

_TEXTURES: tuple[Family, ...] = (
    textures.cloud, textures.brushed, textures.leather, textures.marble, textures.cast, textures.wood, textures.granite,
    textures.labyrinth, textures.turned_metal, textures.grained, textures.cracks, textures.rust, textures.veins, textures.mosaic,
    textures.pebbles, textures.contours, textures.moire, textures.water, textures.glow,
)  # fmt: skip
_PATTERNS: tuple[Family, ...] = (
    patterns.weave, patterns.tiles, patterns.stripes, patterns.perforated, patterns.knit, patterns.bricks, patterns.hexagons,
    patterns.dots, patterns.checks, patterns.tread, patterns.tartan, patterns.zigzag, patterns.truchet, patterns.scales,
    patterns.corrugated, patterns.quasicrystal, patterns.rings,
)  # fmt: skip
_OBJECTS: tuple[Family, ...] = (
    objects.screw, objects.gear, objects.package, objects.polygon, objects.nut, objects.capsule, objects.plate, objects.washer,
    objects.turned_part, objects.star, objects.ball, objects.glyph, objects.spring, objects.flower,
)  # fmt: skip
_SCENES: tuple[Family, ...] = (
    scenes.leaves, scenes.board, scenes.heap, fractals.ifs, scenes.cables, fractals.julia, scenes.fibres, fractals.flame,
    scenes.text, inlays.inlay, fractals.tree, fractals.mandelbrot,
)  # fmt: skip

FAMILIES: tuple[Family, ...] = tuple(
    family
    for family in chain.from_iterable(zip_longest(_TEXTURES, _OBJECTS, _PATTERNS, _SCENES))
    if family is not None
)


def variant(index: int) -> tuple[str, Family, Parameters]:
    """Name, drawing function and fixed numbers of class `index`, the same however many classes there are."""
    number, family = divmod(index, len(FAMILIES))
    return f"{FAMILIES[family].__name__}-{number}", FAMILIES[family], Parameters(family, number)
