"""All products that can be drawn, and the defects of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kizu.synthetic.lighting import Surface
from kizu.synthetic.products import objects, textures
from kizu.synthetic.products.canvas import ProductCanvas
from kizu.synthetic.products.circuit import circuit


@dataclass(frozen=True)
class Product:
    """How a product is drawn, whether it is a "texture" or an "object", and its defects.

    defects: name -> colour as rrggbb, "" for the colour beneath the product's skin."""

    build: Callable[[ProductCanvas], Surface]
    kind: str
    defects: dict[str, str]


def _defects(names: str) -> dict[str, str]:
    """Names parted by blanks, each with its colour after an equals sign if it has one."""
    return {name: colour for name, _, colour in (item.partition("=") for item in names.split())}


_TEXTURES = {
    textures.concrete: "crack hole particle=2f2b27 stain=4f4638",
    textures.fabric: "discolour=8a7f5a fibre=c4552d hole snag=b9c6cf stain=3a2c20",
    textures.leather: "dent discolour=3c2a22 hole scratch stain=d8ceb4",
    textures.metal: "dent fibre=35302c scratch=63666a stain=7d4320",
    textures.tiles: "chip crack misplaced missing stain=9a7a3a",
    textures.wood: "crack hole scratch stain=2e2018",
}
_OBJECTS = {
    objects.biscuit: "chip crack discolour=4b2a14 fibre=2a211c particle=3d6f9e",
    objects.bolt: "chip dent missing scratch=4b4d4e stain=8a4a20",
    objects.cap: "chip dent misprint scratch smudge=5d5552",
    objects.capsule: "chip crack dent discolour=b08a3c misprint particle=3a332c",
    circuit: "discolour=4a3a1c fibre=d9d4c8 misplaced missing particle=d5d6d6 scratch",
    objects.gear: "chip dent missing scratch=55585c stain=8a4a20",
}
PRODUCTS: dict[str, Product] = {
    build.__name__: Product(build, kind, _defects(names))
    for kind, table in (("texture", _TEXTURES), ("object", _OBJECTS))
    for build, names in table.items()
}
"""Every product by name."""


def product_defects() -> dict[str, tuple[str, ...]]:
    """Every product's name and the defects that it can have, both sorted.

    >>> product_defects()["wood"]
    ('crack', 'hole', 'scratch', 'stain')
    """
    return {name: tuple(sorted(PRODUCTS[name].defects)) for name in sorted(PRODUCTS)}
