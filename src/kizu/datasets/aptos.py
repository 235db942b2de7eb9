"""APTOS 2019: fundus photographs graded 0 to 4 for diabetic retinopathy; grade 0 is normal."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import ndimage

from kizu.datasets._layout import folders_in, root_of, to_samples, unread
from kizu.datasets._masks import Row
from kizu.datasets._prepared import is_prepared, read_prepared, write_prepared
from kizu.errors import DataError, EmptyData, LayoutError, UsageError, counted, some
from kizu.images import list_images, resize_image
from kizu.masks import MaskRule
from kizu.samples import Samples, Wanted

LICENCE = "rules of the Kaggle competition (an account is needed; the images may not be passed on)"
CITATION = "Asia Pacific Tele-Ophthalmology Society: APTOS 2019 Blindness Detection, Kaggle 2019"
HOMEPAGE = "https://www.kaggle.com/competitions/aptos2019-blindness-detection"
MASK_RULE: MaskRule = "half"
"""There are no masks: image metrics only."""

NORMALS, DISEASED = 1805, 1857
"""Published numbers of labelled images of grade 0, and of grades 1 to 4; the challenge's own test images have
no labels."""
TRAIN_NORMALS, SEED = 1000, 1
"""ReContrast's split: this many images of grade 0, drawn by Python's `random` with this seed, are for
training."""
BRIGHT, MARGIN, SIZE = 30, 5, 512
"""ReContrast's crop: sum of the three channels above which a pixel is fundus; pixels added on each side; side
of the copy, pixels."""


def aptos(
    path: Path | str, *, split: Wanted = None, train_normals: int = TRAIN_NORMALS, seed: int = SEED
) -> Samples:
    """As downloaded: train.csv (id_code, diagnosis) and train_images/<id_code>.png. As prepared:
    {train,test}/NORMAL, test/<grade>.

    Both may lie in `path`; a download may also lie in its folder original/. The prepared copies, cropped to
    the fundus, come first; they are made by `prepare`, or by the script of ReContrast (whose test/ABNORMAL
    does not name the grades). Images as downloaded are not cropped: their black borders differ in size and by
    camera, so prepare them before measuring anything. As downloaded, `train_normals` images of grade 0 drawn
    by `seed` are train and all others are test; of prepared copies the split is what the folders say.
    `defect` is "grade1" to "grade4". split: take only this one. Raises LayoutError; EmptyData for too few
    images of grade 0; UsageError for a draw asked of prepared copies."""
    root = root_of(path, "aptos")
    if not is_prepared(root):
        rows = _raw(root, train_normals, seed)
        return to_samples(rows, "aptos", unread(rows, {row.image.parent for row in rows})).where(split=split)
    if (train_normals, seed) != (TRAIN_NORMALS, SEED):
        raise UsageError(
            f"{root} holds prepared copies, whose split is fixed. For another draw, prepare the download "
            "again with it."
        )
    rows = read_prepared(root, "aptos")
    return to_samples(rows, "aptos", unread(rows, [root / "train", root / "test"])).where(split=split)


def prepare(
    path: Path | str,
    out: Path | str,
    *,
    train_normals: int = TRAIN_NORMALS,
    seed: int = SEED,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write cropped copies of the download in `path`: out/{train,test}/NORMAL and out/test/grade1 ... grade4,
    PNG of 512 x 512 pixels.

    The split is ReContrast's, image for image; the crop is `fundus_crop`. The folder appears whole or not at
    all. progress(done, total). Raises LayoutError, EmptyData, OutputExists, ImageError, DataError for an
    image without a bright region."""
    rows = _raw(root_of(path, "aptos"), train_normals, seed)
    write_prepared(
        rows, out, partial(fundus_crop, size=SIZE, margin=MARGIN), overwrite=overwrite, progress=progress
    )


