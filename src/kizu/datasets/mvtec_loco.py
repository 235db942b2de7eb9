"""MVTec LOCO AD (5 products): structural defects, and logical ones, where sound parts are missing, too many
or in the wrong place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kizu.datasets._categories import categories_in
from kizu.datasets._layout import chosen, folders_in, images_in, need_good, root_of, to_samples, unread
from kizu.datasets._masks import Row
from kizu.errors import DataError, LayoutError, MaskError, counted, some
from kizu.images import list_images, open_image
from kizu.masks import MaskRule
from kizu.samples import Samples, Wanted

LICENCE = "CC BY-NC-SA 4.0 (not for commercial use)"
CITATION = (
    "P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger, C. Steger: Beyond Dents and Scratches: Logical "
    "Constraints in Unsupervised Anomaly Detection and Localization, IJCV 130, 2022"
)
HOMEPAGE = "https://www.mvtec.com/company/research/datasets/mvtec-loco"
MASK_RULE: MaskRule = "folder"
"""An image has a folder of masks, one a defect, whose grey value names the kind of defect; their union is
what pixel metrics see."""

KINDS = ("structural", "logical")
"""`defect` of anomalous images."""
COUNTS = {
    "breakfast_box": (351, 62, 102, 90, 83),
    "juice_bottle": (335, 54, 94, 94, 142),
    "pushpins": (372, 69, 138, 81, 91),
    "screw_bag": (360, 60, 122, 82, 137),
    "splicing_connectors": (354, 59, 119, 85, 108),
}
"""Published counts of each category: training, validation, good test, structural, logical (1,772 / 304 / 575
/ 432 / 561 in all)."""


class Defect(NamedTuple):
    """One defect of an image. mask: (H, W) bool. saturation: pixels of it that must be found for it to count
    as found, 1 to its area."""

    name: str
    mask: NDArray[np.bool_]
    saturation: int


def mvtec_loco(path: Path | str, *, category: Wanted = None, split: Wanted = None) -> Samples:
    """<category>/{train,validation,test}/good, test/{structural,logical}_anomalies,
    ground_truth/<kind>_anomalies/<image>/NNN.png.

    path: the folder of the categories, or one category's own folder. Validation images are good and have no
    split: they may serve calibration. `defect` is "structural" or "logical"; `mask` is the first file of the
    image's mask folder and stands for the union of all (MASK_RULE); `defects` gives them one by one, with
    their saturation areas, for sPRO. The archive has been seen with 6 training and 1 validation image more
    than the publication counts; `kizu data check` says which. category, split: take only these. Raises
    LayoutError, UnknownName for a category that is not there, EmptyData, MaskError."""
    root = root_of(path, "mvtec_loco")
    by_name = categories_in(
        root, _is_category, noun="category", expected="<category>/train/good and <category>/test/good"
    )
    rows, names = [], chosen(category, list(by_name), "category")
    for name in names:
        part = _read(by_name[name])
        need_good(part, by_name[name], ("good",))
        rows += part
    found = unread(rows, [by_name[name] for name in names])
    return to_samples(rows, "mvtec_loco", found).where(split=split)


def defects(mask: Path | str) -> list[Defect]:
    """The defects of one image, by the `mask` of its row: one for each file of that folder, in the order of
    their names.

    Saturation areas are those of the category's defects_config.json: a share of the defect's area, rounded
    down, or a number of pixels, at most its area. They are counts of pixels at the image's own size: bring
    maps to that size before sPRO. A defect may lie over another. Raises LayoutError for a missing or odd
    defects_config.json, MaskError for a mask with several values or with one that is not in it."""
    folder = Path(mask).parent
    config = _config(folder.parents[2] / "defects_config.json")
    layers = []
    for file in list_images(folder):
        values = open_image(file)[..., 0]
        marked = np.unique(values[values > 0]).tolist()
        if len(marked) != 1 or marked[0] not in config:
            raise MaskError(
                f"{file}: a mask of MVTec LOCO AD marks one defect with one grey value of "
                f"defects_config.json ({some(sorted(config))}), got {some(marked) or 'none'}."
            )
        name, threshold, relative = config[marked[0]]
        area = int((values > 0).sum())
        saturation = int(threshold * area) if relative else min(int(threshold), area)
        layers.append(Defect(name, values > 0, max(saturation, 1)))
    return layers


def expected_counts() -> dict[tuple[str, str | None, int], int]:
    """(category, split, label) -> published number of images; no split: validation."""
    keys = (("train", 0), (None, 0), ("test", 0), ("test", 1))
    counts = {
        name: (train, validation, good, bad + odd)
        for name, (train, validation, good, bad, odd) in COUNTS.items()
    }
    return {
        (name, split, label): n
        for name, four in counts.items()
        for (split, label), n in zip(keys, four, strict=True)
    }


def problems(root: Path, samples: Samples) -> list[str]:
    """Kinds whose number of images is not the published one, and images whose defects cannot be read one by
    one."""
    lines = []
    for name in sorted(set(samples.table["category"]) & COUNTS.keys()):
        bad = samples.where(category=name).anomalous.table["defect"].to_list()
        due = zip(KINDS, COUNTS[name][3:], strict=True)
        lines += [
            f"{name}, {kind}: {counted(bad.count(kind), 'image')} where {n} are published"
            for kind, n in due
            if bad.count(kind) != n
        ]
    broken = []
    for mask in samples.anomalous.table["mask"].drop_nulls():
        try:
            defects(mask)
        except DataError as error:
            broken.append(str(error))
    broken = list(dict.fromkeys(broken))
    return lines + ([f"sPRO cannot be measured: {some(broken, 3)}"] if broken else [])


def _read(folder: Path) -> list[Row]:
    """Rows of one category."""
    name = folder.name
    rows = [Row(image, name, "good", 0, "train") for image in images_in(folder / "train" / "good")]
    if (folder / "validation" / "good").is_dir():
        rows += [Row(image, name, "good", 0) for image in images_in(folder / "validation" / "good")]
    rows += [Row(image, name, "good", 0, "test") for image in images_in(folder / "test" / "good")]
    odd = {sub.name for sub in folders_in(folder / "test")} - {
        "good",
        *(f"{kind}_anomalies" for kind in KINDS),
    }
    if odd:
        raise LayoutError(
            f"{folder / 'test'} holds {some(sorted(odd))} beside good, structural_anomalies and "
            "logical_anomalies. Remove or rename them."
        )
    for kind in KINDS:
        if (folder / "test" / f"{kind}_anomalies").is_dir():
            rows += _anomalous(folder, kind)
    return rows


def _anomalous(folder: Path, kind: str) -> list[Row]:
    images = images_in(folder / "test" / f"{kind}_anomalies")
    masks = folder / "ground_truth" / f"{kind}_anomalies"
    parts = {sub.name: list_images(sub) for sub in folders_in(masks)} if masks.is_dir() else {}
    missing = [image.name for image in images if not parts.get(image.stem)]
    extra = sorted(parts.keys() - {image.stem for image in images})
    if missing or extra:
        raise MaskError(
            f"{masks}: "
            f"{counted(len(missing), 'image')} without a mask ({some(missing)}), {len(extra)} mask folders "
            f"without an image ({some(extra)}). The masks of an image lie in the folder of its name, as "
            "000/000.png."
        )
    return [Row(image, folder.name, kind, 1, "test", parts[image.stem][0]) for image in images]


def _config(file: Path) -> dict[int, tuple[str, float, bool]]:
    """Grey value -> (name, saturation threshold, whether it is a share of the area)."""
    try:
        entries = json.loads(file.read_text("utf-8"))
        config = {int(entry["pixel_value"]): _entry(entry) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise LayoutError(
            f"{file} does not give the saturation areas ({detail}). A list of objects with defect_name, "
            "pixel_value, saturation_threshold and relative_saturation was expected; it comes with the data "
            "set."
        ) from error
    return config


def _entry(entry: dict[str, Any]) -> tuple[str, float, bool]:
    threshold, relative = float(entry["saturation_threshold"]), bool(entry["relative_saturation"])
    if threshold <= 0 or (relative and threshold > 1):
        raise ValueError(f"saturation_threshold of {entry['defect_name']} is {threshold}")
    return str(entry["defect_name"]), threshold, relative


def _is_category(folder: Path) -> bool:
    return (folder / "train" / "good").is_dir() and (folder / "test" / "good").is_dir()
