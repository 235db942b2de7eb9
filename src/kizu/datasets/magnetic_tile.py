"""Magnetic tiles (1,344 photographs, 5 kinds of defect): each tile appears under up to six exposures, so
split by group."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from kizu.datasets._layout import chosen, folders_in, need_good, root_of, to_samples, unread
from kizu.datasets._masks import Row, pair
from kizu.errors import LayoutError, counted, some
from kizu.images import list_images
from kizu.masks import MaskRule
from kizu.samples import Samples, Wanted

LICENCE = "research use with citation (no licence file; the authors ask for a citation)"
CITATION = "Y. Huang, C. Qiu, K. Yuan: Surface defect saliency of magnetic tile, The Visual Computer 36, 2020"
HOMEPAGE = "https://github.com/abin24/Magnetic-tile-defect-datasets."
MASK_RULE: MaskRule = "half"
"""The masks are anti-aliased: above 127 is a defect."""

COUNTS = {"good": 952, "blowhole": 115, "break": 85, "crack": 57, "fray": 32, "uneven": 103}
"""Published number of images of each class (good: the folder MT_Free)."""

EMPTY_MASKS = frozenset({"exp3_num_45042", "exp4_num_45057", "exp4_num_124690", "exp4_num_352527"})
"""Images of MT_Uneven whose masks mark no pixel. They stay anomalous (label 1) but get no mask, so that
`Samples.pixel_labelled` leaves them out of pixel metrics."""

GROUP_GAP = 200
"""Frame numbers further apart than this belong to different groups."""


def magnetic_tile(path: Path | str, *, defect: Wanted = None) -> Samples:
    """MT_<class>/Imgs/exp<E>_num_<N>.jpg with the mask exp<E>_num_<N>.png beside it; split is null, the data
    set has none.

    `group` is what must not be torn apart: the exposures of one tile. It is read from groups.csv (columns
    image, group) when that lies in `path`; otherwise it is worked out: in the order of their frame numbers N,
    a new group starts after a gap of more than 200. `view` is the exposure ("exp1" ... "exp6"). defect: take
    only these kinds ("good" for the tiles of MT_Free). Raises LayoutError, MaskError for images and masks
    that do not pair, UnknownName for a defect that is not there."""
    root = root_of(path, "magnetic_tile")
    classes = [sub for sub in folders_in(root) if sub.name.startswith("MT_") and (sub / "Imgs").is_dir()]
    if not classes:
        inside = some([sub.name for sub in folders_in(root)]) or "none"
        raise LayoutError(
            f"{root} holds no folder MT_<class>/Imgs, such as MT_Free/Imgs; there are: {inside}."
        )
    rows = [row for folder in classes for row in _read_class(folder)]
    need_good(rows, root, ("MT_Free",))
    groups = _groups_from_csv(root, rows) if (root / "groups.csv").is_file() else _groups_by_number(rows)
    kinds = chosen(defect, list(dict.fromkeys(row.defect for row in rows)), "defect")
    found = unread(
        rows,
        [sub for sub in folders_in(root) if sub.name.startswith("MT_")],
        aside=[row.image.with_suffix(".png") for row in rows],  # masks that mark nothing are in no row
    )
    rows = [row._replace(group=groups[row.image]) for row in rows if row.defect in kinds]
    return to_samples(rows, "magnetic_tile", found)


def expected_counts() -> dict[tuple[str, str | None, int], int]:
    """(category, split, label) -> published number of images."""
    bad = sum(COUNTS.values()) - COUNTS["good"]
    return {("magnetic_tile", None, 0): COUNTS["good"], ("magnetic_tile", None, 1): bad}


def problems(root: Path, samples: Samples) -> list[str]:
    """Classes whose number of images is not the published one."""
    there = dict(samples.table.group_by("defect").len().iter_rows())
    odd = {name: (there.get(name, 0), n) for name, n in COUNTS.items() if there.get(name, 0) != n}
    return [f"{name}: {counted(got, 'image')} where {n} are published" for name, (got, n) in odd.items()]


def _read_class(folder: Path) -> list[Row]:
    kind = folder.name.removeprefix("MT_").lower()
    kind = "good" if kind == "free" else kind
    files = list_images(folder / "Imgs")
    images = [file for file in files if file.suffix.lower() != ".png"]
    masks = pair(images, [file for file in files if file.suffix.lower() == ".png"], where=folder / "Imgs")
    rows = []
    for image in images:
        mask = None if image.stem in EMPTY_MASKS else masks[image]
        rows.append(
            Row(image, "magnetic_tile", kind, int(kind != "good"), mask=mask, view=f"exp{_numbers(image)[0]}")
        )
    return rows


def _numbers(image: Path) -> tuple[int, int]:
    """(exposure, frame number) of a file name."""
    match = re.fullmatch(r"exp(\d+)_num_(\d+)", image.stem)
    if match is None:
        raise LayoutError(
            f"{image}: names are exp<exposure>_num_<frame number>.jpg, for example exp3_num_45042.jpg."
        )
    return int(match[1]), int(match[2])


def _groups_from_csv(root: Path, rows: list[Row]) -> dict[Path, str]:
    table = pl.read_csv(root / "groups.csv", infer_schema=False)
    if not {"image", "group"} <= set(table.columns):
        raise LayoutError(
            f"{root / 'groups.csv'} has the columns {', '.join(table.columns)}; image and group are needed."
        )
    groups = {root / image: group for image, group in table.select("image", "group").iter_rows()}
    images = {row.image for row in rows}
    unknown, gone = (
        [row.image.name for row in rows if row.image not in groups],
        [p.name for p in groups if p not in images],
    )
    if unknown or gone:
        raise LayoutError(
            f"{root / 'groups.csv'} and the images disagree: "
            f"{counted(len(unknown), 'image')} not in the file "
            f"({some(unknown)}), {len(gone)} in the file and not on disk ({some(gone)}). Remove the file to "
            "have the groups worked out from the names."
        )
    return groups


def _groups_by_number(rows: list[Row]) -> dict[Path, str]:
    groups: dict[Path, str] = {}
    group, previous = 0, None
    for number, image in sorted((_numbers(row.image)[1], row.image) for row in rows):
        group += previous is not None and number - previous > GROUP_GAP
        groups[image], previous = str(group), number
    return groups
