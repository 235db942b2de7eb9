"""Our own images of products with planted defects and exact masks: no download, no licence, any size, any
number.

A defective image is one of two twins drawn from the same randomness, one with and one without the defect;
the mask is where they differ, and outside it the two are the same byte for byte. docs/methods/planted.md says
how, and what it is not."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from kizu.errors import LayoutError, UnknownName, UsageError, some
from kizu.samples import Samples
from kizu.synthetic import planted_defects as defects
from kizu.synthetic.planted_products import PRODUCTS
from kizu.synthetic.planted_render import Light, Scene, develop, expose, grain, shade

LICENCE = "Apache-2.0: images drawn by this project's own code, no further licence attached"
CITATION = ""
HOMEPAGE = ""
VERSION = 1
"""Raised whenever the same arguments draw other images; part of the recorded recipe."""

_TRIES = 16
_RUN_LENGTHS = 3
"""zlib's strategy Z_RLE: noisy images come out smaller than with the default, and a third sooner."""


def planted(
    path: Path | str,
    *,
    products: str | Sequence[str] = "all",
    train: int = 40,
    test_good: int = 10,
    test_defective: int = 20,
    size: int = 256,
    seed: int = 0,
) -> Samples:
    """Draw a data set of planted defects under `path`, or take the one that lies there already, and return
    its table.

    products: "all", one name or several (`product_defects()` lists them). Counts are images per product:
    `train` and `test_good` are good ones; `test_defective` are shared evenly among the product's defects, in
    turn. size: side in pixels, 32 to 1024. An image depends on seed, product, split, defect and number
    alone: other products, other counts or another order leave it as it is.

    Layout: <product>/train/good/NNN.png, test/good/, test/<defect>/, ground_truth/<defect>/NNN_mask.png (255
    = defect), and recipe.json. The folder is written beside `path` and moved there when it is complete; it is
    never changed afterwards.

    Raises UnknownName for a product that does not exist, UsageError for a count or size out of range or when
    `path` holds another recipe, LayoutError when `path` holds something else or files of the recipe are
    missing."""
    path = Path(path).absolute()
    names = (
        sorted(PRODUCTS)
        if products == "all"
        else sorted({products} if isinstance(products, str) else set(products))
    )
    counts = {"train": train, "test_good": test_good, "test_defective": test_defective}
    _check_arguments(names, counts, size, seed)
    recipe = {
        "dataset": "planted",
        "version": VERSION,
        "products": names,
        **counts,
        "size": size,
        "seed": seed,
    }
    plan = [item for name in names for item in _plan(name, **counts)]
    if not _lies_there(path, recipe, plan):
        _write(path, recipe, plan)
    return _samples(path, plan)


def product_defects() -> dict[str, tuple[str, ...]]:
    """Every product's name and the defects that may befall it, both sorted."""
    return {name: tuple(sorted(PRODUCTS[name].defects)) for name in sorted(PRODUCTS)}


