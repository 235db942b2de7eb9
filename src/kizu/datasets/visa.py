"""VisA (12 products, 10,821 images), as downloaded with one of its three split lists, or as prepared by its
authors' script."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import polars as pl

from kizu.datasets._layout import chosen, folders_in, need_good, read_tree, root_of, to_samples, unread
from kizu.datasets._masks import Row
from kizu.errors import LayoutError, UnknownName, UsageError, counted, some
from kizu.masks import MaskRule
from kizu.samples import Samples, Wanted

LICENCE = "CC BY 4.0"
CITATION = (
    "Y. Zou, J. Jeong, L. Pemula, D. Zhang, O. Dabeer: SPot-the-Difference Self-Supervised Pre-training, "
    "ECCV 2022"
)
HOMEPAGE = "https://github.com/amazon-science/spot-diff"
MASK_RULE: MaskRule = "nonzero"
"""Raw masks are index images, 0 background and 1..9 the kind of defect; prepared ones are 0/255."""

SplitName = Literal["1cls", "2cls_highshot", "2cls_fewshot"]
SPLITS: tuple[SplitName, ...] = ("1cls", "2cls_highshot", "2cls_fewshot")
_KEYS = (("train", 0), ("train", 1), ("test", 0), ("test", 1))
COUNTS: dict[str, dict[str, tuple[int, int, int, int]]] = {
    "candle": {
        "1cls": (900, 0, 100, 100),
        "2cls_highshot": (600, 60, 400, 40),
        "2cls_fewshot": (200, 20, 800, 80),
    },
    "capsules": {
        "1cls": (542, 0, 60, 100),
        "2cls_highshot": (361, 60, 241, 40),
        "2cls_fewshot": (120, 20, 482, 80),
    },
    "cashew": {
        "1cls": (450, 0, 50, 100),
        "2cls_highshot": (300, 60, 200, 40),
        "2cls_fewshot": (100, 20, 400, 80),
    },
    "chewinggum": {
        "1cls": (453, 0, 50, 100),
        "2cls_highshot": (302, 60, 201, 40),
        "2cls_fewshot": (101, 20, 402, 80),
    },
    "fryum": {
        "1cls": (450, 0, 50, 100),
        "2cls_highshot": (300, 60, 200, 40),
        "2cls_fewshot": (100, 20, 400, 80),
    },
    "macaroni1": {
        "1cls": (900, 0, 100, 100),
        "2cls_highshot": (600, 60, 400, 40),
        "2cls_fewshot": (200, 20, 800, 80),
    },
    "macaroni2": {
        "1cls": (900, 0, 100, 100),
        "2cls_highshot": (600, 60, 400, 40),
        "2cls_fewshot": (200, 20, 800, 80),
    },
    "pcb1": {
        "1cls": (904, 0, 100, 100),
        "2cls_highshot": (602, 60, 402, 40),
        "2cls_fewshot": (201, 20, 803, 80),
    },
    "pcb2": {
        "1cls": (901, 0, 100, 100),
        "2cls_highshot": (601, 60, 400, 40),
        "2cls_fewshot": (200, 20, 801, 80),
    },
    "pcb3": {
        "1cls": (905, 0, 101, 100),
        "2cls_highshot": (604, 60, 402, 40),
        "2cls_fewshot": (201, 20, 805, 80),
    },
    "pcb4": {
        "1cls": (904, 0, 101, 100),
        "2cls_highshot": (603, 60, 402, 40),
        "2cls_fewshot": (201, 20, 804, 80),
    },
    "pipe_fryum": {
        "1cls": (450, 0, 50, 100),
        "2cls_highshot": (300, 60, 200, 40),
        "2cls_fewshot": (100, 20, 400, 80),
    },
}
"""Published counts of each product and split list: train normal, train anomalous, test normal, test
anomalous."""


def visa(
    path: Path | str,
    *,
    category: Wanted = None,
    split: Wanted = None,
    split_csv: SplitName = "1cls",
    lists: Path | str | None = None,
) -> Samples:
    """VisA by the split list `split_csv`: "1cls", "2cls_highshot" or "2cls_fewshot" (whose train is the pool
    to draw from).

    As downloaded: <product>/Data/Images/{Normal,Anomaly}, <product>/Data/Masks/Anomaly, and <split_csv>.csv
    in `path` or in split_csv/. As prepared: <split_csv>/<product>/{train,test}/{good,bad} and
    ground_truth/bad (two classes: ground_truth/{train,test}/bad), from `path` or its folder <split_csv>.
    category, split: take only these. lists: the folder of the split lists where it is neither of these (as
    downloaded only). Raises LayoutError when the list or listed images are missing, MaskError
    for missing masks, UnknownName for a product that is not there."""
    if split_csv not in SPLITS:
        raise UnknownName("split list of VisA", split_csv, SPLITS)
    root = root_of(path, "visa")
    prepared = [
        base
        for base in (root / split_csv, root)
        if base.is_dir() and any(_is_prepared(sub) for sub in folders_in(base))
    ]
    if prepared and lists is not None:
        raise UsageError(f"lists has no effect on VisA as prepared, got {lists!r}. Leave it away.")
    listed = _list_file(root if lists is None else Path(lists), split_csv)
    if lists is not None and listed is None:
        raise LayoutError(f"{lists} holds no {split_csv}.csv, here or in split_csv/.")
    samples = (
        _prepared(prepared[0], category, split_csv) if prepared else _raw(root, category, split_csv, listed)
    )
    return samples.where(split=split)


def expected_counts(split_csv: SplitName = "1cls") -> dict[tuple[str, str | None, int], int]:
    """(category, split, label) -> number of images in the split list."""
    counts = {name: lists[split_csv] for name, lists in COUNTS.items()}
    return {(name, *key): n for name, four in counts.items() for key, n in zip(_KEYS, four, strict=True) if n}


def read_split(path: Path) -> pl.DataFrame:
    """A split list -> columns category, split, label (0/1), image, mask (null for normal); paths as listed.
    Raises LayoutError."""
    table = pl.read_csv(path, infer_schema=False)
    columns = ["object", "split", "label", "image", "mask"]
    if table.columns != columns:
        raise LayoutError(
            f"{path} has the columns {', '.join(table.columns)}; a split list of VisA has "
            f"{', '.join(columns)}."
        )
    odd = set(table["label"].unique()) - {"normal", "anomaly"} | set(table["split"].unique()) - {
        "train",
        "test",
    }
    if odd:
        raise LayoutError(
            f"{path}: label is normal or anomaly and split train or test, got {some(sorted(map(str, odd)))}."
        )
    label = (pl.col("label") == "anomaly").cast(pl.Int8)
    return table.with_columns(label, pl.col("mask").replace("", None)).rename({"object": "category"})


def _raw(root: Path, category: Wanted, split_csv: SplitName, listed: Path | None) -> Samples:
    if listed is None:
        raise LayoutError(
            f"{root} holds neither {split_csv}.csv (here or in split_csv/) nor the prepared folder "
            f"{split_csv}/<product>/train/good. The list comes with VisA's code: {HOMEPAGE}."
        )
    table = read_split(listed)
    names = chosen(category, table["category"].unique(maintain_order=True).to_list(), "category")
    table = table.filter(pl.col("category").is_in(names)).sort(
        "category", "split", "label", "image", descending=[False, True, False, False]
    )
    wanted = [*table["image"].to_list(), *table["mask"].drop_nulls().to_list()]
    there = _on_disk(root, wanted)
    missing = [name for name in wanted if name not in there]
    if missing:
        raise LayoutError(
            f"{listed.name} names {counted(len(missing), 'file')} not below {root}: {some(missing)}."
        )
    bare = table.filter((pl.col("label") == 1) & pl.col("mask").is_null())["image"].to_list()
    if bare:
        raise LayoutError(
            f"{listed} names {counted(len(bare), 'anomalous image')} without a mask: {some(bare)}."
        )
    rows = [
        Row(root / image, name, "anomaly" if label else "good", label, split, mask and root / mask)
        for name, split, label, image, mask in table.select(
            "category", "split", "label", "image", "mask"
        ).iter_rows()
    ]
    folders = [root / name for name in names]
    return to_samples(rows, "visa", unread(rows, folders, why=f"and {listed.name} does not name it"))


def _prepared(base: Path, category: Wanted, split_csv: SplitName) -> Samples:
    prepared = [sub.name for sub in folders_in(base) if _is_prepared(sub)]
    one_class = not any((base / name / "train" / "bad").is_dir() for name in prepared)
    if (base.name in SPLITS and base.name != split_csv) or one_class != (split_csv == "1cls"):
        kind = "one-class (no train/bad)" if one_class else "two-class (train/bad)"
        raise LayoutError(
            f"{base} is prepared {kind} VisA; it is not the split '{split_csv}'. Give the folder of that "
            "split, or its split_csv."
        )
    rows, names = [], chosen(category, prepared, "category")
    for name in names:
        part = read_tree(
            base / name,
            category=name,
            good=("good",),
            masks=base / name / "ground_truth",
            splits=("train", "test"),
        )
        need_good(part, base / name, ("good",))
        rows += [row if row.label == 0 else row._replace(defect="anomaly") for row in part]
    return to_samples(rows, "visa", unread(rows, [base / name for name in names]))


def _is_prepared(folder: Path) -> bool:
    return (
        (folder / "train" / "good").is_dir()
        and (folder / "test" / "good").is_dir()
        and (folder / "ground_truth").is_dir()
    )


def _list_file(root: Path, name: str) -> Path | None:
    return next(
        (file for file in (root / f"{name}.csv", root / "split_csv" / f"{name}.csv") if file.is_file()), None
    )


def _on_disk(root: Path, names: list[str]) -> set[str]:
    """Files in the folders of the named files, as paths relative to root; one listing a folder."""
    folders = {name.rpartition("/")[0] for name in names}
    return {
        f"{folder}/{entry}"
        for folder in folders
        if (root / folder).is_dir()
        for entry in os.listdir(root / folder)  # noqa: PTH208 (names are all that is needed)
    }
