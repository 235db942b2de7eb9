"""Real-IAD (30 products, 151,050 photographs by five cameras), by its split lists or by its folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from kizu.checks import without_effect
from kizu.datasets._layout import chosen, folders_in, need_good, root_of, to_samples, unread
from kizu.datasets._masks import Row
from kizu.datasets._real_iad_lists import Entry, read_list
from kizu.errors import LayoutError, MaskError, UnknownName, counted, some
from kizu.image_files import list_images
from kizu.masks import MaskRule
from kizu.samples import Samples, Wanted

LICENCE = "CC BY-NC-SA 4.0 (not for commercial use), on request to its authors"
CITATION = (
    "C. Wang, W. Zhu, B.-B. Gao, Z. Gan, J. Zhang, Z. Gu, S. Qian, M. Chen, L. Ma: Real-IAD: A Real-World "
    "Multi-View Dataset for Benchmarking Versatile Industrial Anomaly Detection, CVPR 2024"
)
HOMEPAGE = "https://realiad4ad.github.io/Real-IAD/"
MASK_RULE: MaskRule = "nonzero"

CATEGORIES = (
    *("audiojack", "bottle_cap", "button_battery", "end_cap", "eraser", "fire_hood", "mint", "mounts", "pcb"),
    *("phone_battery", "plastic_nut", "plastic_plug", "porcelain_doll", "regulator", "rolled_strip_base"),
    *("sim_card_set", "switch", "tape", "terminalblock", "toothbrush", "toy", "toy_brick", "transistor1"),
    *("u_block", "usb", "usb_adaptor", "vcpill", "wooden_beads", "woodstick", "zipper"),
)
TOTALS = {("train", 0): 36_465, ("test", 0): 63_256, ("test", 1): 51_329}
"""Published numbers of all products together, by the list "multi_view"."""
RESOLUTIONS = ("256", "512", "1024", "raw")
SplitName = Literal["multi_view", "single_view", "noise_0.0", "noise_0.1", "noise_0.2", "noise_0.4", "none"]
LISTS: dict[SplitName, str] = {
    "multi_view": "realiad_jsons",
    "single_view": "realiad_jsons_sv",
    "noise_0.0": "realiad_jsons_fuiad_0.0",
    "noise_0.1": "realiad_jsons_fuiad_0.1",
    "noise_0.2": "realiad_jsons_fuiad_0.2",
    "noise_0.4": "realiad_jsons_fuiad_0.4",
}
"""Official split lists: name here -> folder of <product>.json. single_view has the camera C1 only."""
_VIEW = re.compile(r"_(C[1-5])_")


def real_iad(
    path: Path | str,
    *,
    category: Wanted = None,
    split: Wanted = None,
    view: Wanted = None,
    split_json: SplitName = "multi_view",
    resolution: str | None = None,
) -> Samples:
    """<product>/OK/Sxxxx/*.jpg and <product>/NG/<defect>/Sxxxx/*.jpg; a mask is the .png of the same name.

    path: the folder of realiad_<resolution>/ and realiad_jsons/, or a folder realiad_<resolution> itself.
    resolution: "256", "512", "1024" or "raw", where several lie there. split_json: an official list
    (`LISTS`), or "none": every image, without a split, as ADPretrain reads the data set. A photograph is
    anomalous where it has a mask: a view of a defective part that does not show the defect is good. With the
    lists "noise_...", all images to learn from are taken as good (`Samples.as_good`), and some are not.
    `view` is the camera, "C1" to "C5"; `group` is the part, whose views are never divided and count once;
    `defect` is the code of the defect (AK pit, BX deformation, CH abrasion, HS scratch, PS damage, QS missing
    part, YW foreign object, ZW contamination). category, split, view: take only these. Raises LayoutError,
    UnknownName, MaskError for masks that do not pair, EmptyData, UsageError for a resolution without
    effect."""
    if split_json not in (*LISTS, "none"):
        raise UnknownName("split list of Real-IAD", split_json, (*LISTS, "none"))
    root = root_of(path, "real_iad")
    images = _images_folder(root, resolution)
    there = [sub.name for sub in folders_in(images) if _is_category(sub)]
    names = chosen(category, there, "category")
    folders = [images / name for name in names]
    if split_json == "none":
        rows = [row for folder in folders for row in _read_folders(folder)]
    else:
        lists = _lists_folder(root, LISTS[split_json])
        rows = [row for folder in folders for row in _read_listed(folder, lists)]
    need_good(rows, images, ("OK",))
    samples = _collected(rows, folders, split_json)
    return samples.where(split=split, view=view)


def expected_counts() -> dict[tuple[str, str | None, int], int]:
    """Nothing by product, none is published as text; `TOTALS` has all products together."""
    return {}


def problems(root: Path, samples: Samples) -> list[str]:
    """Totals other than the published ones, where all 30 products are there; anomalous images to learn from;
    parts with two photographs by one camera."""
    table, lines = samples.table, []
    if set(CATEGORIES) <= set(table["category"].unique()):
        got = {(split, label): n for split, label, n in table.group_by("split", "label").len().iter_rows()}
        lines += [
            f"{split}, {'anomalous' if label else 'normal'}: {got.get((split, label), 0)} images where {n} "
            "are published"
            for (split, label), n in TOTALS.items()
            if got.get((split, label), 0) != n
        ]
    bad = samples.train.anomalous.paths
    if bad:
        which = counted(len(bad), "image to learn from has", "images to learn from have")
        lines.append(f"{which} a mask: {some(bad, 3)}")
    twice = table.select("group", "view").is_duplicated()
    if twice.any():
        parts = sorted(set(table.filter(twice)["group"].to_list()))
        lines.append(
            f"{counted(len(parts), 'part has', 'parts have')} two photographs by one camera: {some(parts, 3)}"
        )
    return lines


def _collected(rows: Sequence[Row], folders: Sequence[Path], split_json: SplitName) -> Samples:
    """Samples of the rows. Images that no row names are said where all should be named."""
    if split_json.startswith("noise_"):
        learned = to_samples([row for row in rows if row.split == "train"], "real_iad").as_good()
        return learned.concat(to_samples([row for row in rows if row.split == "test"], "real_iad"))
    if split_json == "single_view":
        return to_samples(rows, "real_iad")
    why = "which this layout does not read there" if split_json == "none" else "and the list does not name it"
    masks = [row.image.with_suffix(".png") for row in rows]
    return to_samples(rows, "real_iad", unread(rows, folders, aside=masks, why=why))


def _images_folder(root: Path, resolution: str | None) -> Path:
    """The folder of the products."""
    if any(_is_category(sub) for sub in folders_in(root)):
        without_effect("where the path is the folder of the products", resolution=(resolution, None))
        return root
    found = {name: root / f"realiad_{name}" for name in RESOLUTIONS if (root / f"realiad_{name}").is_dir()}
    if not found:
        inside = some([sub.name for sub in folders_in(root)]) or "none"
        raise LayoutError(
            f"{root} holds neither realiad_256, _512, _1024 or _raw nor products (<product>/OK, "
            f"<product>/NG); there are: {inside}."
        )
    if resolution is None and len(found) > 1:
        raise LayoutError(
            f"{root} holds the images in {len(found)} sizes: {some(found)}. Name one of them, as in "
            f"resolution={next(iter(found))!r}."
        )
    wanted = resolution or next(iter(found))
    if wanted not in found:
        raise UnknownName("resolution of Real-IAD", wanted, found)
    return found[wanted]


def _lists_folder(root: Path, name: str) -> Path:
    """The folder of the split lists, beside the images or in realiad_jsons/."""
    tried = [base / inner / name for base in (root, root.parent) for inner in ("realiad_jsons", ".")]
    for folder in tried:
        if folder.is_dir() and any(folder.glob("*.json")):
            return folder
    raise LayoutError(
        f"{root} has no split lists {name}/<product>.json, here, in realiad_jsons/ or beside it. They are "
        f"published with the images ({HOMEPAGE}); split_json='none' reads the folders without them."
    )


def _read_listed(folder: Path, lists: Path) -> list[Row]:
    """Rows of one product by its list."""
    file = lists / f"{folder.name}.json"
    if not file.is_file():
        raise LayoutError(f"{lists} has no {file.name}, though {folder} is there. Give its list, or move it.")
    entries = read_list(file)
    places = {name.rpartition("/")[0] for entry in entries for name in (entry.image, entry.mask) if name}
    there = {f"{place}/{image.name}" for place in places for image in _files(folder / place)}
    wanted = [name for entry in entries for name in (entry.image, entry.mask) if name]
    missing = [name for name in wanted if name not in there]
    if missing:
        raise LayoutError(
            f"{file} names {counted(len(missing), 'file')} not below {folder}: {some(missing)}."
        )
    return [_row(folder, entry) for entry in entries]


def _read_folders(folder: Path) -> list[Row]:
    """Rows of one product by its folders: all images, none with a split."""
    rows = []
    kinds = [folder / "OK", *(folders_in(folder / "NG") if (folder / "NG").is_dir() else [])]
    for kind in kinds:
        parts = folders_in(kind) if kind.is_dir() else []
        files = [file for part in parts for file in list_images(part)]
        masks = {file.with_suffix(""): file for file in files if file.suffix.lower() == ".png"}
        for image in (file for file in files if file.suffix.lower() != ".png"):
            mask = masks.pop(image.with_suffix(""), None)
            if mask is not None and kind.name == "OK":
                raise MaskError(
                    f"{mask} is a mask of a part in OK/, which has no defect. Move the part to NG/."
                )
            name = image.relative_to(folder).as_posix()
            shown = mask.relative_to(folder).as_posix() if mask else None
            rows.append(_row(folder, Entry(name, shown, kind.name if mask else "good", None)))
        if masks:
            raise MaskError(
                f"{kind} holds {counted(len(masks), 'mask')} without an image: {some(masks.values(), 3)}."
            )
    return rows


def _row(folder: Path, entry: Entry) -> Row:
    """The row of an entry whose files are there."""
    image = folder / entry.image
    found = _VIEW.search(image.name)
    if found is None:
        raise LayoutError(
            f"{image}: the camera is read from the file's name, <product>_NNNN_<OK or NG_code>_C1_<time>.jpg "
            "with C1 to C5; this one names none."
        )
    group = f"{folder.name}/{Path(entry.image).parent.as_posix()}"
    mask = folder / entry.mask if entry.mask else None
    label = int(mask is not None)
    return Row(image, folder.name, entry.defect, label, entry.split, mask, found[1], group)


def _files(folder: Path) -> list[Path]:
    return list_images(folder) if folder.is_dir() else []


def _is_category(folder: Path) -> bool:
    return (folder / "OK").is_dir() or (folder / "NG").is_dir()