def fundus_crop(image: NDArray[np.uint8], *, size: int = SIZE, margin: int = MARGIN) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 -> (size, size, 3) uint8: the square about the fundus, black where it reaches past the
    image.

    The fundus is the largest 8-connected region of pixels whose channels sum to more than 30. The square is
    centred on the region's centroid, as wide as the longer side of its bounding box, and `margin` pixels
    wider on each side. As ReContrast's prepare_aptos.py, but for the resizing: anti-aliased bilinear here,
    plain bilinear there; its rounding of both edges toward zero is kept. Raises DataError where no pixel is
    bright."""
    regions, count = ndimage.label(image.sum(axis=2, dtype=np.int32) > BRIGHT, np.ones((3, 3)))
    if count == 0:
        raise DataError("The image is black: no pixel is bright enough to be fundus. Leave it out.")
    areas = np.bincount(regions.ravel())
    areas[0] = 0
    fundus = regions == int(areas.argmax())
    rows, columns = (np.flatnonzero(fundus.any(axis=axis)) for axis in (1, 0))
    half = max(rows[-1] - rows[0], columns[-1] - columns[0]) / 2 + 0.5
    centre = np.array(ndimage.center_of_mass(fundus))
    low, high = np.trunc(centre - half).astype(int) - margin, np.trunc(centre + half).astype(int) + margin
    square = np.zeros((*(high - low), 3), np.uint8)
    start, stop = np.maximum(low, 0), np.minimum(high, image.shape[:2])
    inside = tuple(slice(a, b) for a, b in zip(start - low, stop - low, strict=True))
    square[inside] = image[start[0] : stop[0], start[1] : stop[1]]
    return resize_image(square, (size, size))


def expected_counts() -> dict[tuple[str, str | None, int], int]:
    """(category, split, label) -> number of images of ReContrast's split."""
    return {
        ("aptos", "train", 0): TRAIN_NORMALS,
        ("aptos", "test", 0): NORMALS - TRAIN_NORMALS,
        ("aptos", "test", 1): DISEASED,
    }


def _raw(given: Path, train_normals: int, seed: int) -> list[Row]:
    root = next((place for place in (given, given / "original") if (place / "train.csv").is_file()), None)
    if root is None or not (root / "train_images").is_dir():
        there = some([sub.name for sub in folders_in(given)]) or "none"
        raise LayoutError(
            f"{given} holds neither train.csv with train_images/ nor the prepared train/NORMAL and "
            f"test/NORMAL; its folders: {there}."
        )
    grades = _grades(root)
    normals = [name for name, grade in grades.items() if grade == 0]
    if not 0 < train_normals < len(normals):
        raise EmptyData(
            f"{train_normals} of {len(normals)} images of grade 0 were asked for training; some must be left "
            "to test on."
        )
    random.Random(seed).shuffle(normals)
    train = set(normals[:train_normals])
    rows = []
    for name, grade in grades.items():
        image = root / "train_images" / f"{name}.png"
        rows.append(
            Row(
                image,
                "aptos",
                f"grade{grade}" if grade else "good",
                int(grade > 0),
                "train" if name in train else "test",
            )
        )
    return rows


def _grades(root: Path) -> dict[str, int]:
    """id_code -> grade, in the order of train.csv, which the draw depends on."""
    table = pl.read_csv(root / "train.csv", infer_schema=False)
    if not {"id_code", "diagnosis"} <= set(table.columns):
        raise LayoutError(
            f"{root / 'train.csv'} has the columns {', '.join(table.columns)}; id_code and diagnosis are "
            "needed."
        )
    odd = sorted(set(map(str, table["diagnosis"].unique())) - set("01234"))
    if odd:
        raise LayoutError(f"{root / 'train.csv'}: diagnosis is a grade from 0 to 4, got {some(odd)}.")
    grades = {name: int(grade) for name, grade in table.select("id_code", "diagnosis").iter_rows()}
    there = {image.stem for image in list_images(root / "train_images") if image.suffix == ".png"}
    missing, extra = [name for name in grades if name not in there], sorted(there - grades.keys())
    if missing or extra or len(grades) < table.height:
        raise LayoutError(
            f"{root / 'train.csv'} and train_images/ disagree: "
            f"{counted(len(missing), 'image')} of the list are not "
            f"there ({some(missing)}), {len(extra)} are not in the list ({some(extra)}), "
            f"{table.height - len(grades)} are listed twice."
        )
    return grades
