"""KolektorSDD (cracks in the plastic of electrical commutators: 50 items, 8 images each)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import polars as pl

from kizu.datasets._layout import folders_in, need_good, root_of, to_samples, unread
from kizu.datasets._masks import Row, pair
from kizu.errors import LayoutError, counted, some
from kizu.images import list_images
from kizu.masks import MaskRule, open_mask
from kizu.samples import Samples, Wanted

LICENCE = "CC BY-NC-SA 4.0 (not for commercial use)"
CITATION = (
    "D. Tabernik, S. Sela, J. Skvarc, D. Skocaj: Segmentation-based deep-learning approach for "
    "surface-defect detection, Journal of Intelligent Manufacturing 31, 2020"
)
HOMEPAGE = "https://www.vicos.si/resources/kolektorsdd/"
MASK_RULE: MaskRule = "half"
NORMAL, DEFECTIVE = 347, 52
"""Published number of images without and with a crack."""


def ksdd(path: Path | str, *, split: Wanted = None) -> Samples:
    """kosNN/PartP.jpg with the mask kosNN/PartP_label.bmp or .png beside it; group is the item, kosNN.

    With an images.csv (columns image, defect 0/1, split) in `path`, label and split are read from it; a split
    that is neither train nor test is null. Otherwise label is 1 where the mask marks a pixel, and the split
    is by item: normal images of odd items are train, all images of even items are test, and the defective
    images of odd items have none (they may serve few-shot or supervised training). split: take only this one.
    Raises LayoutError, MaskError for images and masks that do not pair, ImageError for a damaged mask."""
    root = root_of(path, "ksdd")
    items = [sub for sub in folders_in(root) if re.fullmatch(r"kos\d+", sub.name)]
    if not items:
        inside = some([sub.name for sub in folders_in(root)]) or "none"
        raise LayoutError(f"{root} holds no item folders, such as kos01; there are: {inside}.")
    masks = {image: mask for item in items for image, mask in _read_item(item).items()}
    known = _from_csv(root, masks) if (root / "images.csv").is_file() else _from_masks(masks)
    rows = []
    for image, mask in masks.items():
        label, part = known[image]
        rows.append(
            Row(image, "ksdd", "crack" if label else "good", label, part, mask, group=image.parent.name)
        )
    need_good(rows, root, ("kosNN",))
    return to_samples(rows, "ksdd", unread(rows, items)).where(split=split)


def expected_counts() -> dict[tuple[str, str | None, int], int]:
    """Nothing by split, the data set has none of its own; `NORMAL` and `DEFECTIVE` are its published
    totals."""
    return {}


def problems(root: Path, samples: Samples) -> list[str]:
    """Totals other than the published ones, unless an images.csv says what the copy holds."""
    got = (len(samples.normal), len(samples.anomalous))
    if (root / "images.csv").is_file() or got == (NORMAL, DEFECTIVE):
        return []
    return [f"{got[0]} normal and {got[1]} defective images where {NORMAL} and {DEFECTIVE} are published"]


class _Known(NamedTuple):
    label: int
    split: str | None


def _read_item(item: Path) -> dict[Path, Path]:
    files = list_images(item)
    masks = [file for file in files if file.stem.endswith("_label")]
    return pair([file for file in files if not file.stem.endswith("_label")], masks, where=item)


def _from_masks(masks: dict[Path, Path]) -> dict[Path, _Known]:
    known = {}
    for image, mask in masks.items():
        label = int(open_mask(mask, rule=MASK_RULE).any())
        odd = int(image.parent.name.removeprefix("kos")) % 2 == 1
        known[image] = _Known(label, "test" if not odd else "train" if label == 0 else None)
    return known


def _from_csv(root: Path, masks: dict[Path, Path]) -> dict[Path, _Known]:
    file = root / "images.csv"
    table = pl.read_csv(file, infer_schema=False)
    if not {"image", "defect", "split"} <= set(table.columns):
        raise LayoutError(
            f"{file} has the columns {', '.join(table.columns)}; image, defect and split are needed."
        )
    odd = sorted(set(map(str, table["defect"].unique())) - {"0", "1"})
    if odd:
        raise LayoutError(f"{file}: defect is 0 or 1, got {some(odd)}.")
    known = {}
    for image, defect, split in table.select("image", "defect", "split").iter_rows():
        known[root / image] = _Known(int(defect), split if split in ("train", "test") else None)
    unknown, gone = (
        [str(p.relative_to(root)) for p in masks if p not in known],
        [str(p.relative_to(root)) for p in known if p not in masks],
    )
    if unknown or gone:
        raise LayoutError(
            f"{file} and the images disagree: "
            f"{counted(len(unknown), 'image')} not in the file ({some(unknown)}), "
            f"{len(gone)} in the file and not on disk ({some(gone)})."
        )
    return known
