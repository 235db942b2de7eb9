"""Volumes of an X-ray microscope (SemiCon: voids in the solder of memory dies), looked at slice by slice. The
paper's own 53 volumes are private: this reads yours."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from kizu import checks
from kizu.datasets._copies import DAMAGED, folder_of_copies, made_once, source_facts, write_pixels
from kizu.datasets._layout import folders_in, need_good, root_of, to_samples
from kizu.datasets._masks import Row
from kizu.errors import EmptyData, LayoutError, MaskError, UnknownName, UsageError, counted, some
from kizu.image_files import Found
from kizu.masks import MaskRule
from kizu.samples import Samples, Wanted

LICENCE = "your own (the paper's volumes are private)"
CITATION = (
    "R. S. Pahwa et al.: Automated Attribute Measurements of Buried Package Features in 3D X-ray Images "
    "using Deep Learning, IEEE Electronic Components and Technology Conference, 2021"
)
HOMEPAGE = ""
MASK_RULE: MaskRule = "half"

AXES = {"z": 0, "y": 1, "x": 2}
"""Name of the axis that is cut across, and its number in an array (z, y, x)."""
SUFFIXES = (".npy", ".tif", ".tiff")
GOOD, DEFECT, MASKS = "good", "defect", "masks"
Axis = Literal["z", "y", "x"]


class _Volume(NamedTuple):
    file: Path
    kind: str
    """"good", or the kind of defect."""
    mask: Path | None
    slices: dict[int, str] | None
    """Slice -> kind, where labels.csv says it; None: all are of the volume's kind, or as its mask says."""
    split: str | None


def semicon(
    path: Path | str,
    *,
    axis: Axis = "z",
    every: int = 1,
    margin: float = 0.0,
    split: Wanted = None,
    copies: Path | str | None = None,
) -> Samples:
    """Volumes as .npy arrays (z, y, x) or TIFF stacks, cut into slices across `axis`; `group` is the volume.

    By folders: good/<volume>, defect/<volume> or defect/<kind>/<volume>, and where there are any
    masks/<volume> of the same shape: then a slice of a defective volume is anomalous where its mask marks a
    voxel, and good where it marks none. Without a mask all its slices count as anomalous, also those beside
    the void: give masks, or labels.csv (columns volume, label 0/1, optional slice, kind, split) in `path`,
    that names the volumes in it or in volumes/; with slice, only the slices listed are taken. Its column
    split is train or test; by folders there is none, and few_shot and imbalanced draw one. Anomalous slices
    of a training volume have no split.
    every: take each so many-th slice. margin: share of the slices left away at either end, 0 to below 0.5.
    Values stay as they are: uint8 and uint16 (name its white with --white-level), bool, and floats from 0 to
    1, which become 16 bits. The slices are written once as PNG into `copies`, by default kizu_copies in
    `path`. split: take only this one.

    Raises LayoutError, UnknownName, UsageError, EmptyData, MaskError for masks that do not fit."""
    if axis not in AXES:
        raise UnknownName("axis of a volume", str(axis), AXES)
    checks.whole_numbers(every=every)
    if not checks.is_real(margin) or not 0 <= margin < 0.5:
        raise UsageError(f"margin is a share from 0 to below 0.5, got {margin!r}.")
    root = root_of(path, "semicon")
    by_list = (root / "labels.csv").is_file()
    volumes = _from_list(root) if by_list else _from_folders(root)
    place = folder_of_copies(root, copies) / f"semicon_{axis}_every{every}_margin{margin:g}"
    rows = []
    for volume in volumes:
        files = [file for file in (volume.file, volume.mask) if file]
        listed = None if volume.slices is None else sorted(volume.slices)
        facts: dict[str, Any] = {"axis": axis, "every": every, "margin": margin, "slices": listed}
        facts["source"] = source_facts(files)
        write = partial(_write, volume=volume, axis=AXES[axis], every=every, margin=float(margin))
        folder = place / volume.file.stem
        rows += [_row(image, folder, volume) for image in made_once(folder, facts, write)]
    need_good(rows, root, (GOOD,))
    found = Found(unused=_unread(root, by_list))
    return to_samples(rows, "semicon", found).where(split=split)


def expected_counts() -> dict[tuple[str, str | None, int], int]:
    """None: the data set is not published. The paper tests on 500 good and 110 defective slices."""
    return {}


