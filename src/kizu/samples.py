"""Samples: what every data set becomes, one row per image.

image     str         absolute path of the image
mask      str | null  absolute path of its mask; null when there is none
label     Int8        0 normal, 1 anomalous, null unknown
category  str         the product, e.g. "screw"
defect    str         the kind of flaw; "good" for normal images
split     str | null  "train" or "test"; null where the data set does not say
view      str | null  camera or exposure
group     str | null  what must not be torn between train and test: the part, the item, the session
dataset   str         name of the data set
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kizu.errors import DataError, EmptyData, LayoutError, OutputExists, UnknownName, UsageError

SCHEMA: dict[str, type[pl.DataType]] = {
    "image": pl.String,
    "mask": pl.String,
    "label": pl.Int8,
    "category": pl.String,
    "defect": pl.String,
    "split": pl.String,
    "view": pl.String,
    "group": pl.String,
    "dataset": pl.String,
}
_ABSENT = {"category": "default", "defect": "unknown", "dataset": "folder"}

Wanted = str | Collection[str] | None
"""A filter: one value, several values, or None for all."""


class Samples:
    """A checked, unchanging table of images (columns above, `table`); every method returns another one.

    Only the column image is required. What is absent is filled in: category "default", dataset "folder",
    defect "good" for label 0 and "unknown" otherwise, null elsewhere. Raises DataError for unknown columns,
    wrong types, a label other than 0, 1 or null, a split other than train, test or null, a path that is not
    absolute, or a label that contradicts its defect."""

    __slots__ = ("_table",)

    def __init__(self, table: pl.DataFrame) -> None:
        self._table = _checked(table)

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
        return self._table["label"].fill_null(-1).cast(pl.Int64).to_numpy()

    @property
    def train(self) -> Samples:
        """Rows whose split is train."""
        return self._filtered(pl.col("split") == "train")

    @property
    def test(self) -> Samples:
        """Rows whose split is test."""
        return self._filtered(pl.col("split") == "test")

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
        (a split may be empty)."""
        keep = pl.lit(True)
        given = {
            "category": category,
            "split": split,
            "defect": defect,
            "view": view,
            "group": group,
            "dataset": dataset,
        }
        for column, wanted in given.items():
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
            return _trusted(self._table.clear())
        if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
            raise UsageError(
                f"take wants row numbers, a list of whole numbers, got {index.dtype} of shape {index.shape}."
            )
        if index.min() < 0 or index.max() >= len(self):
            raise UsageError(
                f"take: rows are 0..{len(self) - 1}, got {int(index.min())}..{int(index.max())}."
            )
        return _trusted(self._table[index.astype(np.int64)])

    def concat(self, *others: Samples) -> Samples:
        """These rows and then those of the others."""
        return _trusted(pl.concat([self._table, *(other._table for other in others)]))

    @classmethod
    def from_csv(cls, path: Path | str) -> Samples:
        """Read a CSV file with the columns above; relative paths are meant from the CSV's own folder.

        Raises LayoutError when it is missing, unreadable or lists an image twice; UnknownName for a column
        that does not exist; DataError for bad values (see the class); EmptyData when it has no rows. Whether
        the files exist is not looked at."""
        path = Path(path)
        if not path.is_file():
            raise LayoutError(f"{path}: there is no such CSV file.")
        try:
            table = pl.read_csv(path, infer_schema=False)
        except pl.exceptions.NoDataError as error:
            raise EmptyData(
                f"{path} is empty; a header line with at least the column image was expected."
            ) from error
        except (pl.exceptions.ComputeError, pl.exceptions.SchemaError, pl.exceptions.DuplicateError) as error:
            raise LayoutError(
                f"{path} is not a readable CSV file: {' '.join(str(error).split())[:300]}"
            ) from error
        samples = cls(_csv_values(table, path))
        twice = (
            samples._table.filter(pl.col("image").is_duplicated())["image"]
            .unique(maintain_order=True)
            .to_list()
        )
        if twice:
            raise LayoutError(
                f"{path} lists {len(twice)} images more than once: {some(twice)}. Each image has one row."
            )
        return samples

    def to_csv(self, path: Path | str, *, overwrite: bool = False) -> None:
        """Write the table as CSV, whole or not at all; paths below the CSV's folder are written relative to
        it. Raises OutputExists."""
        path = Path(path)
        if path.exists() and not overwrite:
            raise OutputExists(path)
        base = str(path.absolute().parent) + os.sep
        shorter = [pl.col(column).str.strip_prefix(base) for column in ("image", "mask")]
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            self._table.with_columns(shorter).write_csv(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def __len__(self) -> int:
        return self._table.height

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Samples) and self._table.equals(other._table)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        keys = ["dataset", "category", "split", "label"]
        lines = [f"Samples: {len(self)} images"]
        for dataset, category, split, label, count in (
            self._table.group_by(keys).len().sort(keys, nulls_last=True).iter_rows()
        ):
            lines.append(f"  {dataset} / {category}  {split or 'no split'}  {_LABELS[label]}: {count}")
        return "\n".join(lines)

    def _filtered(self, keep: pl.Expr) -> Samples:
        return _trusted(self._table.filter(keep))