def planted_image(
    product: str, defect: str | None, size: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw one image (H, W, 3) uint8 and its mask (H, W), True = defect; with `defect` None a good part and
    an empty mask.

    H = W = `size` pixels. Generators in the same state draw twins: with and without a defect the images are
    identical outside the mask. Inside it the noise-free values differ by more than 4 of 255 grey levels, but
    for the small gaps that the outline encloses. Four integers are drawn from `rng`. Raises UnknownName for a
    product, or a defect that the product does not have; UsageError for a size outside 32 to 1024."""
    if product not in PRODUCTS:
        raise UnknownName("planted product", product, PRODUCTS)
    if defect is not None and defect not in PRODUCTS[product].defects:
        raise UnknownName(f"planted defect of {product}", defect, PRODUCTS[product].defects)
    _check_size(size)
    shape, shot, dirt, flaw = (int(value) for value in rng.integers(0, 2**63, 4))
    light = Light.draw(_generator(shot))
    scene = Scene(size, _generator(shape))
    surface = PRODUCTS[product].build(scene)
    clean = expose(shade(surface, light), light, size)
    noise = grain(_generator(dirt), light, size)
    if defect is None:
        return develop(clean, noise), np.zeros((size, size), bool)
    rng = _generator(flaw)
    strength = float(rng.uniform(0.3, 1.0))
    for _ in range(_TRIES):
        if defect in defects.SURFACE:
            other = surface.copy()
            defects.lay(defect, scene, other, rng, strength, PRODUCTS[product].defects[defect] or None)
        else:
            other = PRODUCTS[product].build(Scene(size, _generator(shape), defect, rng, strength))
        flawed = expose(shade(other, light), light, size)
        mask = defects.changed(clean, flawed)
        if defects.shows(mask, clean, flawed):
            return develop(np.where(mask, flawed, clean), noise), mask
        strength = min(1.2 * strength, 1.8)
    raise UsageError(
        f"No visible {defect} could be planted on this {product} at {size} pixels; ask for a larger size or "
        "another seed."
    )


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@dataclass(frozen=True)
class _Image:
    """One image of the plan: `defect` is None for a good part."""

    product: str
    split: str
    defect: str | None
    number: int

    @property
    def image(self) -> str:
        return f"{self.product}/{self.split}/{self.defect or 'good'}/{self.number:03d}.png"

    @property
    def mask(self) -> str | None:
        return (
            None
            if self.defect is None
            else f"{self.product}/ground_truth/{self.defect}/{self.number:03d}_mask.png"
        )

    def generator(self, seed: int) -> np.random.Generator:
        """Randomness of this image alone, the same on every platform."""
        name = f"{seed}/{self.product}/{self.split}/{self.defect or 'good'}/{self.number}"
        return np.random.Generator(
            np.random.PCG64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little"))
        )


def _plan(product: str, *, train: int, test_good: int, test_defective: int) -> Iterator[_Image]:
    """Every image of one product, in the order of the table."""
    yield from (_Image(product, "train", None, number) for number in range(train))
    yield from (_Image(product, "test", None, number) for number in range(test_good))
    kinds = sorted(PRODUCTS[product].defects)
    for place, defect in enumerate(kinds):
        share = (test_defective + len(kinds) - 1 - place) // len(kinds)
        yield from (_Image(product, "test", defect, number) for number in range(share))


def _check_arguments(names: Sequence[str], counts: dict[str, int], size: int, seed: int) -> None:
    for name in names:
        if name not in PRODUCTS:
            raise UnknownName("planted product", name, PRODUCTS)
    if not names:
        raise UsageError(
            f'products is empty; name at least one of {", ".join(sorted(PRODUCTS))}, or say "all".'
        )
    for name, count in counts.items():
        if not isinstance(count, int) or not 0 <= count <= 100_000:
            raise UsageError(
                f"{name} must be a whole number of images per product, 0 to 100000, got {count!r}."
            )
    if not sum(counts.values()):
        raise UsageError(
            "train, test_good and test_defective are all 0: there would be no image. Make one of them at "
            "least 1."
        )
    _check_size(size)
    if not isinstance(seed, int):
        raise UsageError(f"seed must be a whole number, got {seed!r}.")


def _check_size(size: int) -> None:
    if not isinstance(size, int) or not 32 <= size <= 1024:
        raise UsageError(f"size must be a whole number of pixels, 32 to 1024, got {size!r}.")


def _lies_there(path: Path, recipe: dict[str, Any], plan: Sequence[_Image]) -> bool:
    """Whether `path` holds this very recipe, complete. Raises UsageError or LayoutError when it holds
    anything else."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return False
    record = path / "recipe.json"
    if not record.is_file():
        raise LayoutError(
            f"{path} exists and holds no recipe.json, so planted did not write it. Give another path."
        )
    try:
        found = json.loads(record.read_text("utf-8"))
    except ValueError as error:
        raise LayoutError(
            f"{record} is not readable JSON ({error}). Delete {path} or give another path."
        ) from error
    if not isinstance(found, dict) or found != recipe:
        odd = (
            [
                f"{key} {found.get(key)!r} instead of {recipe[key]!r}"
                for key in recipe
                if found.get(key) != recipe[key]
            ]
            if isinstance(found, dict)
            else []
        )
        raise UsageError(
            f"{path} holds another recipe: {'; '.join(odd) or 'unknown entries'}. Give another path, or "
            "delete it to draw it anew."
        )
    files = [name for item in plan for name in (item.image, item.mask) if name is not None]
    missing = [name for name in files if not (path / name).is_file()]
    if missing:
        raise LayoutError(
            f"{path} lacks {len(missing)} of its {len(files)} files: {some(missing)}. Delete {path} to draw "
            "it anew."
        )
    return True


def _write(path: Path, recipe: dict[str, Any], plan: Sequence[_Image]) -> None:
    """Draw every image into a folder beside `path`, then move it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        part.chmod(0o755)
        for item in plan:
            image, mask = planted_image(
                item.product, item.defect, recipe["size"], item.generator(recipe["seed"])
            )
            _save(part / item.image, image)
            if item.mask is not None:
                _save(part / item.mask, mask.astype(np.uint8) * np.uint8(255))
        (part / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n", "utf-8")
        if path.exists():
            path.rmdir()
        part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _save(path: Path, values: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, compress_level=1, compress_type=_RUN_LENGTHS)


def _samples(path: Path, plan: Sequence[_Image]) -> Samples:
    rows = {
        "image": [str(path / item.image) for item in plan],
        "mask": [None if item.mask is None else str(path / item.mask) for item in plan],
        "label": [int(item.defect is not None) for item in plan],
        "category": [item.product for item in plan],
        "defect": [item.defect or "good" for item in plan],
        "split": [item.split for item in plan],
        "dataset": ["planted"] * len(plan),
    }
    return Samples(pl.DataFrame(rows, schema_overrides={"mask": pl.String, "label": pl.Int8}))