def _from_folders(root: Path) -> list[_Volume]:
    if not (root / GOOD).is_dir() or not (root / DEFECT).is_dir():
        there = some([sub.name for sub in folders_in(root)]) or "none"
        raise LayoutError(
            f"{root} holds neither labels.csv nor {GOOD}/ and {DEFECT}/ with volumes; its folders: {there}."
        )
    found = [(file, GOOD) for file in _volumes_in(root / GOOD)]
    found += [(file, DEFECT) for file in _volumes_in(root / DEFECT)]
    for sub in folders_in(root / DEFECT):
        found += [(file, sub.name) for file in _volumes_in(sub)]
    if not found:
        raise EmptyData(f"{root} holds no volumes ({', '.join(SUFFIXES)}) in {GOOD}/ and {DEFECT}/.")
    _refuse_twice(root, [file for file, _ in found])
    return [_Volume(file, kind, mask, None, None) for (file, kind), mask in _with_masks(root, found)]


def _with_masks(root: Path, found: list[tuple[Path, str]]) -> list[tuple[tuple[Path, str], Path | None]]:
    masks = {file.stem: file for file in _volumes_in(root / MASKS)} if (root / MASKS).is_dir() else {}
    stems = {file.stem for file, _ in found}
    bad = [file.name for file, kind in found if kind != GOOD and masks and file.stem not in masks]
    extra = [mask.name for stem, mask in masks.items() if stem not in stems]
    if bad or extra:
        raise MaskError(
            f"{root / MASKS}: {len(bad)} defective volumes without a mask ({some(bad) or 'none'}), "
            f"{counted(len(extra), 'mask')} without a volume ({some(extra) or 'none'}). A mask has its "
            "volume's name."
        )
    return [(entry, masks.get(entry[0].stem) if entry[1] != GOOD else None) for entry in found]


def _from_list(root: Path) -> list[_Volume]:
    file = root / "labels.csv"
    table = pl.read_csv(file, infer_schema=False)
    known = ("volume", "label", "slice", "kind", "split")
    if not {"volume", "label"} <= set(table.columns) or set(table.columns) - set(known):
        raise LayoutError(
            f"{file} has the columns {', '.join(table.columns)}; volume and label are needed, and slice, "
            "kind and split may be there."
        )
    odd = sorted(set(map(str, table["label"].unique())) - {"0", "1"})
    if odd:
        raise LayoutError(f"{file}: label is 0 or 1, got {some(odd)}.")
    there = {f.name: f for f in [*_volumes_in(root / "volumes"), *_volumes_in(root)]}
    rows_of: dict[str, list[dict[str, str | None]]] = {}
    for row in table.iter_rows(named=True):
        rows_of.setdefault(str(row["volume"]), []).append(row)
    gone = [name for name in rows_of if name not in there]
    if gone:
        raise LayoutError(f"{file} names volumes that are neither in {root} nor in volumes/: {some(gone)}.")
    _refuse_twice(root, [there[name] for name in rows_of])
    return [_listed(file, there[name], rows) for name, rows in rows_of.items()]


def _listed(list_file: Path, file: Path, rows: list[dict[str, str | None]]) -> _Volume:
    """A volume and its rows of labels.csv."""
    kinds = [(row.get("kind") or DEFECT) if row["label"] == "1" else GOOD for row in rows]
    splits = {row.get("split") or None for row in rows}
    if len(splits) > 1 or splits - {"train", "test", None}:
        raise LayoutError(
            f"{list_file}: {file.name} has the splits {some(sorted(map(str, splits)))}; a volume as a "
            "whole is train, test or empty."
        )
    split = splits.pop()
    if "slice" not in rows[0]:
        if len(rows) > 1:
            raise LayoutError(f"{list_file} lists {file.name} {len(rows)} times and has no column slice.")
        return _Volume(file, kinds[0], None, None, split)
    numbers = [row["slice"] or "" for row in rows]
    if len(set(numbers)) < len(numbers) or not all(number.isdecimal() for number in numbers):
        raise LayoutError(f"{list_file}: slices of {file.name} are numbers from 0 on, each once.")
    return _Volume(file, "listed", None, dict(zip(map(int, numbers), kinds, strict=True)), split)


def _refuse_twice(root: Path, files: list[Path]) -> None:
    stems = [file.stem for file in files]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise LayoutError(f"{root} holds several volumes of one name: {some(twice)}. Rename them.")


def _volumes_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file() and f.name[0] != "."
    )