_LABELS = {0: "normal", 1: "anomalous", None: "unknown"}


def some(files: Iterable[object], limit: int = 10) -> str:
    """The first few of a list of files, and how many more there are."""
    names = [str(name) for name in files]
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _trusted(table: pl.DataFrame) -> Samples:
    """Samples of rows that have been checked already."""
    samples = object.__new__(Samples)
    samples._table = table
    return samples


def _checked(table: pl.DataFrame) -> pl.DataFrame:
    for column in table.columns:
        if column not in SCHEMA:
            raise UnknownName("column of Samples", column, SCHEMA)
    if "image" not in table.columns:
        raise DataError(f"Samples need the column image, got: {', '.join(table.columns) or 'no columns'}.")
    columns = [_column(table, name, kind) for name, kind in SCHEMA.items()]
    full = pl.DataFrame(columns)
    full = full.with_columns(
        pl.when((pl.col("label") == 0) & pl.col("defect").is_null())
        .then(pl.lit("good"))
        .otherwise(pl.col("defect"))
        .alias("defect")
    )
    full = full.with_columns(pl.col(name).fill_null(value) for name, value in _ABSENT.items())
    _check_values(full)
    return full


def _column(table: pl.DataFrame, name: str, kind: type[pl.DataType]) -> pl.Series:
    if name not in table.columns:
        return pl.Series(name, [None] * table.height, dtype=kind)
    series = table[name]
    if kind is pl.String and series.dtype not in (pl.String, pl.Null, pl.Categorical, pl.Enum):
        raise DataError(f"Column {name} must hold text, got {series.dtype}.")
    if kind is pl.Int8 and not (series.dtype.is_integer() or series.dtype in (pl.Null, pl.Boolean)):
        raise DataError(
            f"Column {name} must hold 0 (normal), 1 (anomalous) or null (unknown), got {series.dtype}."
        )
    if kind is pl.Int8 and series.dtype.is_integer() and not series.drop_nulls().is_in([0, 1]).all():
        bad = series.filter(series.is_not_null() & ~series.is_in([0, 1]))[0]
        raise DataError(f"label must be 0 (normal), 1 (anomalous) or null (unknown), got {bad}.")
    return series.cast(kind)


def _check_values(table: pl.DataFrame) -> None:
    if table["image"].null_count():
        raise DataError(
            f"Column image is empty in {table['image'].null_count()} rows; each row needs the path of an "
            "image."
        )
    for column in ("image", "mask"):
        loose = [path for path in table[column].drop_nulls().to_list() if not os.path.isabs(path)]  # noqa: PTH117 (80,000 rows in 0.1 s)
        if loose:
            raise DataError(
                f"Paths in Samples are absolute; column {column} has {len(loose)} that are not: "
                f"{some(loose, 3)}."
            )
    odd = table["split"].drop_nulls().unique().to_list()
    if not set(odd) <= {"train", "test"}:
        raise DataError(
            f"split must be train, test or null, got {', '.join(sorted(set(odd) - {'train', 'test'}))}."
        )
    clash = table.filter(
        ((pl.col("label") == 0) & (pl.col("defect") != "good"))
        | ((pl.col("label") == 1) & (pl.col("defect") == "good"))
    )
    if clash.height:
        raise DataError(
            f"{clash.height} rows say label 0 with a defect, or label 1 with the defect 'good': "
            f"{some(clash['image'].to_list(), 3)}. "
            "Normal images have label 0 and defect 'good'."
        )


def _csv_values(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Text columns as read -> typed columns with absolute paths."""
    if table.width == 1 and (";" in table.columns[0] or "\t" in table.columns[0]):
        raise LayoutError(
            f"{path}: columns are separated by commas here; its first line is '{table.columns[0]}'."
        )
    table = table.rename({name: name.strip() for name in table.columns})
    table = table.with_columns(pl.all().str.strip_chars().replace("", None)).filter(
        ~pl.all_horizontal(pl.all().is_null())
    )
    if table.height == 0:
        raise EmptyData(f"{path} has a header and no rows: there is no image in it.")
    if "label" in table.columns:
        table = table.with_columns(
            pl.col("label").replace({"0.0": "0", "1.0": "1"})
        )  # as a table with gaps is often written
        odd = [value for value in table["label"].drop_nulls().unique().to_list() if value not in ("0", "1")]
        if odd:
            raise DataError(
                f"{path}: label must be 0 (normal), 1 (anomalous) or empty (unknown), got "
                f"{some(sorted(odd), 3)}."
            )
        table = table.with_columns(pl.col("label").cast(pl.Int8))
    base = str(path.absolute().parent)
    for column in {"image", "mask"} & set(table.columns):
        full = [
            None if value is None else os.path.normpath(os.path.join(base, value))
            for value in table[column].to_list()
        ]
        table = table.with_columns(pl.Series(column, full, dtype=pl.String))
    return table
