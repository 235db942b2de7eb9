"""AITEX fabrics: 245 strips of 4096 x 256 pixels of seven fabrics, cut into patches as few-shot contrastive
fine-tuning does."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from kizu import checks
from kizu.datasets._copies import folder_of_copies, made_once, source_facts, write_pixels
from kizu.datasets._layout import folders_in, root_of, to_samples, unread
from kizu.datasets._masks import Row
from kizu.errors import EmptyData, LayoutError, MaskError, UsageError, counted, some
from kizu.image_files import Found, images_below, list_images
from kizu.images import open_values
from kizu.masks import MaskRule, open_mask
from kizu.samples import Samples, Wanted

LICENCE = "none stated by the authors (research use, with citation)"
CITATION = (
    "J. Silvestre-Blanes, T. Albero-Albero, I. Miralles, R. Perez-Llorens, J. Moreno: A Public Fabric "
    "Database for Defect Detection Methods and Results, AUTEX Research Journal 19, 2019"
)
HOMEPAGE = "https://www.aitex.es/afid/"
MASK_RULE: MaskRule = "half"

GOOD, DEFECTIVE = 140, 105
"""Published numbers of strips."""
DEFECTS = {
    **{"002": "broken_end", "006": "broken_yarn", "010": "broken_pick", "016": "weft_curling"},
    **{"019": "fuzzyball", "022": "cut_selvage", "023": "crease", "025": "warp_ball"},
    **{"027": "knots", "029": "contamination", "030": "nep", "036": "weft_crack"},
}
"""Code in the name of a strip, NNNN_<code>_<fabric>.png, and the kind of defect."""
NO_MASK = frozenset({"0100_025_08", "0106_010_03"})
"""Defective strips of the official archive without a mask, or with one that marks nothing: no patch of theirs
is sure to show the defect, so they give none. The paper counts 105 patches and does not say how it took
these."""
SIZE = 256
FOLDERS = ("NODefect_images", "Defect_images", "Mask_images")


class _Strips(NamedTuple):
    good: list[Path]
    defective: list[Path]
    masks: dict[Path, list[Path]]
    """Several files where a strip has several defects: <strip>_mask1.png, <strip>_mask2.png."""


def aitex(
    path: Path | str,
    *,
    crops: int = 5,
    train_images: int = 20,
    seed: int = 0,
    split: Wanted = None,
    copies: Path | str | None = None,
) -> Samples:
    """Patches of 256 x 256 pixels of NODefect_images/<fabric>/*.png, Defect_images/*.png with
    Mask_images/<strip>_mask.png.

    Of each good strip `crops` patches at random places; of each defective strip one, at a random place that
    shows the middle of its largest defect, with the mask cut alike. The paper cuts 5 patches of each image
    and counts 600 good and 105 defective patches to test on: so 100 good ones are to draw shots from. Which
    ones it does not say; here all patches of `train_images` strips, drawn by `seed`, are train and the
    others test: `group` is the strip. `view` is the fabric, `defect` the kind of defect. The patches are cut
    once, as PNG, into `copies`, by default kizu_copies in `path`. split: take only this one.

    Raises LayoutError, UsageError, EmptyData; MaskError for a defective strip without a mask, a mask without
    a strip, or one of another size."""
    checks.whole_numbers(crops=crops, train_images=train_images)
    checks.whole_numbers(least=0, seed=seed)
    root = root_of(path, "aitex")
    strips = _strips(root)
    if train_images >= len(strips.good):
        raise UsageError(
            f"train_images={train_images} of {len(strips.good)} good strips leaves none to test on. "
            "Name fewer."
        )
    every = [*strips.good, *strips.defective, *(mask for masks in strips.masks.values() for mask in masks)]
    facts = {"dataset": "aitex", "crops": crops, "size": SIZE, "seed": seed, "source": source_facts(every)}
    folder = folder_of_copies(root, copies) / f"aitex_{crops}x{SIZE}_seed{seed}"
    images = made_once(folder, facts, partial(_write, strips=strips, crops=crops, seed=seed))
    order = np.random.default_rng([seed, 1]).permutation(len(strips.good))
    train = {strips.good[number].stem for number in order[:train_images]}
    rows = [_row(image, folder, train) for image in images]
    return to_samples(rows, "aitex", _beside(root, strips)).where(split=split)


def expected_counts() -> dict[tuple[str, str | None, int], int]:
    """(category, split, label) -> number of patches of the 140 good strips and the 103 with a mask."""
    bad = DEFECTIVE - len(NO_MASK)
    return {("aitex", "train", 0): 100, ("aitex", "test", 0): 5 * GOOD - 100, ("aitex", "test", 1): bad}


def _strips(root: Path) -> _Strips:
    gone = [name for name in FOLDERS if not (root / name).is_dir()]
    if gone:
        there = some([sub.name for sub in folders_in(root)]) or "none"
        raise LayoutError(
            f"{root} holds no {some(gone)}; AITEX has {some(FOLDERS)}, each from an archive of its own. Its "
            f"folders: {there}."
        )
    good, bad = images_below(root / FOLDERS[0]), list_images(root / FOLDERS[1])
    if not good or not bad:
        raise EmptyData(f"{root / FOLDERS[0 if not good else 1]} holds no images.")
    stems = [strip.stem for strip in (*good, *bad)]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise LayoutError(f"{root} holds several strips of one name: {some(twice)}. Keep one of each.")
    wrong = [stem for stem in stems if not re.fullmatch(r"\d+_\d+_\d+", stem)]
    if wrong:
        raise LayoutError(
            f"{root}: strips are named <number>_<defect>_<fabric>, such as 0001_002_00; not so: "
            f"{some(wrong)}."
        )
    masks = _masks(root / FOLDERS[2], bad)
    return _Strips(good, [strip for strip in bad if strip.stem not in NO_MASK], masks)


def _masks(folder: Path, bad: list[Path]) -> dict[Path, list[Path]]:
    """Defective strip -> its masks. Raises MaskError with the files."""
    by_stem = {strip.stem: strip for strip in bad}
    masks: dict[Path, list[Path]] = {strip: [] for strip in bad if strip.stem not in NO_MASK}
    extra = []
    for mask in list_images(folder):
        stem = re.sub(r"_mask\d*$", "", mask.stem)
        if stem in NO_MASK:
            continue
        if stem in by_stem:
            masks[by_stem[stem]].append(mask)
        else:
            extra.append(mask.name)
    missing = [strip.name for strip, files in masks.items() if not files]
    if missing or extra:
        raise MaskError(
            f"{folder}: {len(missing)} defective strips without a mask ({some(missing) or 'none'}), "
            f"{counted(len(extra), 'mask')} without a strip ({some(extra) or 'none'}). A mask is named "
            "<strip>_mask.png, or <strip>_mask1.png and so on."
        )
    return masks


def _write(folder: Path, *, strips: _Strips, crops: int, seed: int) -> None:
    """Patches into folder/images and their masks into folder/masks. Draws depend on seed and strip alone."""
    for strip in strips.good:
        values = _opened(strip)
        generator = np.random.default_rng([seed, *map(int, strip.stem.split("_"))])
        free = values.shape[1] - SIZE + 1
        if crops > free:
            raise UsageError(f"{strip} has {free} places for a patch, fewer than crops={crops}. Name fewer.")
        lefts = generator.choice(free, crops, replace=False)
        tops = generator.integers(0, values.shape[0] - SIZE + 1, size=crops)
        names = [f"{strip.stem}_{number}_x{left:04d}" for number, left in enumerate(lefts)]
        write_pixels(
            folder / "images", names, [_cut(values, *place) for place in zip(tops, lefts, strict=True)]
        )
    for strip in strips.defective:
        values = _opened(strip)
        shape = (values.shape[0], values.shape[1])
        parts = [open_mask(mask, shape=shape, rule=MASK_RULE) for mask in strips.masks[strip]]
        mask = np.logical_or.reduce(parts)
        if not mask.any():
            raise MaskError(f"{strips.masks[strip][0]} marks no defect; without one no patch can be chosen.")
        generator = np.random.default_rng([seed, *map(int, strip.stem.split("_"))])
        top, left = _place(mask, generator)
        name = f"{strip.stem}_0_x{left:04d}"
        write_pixels(folder / "images", [name], [_cut(values, top, left)])
        write_pixels(folder / "masks", [name], [_cut(mask, top, left).astype(np.uint8) * 255])


def _place(mask: NDArray[np.bool_], generator: np.random.Generator) -> tuple[int, int]:
    """(top, left) of a patch, drawn among those with the middle of the largest 8-connected region: its pixel
    next to its centroid."""
    regions, _ = ndimage.label(mask, np.ones((3, 3)))
    areas = np.bincount(regions.ravel())
    areas[0] = 0
    pixels = np.argwhere(regions == int(areas.argmax()))
    middle = pixels[((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    low = np.maximum(middle - SIZE + 1, 0)
    high = np.minimum(middle, np.array(mask.shape) - SIZE)
    top, left = generator.integers(low, high + 1)
    return int(top), int(left)


def _opened(strip: Path) -> NDArray[np.uint8]:
    values = open_values(strip)
    if min(values.shape[:2]) < SIZE:
        raise LayoutError(
            f"{strip} has {values.shape[0]} x {values.shape[1]} pixels (height x width); a patch of "
            f"{SIZE} x {SIZE} does not fit. AITEX strips have 256 x 4096."
        )
    return values


def _cut(values: NDArray[Any], top: int, left: int) -> NDArray[Any]:
    return values[top : top + SIZE, left : left + SIZE]


def _row(image: Path, folder: Path, train: set[str]) -> Row:
    number, code, fabric = image.stem.split("_")[:3]
    strip = f"{number}_{code}_{fabric}"
    mask = folder / "masks" / image.name
    bad = mask.is_file()
    return Row(
        image,
        "aitex",
        DEFECTS.get(code, f"code_{code}") if bad else "good",
        int(bad),
        "train" if strip in train else "test",
        mask if bad else None,
        view=f"fabric {fabric}",
        group=strip,
    )


def _beside(root: Path, strips: _Strips) -> Found:
    """What lies among the strips and is none; the two that give no patch belong to the data set."""
    of_strips = [Row(strip, "aitex", "good", 0) for strip in (*strips.good, *strips.defective)]
    aside = [image for image in list_images(root / FOLDERS[1]) if image.stem in NO_MASK]
    return unread(of_strips, [root / FOLDERS[0], root / FOLDERS[1]], aside=aside)
