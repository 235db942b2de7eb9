"""OCT2017 (Kermany et al.): sections of the retina by optical coherence tomography, healthy or with one of
three diseases."""

from __future__ import annotations

import re
from pathlib import Path

from kizu.datasets._layout import folders_in, read_classes, root_of, to_samples, unread
from kizu.datasets._masks import Row
from kizu.datasets._prepared import NORMAL, is_prepared, read_prepared
from kizu.errors import LayoutError, some
from kizu.masks import MaskRule
from kizu.samples import Samples, Wanted

LICENCE = "CC BY 4.0"
CITATION = (
    "D. S. Kermany et al.: Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep "
    "Learning, Cell 172, 2018"
)
HOMEPAGE = "https://data.mendeley.com/datasets/rscbjbr9sj"
MASK_RULE: MaskRule = "half"
"""There are no masks: image metrics only."""

DISEASES = ("CNV", "DME", "DRUSEN")
"""Choroidal neovascularisation, diabetic macular oedema, drusen; all of them are anomalous."""
COUNTS = {"train": (26315, 57169), "test": (250, 750)}
"""Normal and diseased images of each folder of version 2 of the archive, whose normal ones ReContrast uses;
250 test images a class."""

_INSIDE = ("", "OCT2017", "OCT", "CellData/OCT", "ZhangLabData/CellData/OCT")


def oct2017(path: Path | str, *, split: Wanted = None) -> Samples:
    """{train,test}/{NORMAL,CNV,DME,DRUSEN}/<class>-<patient>-<number>.jpeg, in `path` or in the folders that
    the archives unpack to.

    Training images are the 26,315 of train/NORMAL; diseased images of train/ have no split. Images of a
    folder val/, where a copy has one (32 there and 968 in test/), are test images: together they are the
    published 1,000. `group` is the patient, where it is named. Version 3 of the archive holds more normal
    training images (51,140): they are taken, and `kizu data check` says so. split: take only this one. Raises
    LayoutError, EmptyData."""
    given = root_of(path, "oct2017")
    root = next((given / inside for inside in _INSIDE if is_prepared(given / inside)), None)
    if root is None:
        there = some([sub.name for sub in folders_in(given)]) or "none"
        raise LayoutError(
            f"{given} holds no train/NORMAL and test/NORMAL, the healthy images of OCT2017; its folders: "
            f"{there}."
        )
    rows = read_prepared(root, "oct2017")
    if (root / "val").is_dir():
        rows += read_classes(
            root / "val", category="oct2017", good=(NORMAL.lower(),), split="test", bare_is_good=False
        )
    odd = sorted({row.defect for row in rows if row.label == 1} - set(DISEASES))
    if odd:
        raise LayoutError(
            f"{root} holds folders of images beside NORMAL, {', '.join(DISEASES)}: {some(odd)}. Remove or "
            "rename them."
        )
    found = unread(rows, [root])
    return to_samples([row._replace(group=_patient(row)) for row in rows], "oct2017", found).where(
        split=split
    )


def expected_counts() -> dict[tuple[str, str | None, int], int]:
    """(category, split, label) -> number of images in version 2 of the archive."""
    (normal, diseased), (good, bad) = COUNTS["train"], COUNTS["test"]
    name = "oct2017"
    return {
        (name, "train", 0): normal,
        (name, None, 1): diseased,
        (name, "test", 0): good,
        (name, "test", 1): bad,
    }


def _patient(row: Row) -> str | None:
    match = re.fullmatch(r"[A-Z]+-(\d+)-\d+", row.image.stem)
    return match[1] if match else None
