"""Samples: what every data set becomes, a table of one row per image.

The columns:

    image     str         absolute path of the image
    mask      str | null  absolute path of its mask; null when there is none
    label     Int8        0 normal, 1 anomalous, null unknown
    category  str         the product, e.g. "screw"
    defect    str         the kind of flaw; "good" for normal images
    split     str | null  "train" or "test"; null where the data set does not say
    view      str | null  camera or exposure
    group     str | null  images of one part, item or session: never divided between train and test
    dataset   str         name of the data set
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kizu.digests import files_digest
from kizu.errors import LayoutError, UnknownName, UsageError, counted, listed_unused, some
from kizu.outputs import replacing
from kizu.sample_table import checked_table, read_csv_table

Notes = Sequence[tuple[str, str]]
Wanted = str | Collection[str] | None
"""A filter: one value, several values, or None for all."""


class Samples:
    """A checked, unchanging table of images (columns above, `table`); every method returns another one.

    Only the column image is required. What is absent is filled in: category "default", dataset "folder",
    defect "good" for label 0 and "unknown" otherwise, null elsewhere. Raises DataError for unknown columns,
    wrong types, a label other than 0, 1 or null, a split other than train, test or null, a path that is not
    absolute, or a label that contradicts its defect.

    >>> samples = Samples(pl.DataFrame({"image": ["/a.png", "/b.png"], "label": [0, 1]}))
    >>> samples
    Samples: 2 images
      folder / default  no split  normal: 1
      folder / default  no split  anomalous: 1
    >>> samples.normal.paths
    ['/a.png']

    unused: (path, reason) of images that lie with them and are no rows. passed_over: (folder, reason) of
    folders that were not looked into. mask_rule: how grey values of masks count, where not as the data sets
    say (`kizu.masks.MaskRule`).
    """

    __slots__ = ("_table", "mask_rule", "passed_over", "unused")

    def __init__(
        self,
        table: pl.DataFrame,
        *,
        unused: Notes = (),
        passed_over: Notes = (),
        mask_rule: str | None = None,
    ) -> None:
        self._table, self.mask_rule = checked_table(table), mask_rule
        self.unused, self.passed_over = tuple(unused), tuple(passed_over)

    @property
    def table(self) -> pl.DataFrame:
        """The rows as a polars table (a copy: changing it changes nothing here)."""
        return self._table.clone()

    @property
    def paths(self) -> list[str]:
        """Absolute image paths, in row order."""
        return self._table["image"].to_list()

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) 0 normal, 1 anomalous, -1 unknown."""
        return self._table["label"].fill_null(-1).cast(pl.Int64).to_numpy(writable=True)

    @property
    def train(self) -> Samples:
        """Rows whose split is train."""
        return self._filtered(pl.col("split") == "train")

    @property
    def test(self) -> Samples:
        """Rows whose split is test."""
        return self._filtered(pl.col("split") == "test")

    @property
    def to_learn(self) -> Samples:
        """Rows to learn from: the split train where any row has a split, else all. A test row is never among
        them."""
        return self.train if self._table["split"].is_not_null().any() else self

    @property
    def normal(self) -> Samples:
        """Rows whose label is 0."""
        return self._filtered(pl.col("label") == 0)

    @property
    def anomalous(self) -> Samples:
        """Rows whose label is 1."""
        return self._filtered(pl.col("label") == 1)

    @property
    def pixel_labelled(self) -> Samples:
        """Rows whose every pixel is known: normal images, and anomalous ones with a mask. Pixel metrics are
        made of these."""
        return self._filtered(
            (pl.col("label") == 0) | ((pl.col("label") == 1) & pl.col("mask").is_not_null())
        )

    def where(
        self,
        *,
        category: Wanted = None,
        split: Wanted = None,
        label: int | None = None,
        defect: Wanted = None,
        view: Wanted = None,
        group: Wanted = None,
        dataset: Wanted = None,
    ) -> Samples:
        """Rows with all the given values. Raises UnknownName, naming the nearest, for a value that no row has
        (a split may be empty), UsageError for another label than 0 or 1.

        >>> table = pl.DataFrame({"image": ["/a.png", "/b.png"], "category": ["nut", "screw"]})
        >>> Samples(table).where(category="screw").paths
        ['/b.png']
        """
        keep = pl.lit(True)
        filters = {
            "category": category,
            "split": split,
            "defect": defect,
            "view": view,
            "group": group,
            "dataset": dataset,
        }
        for column, wanted in filters.items():
            if wanted is None:
                continue
            values = [wanted] if isinstance(wanted, str) else list(wanted)
            known = (
                ("train", "test")
                if column == "split"
                else self._table[column].drop_nulls().unique().to_list()
            )
            for value in values:
                if value not in known:
                    raise UnknownName(column, value, known)
            keep &= pl.col(column).is_in(values)
        if label is not None:
            if label not in (0, 1):
                raise UsageError(f"label is 0 (normal) or 1 (anomalous), got {label!r}.")
            keep &= pl.col("label") == label
        return self._filtered(keep)

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> Samples:
        """These rows, in this order. Raises UsageError for a row that is not there."""
        index = np.asarray(rows)
        if index.size == 0:
            return self._with(self._table.clear())
        if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
            raise UsageError(
                f"take wants row numbers, a list of whole numbers, got {index.dtype} of shape {index.shape}."
            )
        if index.min() < 0 or index.max() >= len(self):
            raise UsageError(
                f"take: rows are 0..{len(self) - 1}, got {int(index.min())}..{int(index.max())}."
            )
        return self._with(self._table[index.astype(np.int64)])

    def concat(self, *others: Samples) -> Samples:
        """These rows and then those of the others. Raises UsageError for masks that are read by other
        rules."""
        rules = {one.mask_rule for one in (self, *others) if len(one)}
        if len(rules) > 1:
            raise UsageError(f"Samples with the mask rules {some(sorted(map(str, rules)))} cannot be joined.")
        joined = self._with(pl.concat([self._table, *(other._table for other in others)]))
        every = (self, *others)
        joined.unused = tuple(dict.fromkeys(note for one in every for note in one.unused))
        joined.passed_over = tuple(dict.fromkeys(note for one in every for note in one.passed_over))
        return joined

    def read_masks_by(self, rule: str) -> Samples:
        """The same rows; their masks are read by `rule` instead of the data set's own (kizu.masks)."""
        samples = self._with(self._table)
        samples.mask_rule = rule
        return samples

    def as_good(self) -> Samples:
        """The same rows, labelled good whatever they show, without masks: for a side to learn from that is
        not clean on purpose (the protocol noisy, the lists of Real-IAD with noise). Never for a test side.

        >>> Samples(pl.DataFrame({"image": ["/a.png"], "label": [1]})).as_good().labels.tolist()
        [0]
        """
        good = {"label": pl.lit(0, pl.Int8), "defect": pl.lit("good"), "mask": pl.lit(None, pl.String)}
        return self._with(self._table.with_columns(**good))

    def digest(self) -> str:
        """What identifies the rows without opening a file: all columns, sizes of the images, paths below the
        folder that the images share."""
        images = self._table["image"].to_list()
        others = self._table.drop("image", "mask").iter_rows()
        masks = [mask and os.path.basename(mask) for mask in self._table["mask"]]  # noqa: PTH119
        return files_digest(zip(images, masks, others, [self.mask_rule] * len(self), strict=True))

    @classmethod
    def from_csv(cls, path: Path | str) -> Samples:
        """Read a CSV file with the columns above; relative paths are meant from the CSV's own folder.

        Raises LayoutError when it is missing, unreadable or lists an image twice; UnknownName for a column
        that does not exist; DataError for bad values (see the class); EmptyData when it has no rows. Whether
        the files exist is not checked."""
        path = Path(path)
        samples = cls(read_csv_table(path))
        twice = samples._table.filter(pl.col("image").is_duplicated())["image"]
        if len(twice):
            names = twice.unique(maintain_order=True).to_list()
            raise LayoutError(
                f"{path} lists {counted(len(names), 'image')} more than once: {some(names)}. Each image has "
                "one row."
            )
        return samples

    def to_csv(self, path: Path | str, *, overwrite: bool = False) -> None:
        """Write the table as CSV, whole or not at all; paths below the CSV's folder are written relative to
        it. Raises OutputExists."""
        path = Path(path)
        base = str(path.absolute().parent) + os.sep
        shorter = [pl.col(column).str.strip_prefix(base) for column in ("image", "mask")]
        with replacing(path, overwrite=overwrite) as temporary:
            self._table.with_columns(shorter).write_csv(temporary)

    def __len__(self) -> int:
        return self._table.height

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Samples) and self._table.equals(other._table)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        keys = ["dataset", "category", "split", "label"]
        lines = [f"Samples: {counted(len(self), 'image')}"]
        for dataset, category, split, label, count in (
            self._table.group_by(keys).len().sort(keys, nulls_last=True).iter_rows()
        ):
            lines.append(f"  {dataset} / {category}  {split or 'no split'}  {_LABELS[label]}: {count}")
        lines += [f"  {listed_unused(self.unused)}"] if self.unused else []
        return "\n".join(lines)

    def _filtered(self, keep: pl.Expr) -> Samples:
        return self._with(self._table.filter(keep))

    def _with(self, table: pl.DataFrame) -> Samples:
        """Samples of rows that have been checked already."""
        samples = object.__new__(Samples)
        samples._table, samples.mask_rule = table, self.mask_rule
        samples.unused, samples.passed_over = self.unused, self.passed_over
        return samples


_LABELS = {0: "normal", 1: "anomalous", None: "unknown"}
