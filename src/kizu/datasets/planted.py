"""Our own images of products with planted defects and exact masks: no download, no licence, any size, any
number.

A defective image is one of two twins drawn from the same randomness, one with and one without the defect;
the mask is where they differ, and outside it the two are the same byte for byte. docs/methods/planted.md says
how, and what these images cannot show. The drawing itself is in kizu/synthetic/products."""

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
from kizu.synthetic.products.catalogue import PRODUCTS
from kizu.synthetic.products.planting import check_size, planted_image

LICENCE = "Apache-2.0: images drawn by this project's own code, no further licence attached"
CITATION = ""
HOMEPAGE = ""
VERSION = 1
"""Raised whenever the same arguments draw other images; part of the recorded recipe."""

_Z_RLE = 3
"""zlib's run-length strategy: noisy images come out smaller than with the default, in two thirds of the
time."""


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
    """Draw a data set of planted defects under `path`, or reuse the one that is there already, and return its
    table.

    products: "all", one name or several (`kizu.synthetic.products.catalogue` lists them). Counts are images
    per product: `train` and `test_good` are good ones; `test_defective` are shared evenly among the product's
    defects, in turn. size: side in pixels, 32 to 1024. An image depends on seed, product, split, defect and
    number alone: other products, other counts or another order leave it as it is.

    Layout: <product>/train/good/NNN.png, test/good/, test/<defect>/, ground_truth/<defect>/NNN_mask.png (255
    = defect), and recipe.json. The folder is written beside `path` and moved there when it is complete; it is
    never changed afterwards.

    Raises UnknownName for a product that does not exist, UsageError for a count or size out of range or when
    `path` holds another recipe, LayoutError when `path` holds something else or files of the recipe are
    missing."""
    path = Path(path).absolute()
    chosen = PRODUCTS if products == "all" else {products} if isinstance(products, str) else set(products)
    names = sorted(chosen)
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
    if not _is_complete(path, recipe, plan):
        _write(path, recipe, plan)
    return _samples(path, plan)


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
        if self.defect is None:
            return None
        return f"{self.product}/ground_truth/{self.defect}/{self.number:03d}_mask.png"

    def generator(self, seed: int) -> np.random.Generator:
        """Randomness of this image alone, the same on every platform."""
        name = f"{seed}/{self.product}/{self.split}/{self.defect or 'good'}/{self.number}"
        digest = hashlib.sha256(name.encode()).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def _plan(product: str, *, train: int, test_good: int, test_defective: int) -> Iterator[_Image]:
    """Every image of one product, in the order of the table."""
    yield from (_Image(product, "train", None, number) for number in range(train))
    yield from (_Image(product, "test", None, number) for number in range(test_good))
    kinds = sorted(PRODUCTS[product].defects)
    for position, defect in enumerate(kinds):
        count = (test_defective + len(kinds) - 1 - position) // len(kinds)
        yield from (_Image(product, "test", defect, number) for number in range(count))


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
            "train, test_good and test_defective are all 0: no image. Make one of them at least 1."
        )
    check_size(size)
    if not isinstance(seed, int):
        raise UsageError(f"seed must be a whole number, got {seed!r}.")


def _is_complete(path: Path, recipe: dict[str, Any], plan: Sequence[_Image]) -> bool:
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
        recorded = json.loads(record.read_text("utf-8"))
    except ValueError as error:
        raise LayoutError(
            f"{record} is not readable JSON ({error}). Delete {path} or give another path."
        ) from error
    if recorded != recipe:
        entries = recorded if isinstance(recorded, dict) else {}
        odd = [f"{k} {entries.get(k)!r} instead of {v!r}" for k, v in recipe.items() if entries.get(k) != v]
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
            rng = item.generator(recipe["seed"])
            image, mask = planted_image(item.product, item.defect, recipe["size"], rng)
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
    Image.fromarray(values).save(path, compress_level=1, compress_type=_Z_RLE)


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