def _unread(root: Path, by_list: bool) -> list[tuple[str, str]]:
    """Files among the volumes that are none."""
    places = [root / "volumes"] if by_list else [root / GOOD, root / DEFECT, *folders_in(root / DEFECT)]
    files = [f for place in places if place.is_dir() for f in sorted(place.iterdir()) if f.is_file()]
    others = [f for f in files if f.suffix.lower() not in SUFFIXES and f.name[0] != "."]
    return [(str(file), f"is no volume ({', '.join(SUFFIXES)})") for file in others]


def _write(folder: Path, *, volume: _Volume, axis: int, every: int, margin: float) -> None:
    """Slices into folder/images and, where the volume has a mask, those that it marks into folder/masks."""
    values = _opened(volume.file)
    count = values.shape[axis]
    start = math.floor(count * margin)
    taken = list(range(start, count - start, every))
    if volume.slices is not None:
        late = [number for number in volume.slices if number >= count]
        if late:
            raise LayoutError(f"{volume.file} has {count} slices, 0 to {count - 1}; listed: {some(late)}.")
        taken = [number for number in taken if number in volume.slices]
    names = [f"{number:05d}" for number in taken]
    cut: Callable[[NDArray[Any], int], NDArray[Any]] = partial(np.take, axis=axis)
    write_pixels(folder / "images", names, (_storable(cut(values, number)) for number in taken))
    if volume.mask is None:
        return
    marks: NDArray[np.bool_] = np.not_equal(_opened(volume.mask), 0)
    if marks.shape != values.shape:
        raise MaskError(
            f"{volume.mask} has the shape {marks.shape}, its volume {values.shape}. They must agree."
        )
    marked = [number for number in taken if cut(marks, number).any()]
    planes = (cut(marks, number).astype(np.uint8) * 255 for number in marked)
    write_pixels(folder / "masks", [f"{number:05d}" for number in marked], planes)


def _storable(plane: NDArray[Any]) -> NDArray[Any]:
    """8 or 16 bits, without loss but for floats."""
    if plane.dtype == np.bool_:
        return plane.astype(np.uint8) * 255
    if np.issubdtype(plane.dtype, np.floating):
        return np.rint(plane.astype(np.float64) * 65535).astype(np.uint16)
    return plane.astype(plane.dtype.newbyteorder("="))


def _opened(file: Path) -> NDArray[Any]:
    """(z, y, x) of one of the types that are kept. Raises LayoutError; no Python object is read."""
    try:
        values = (
            _stack(file)
            if file.suffix.lower() != ".npy"
            else np.load(file, mmap_mode="r", allow_pickle=False)
        )
    except DAMAGED as error:
        raise LayoutError(f"{file} is damaged or no volume ({error}).") from error
    if values.ndim != 3 or 0 in values.shape:
        raise LayoutError(f"{file} has the shape {values.shape}; a grey volume (z, y, x) is due.")
    kind = values.dtype.newbyteorder("=")
    if kind not in (np.uint8, np.uint16, np.bool_) and not np.issubdtype(kind, np.floating):
        raise LayoutError(
            f"{file} holds numbers of the type {values.dtype}; uint8, uint16, bool or floats from 0 to 1 are "
            "read. Save it as one of these."
        )
    if np.issubdtype(kind, np.floating):
        low, high = float(np.min(values)), float(np.max(values))
        if not (low >= 0 and high <= 1):
            raise LayoutError(
                f"{file} holds floats from {low:g} to {high:g}; 0 to 1 are read. Bring them there."
            )
    return values


def _stack(file: Path) -> NDArray[Any]:
    """The pages of a TIFF as one array."""
    with Image.open(file, formats=("TIFF",)) as image:
        if not isinstance(image, TiffImagePlugin.TiffImageFile):
            raise ValueError("it is no TIFF")
        pages = []
        for number in range(image.n_frames):
            image.seek(number)
            pages.append(np.asarray(image))
    if len({page.shape for page in pages}) > 1:
        raise ValueError("its pages differ in size")
    return np.stack(pages)


def _row(image: Path, folder: Path, volume: _Volume) -> Row:
    mask = folder / "masks" / image.name
    kind = volume.slices[int(image.stem)] if volume.slices is not None else volume.kind
    if volume.mask is not None and not mask.is_file():
        kind = GOOD  # a slice of a defective volume that its defect does not reach
    bad = kind != GOOD
    return Row(
        image,
        "semicon",
        kind,
        int(bad),
        None if bad and volume.split == "train" else volume.split,
        mask if bad and volume.mask is not None else None,
        group=volume.file.stem,
    )
