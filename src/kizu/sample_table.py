"""The table behind Samples: its columns, what they may hold, and how they are read from CSV."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from kizu.errors import (
    NOT_UTF8,
    DataError,
    EmptyData,
    LayoutError,
    UnknownName,
    counted,
    is_utf8,
    printable,
    some,
)

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


def checked_table(table: pl.DataFrame) -> pl.DataFrame:
    """All columns of SCHEMA, absent values filled in. Raises DataError and UnknownName, see `Samples`."""
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
            f"Column image is empty in {counted(table['image'].null_count(), 'row')}; each row needs the "
            "path of an image."
        )
    for column in ("image", "mask"):
        paths = table[column].drop_nulls().to_list()
        loose = [path for path in paths if not os.path.isabs(path)]  # noqa: PTH117 (80,000 rows in 0.1 s)
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
            f"{some(clash['image'].to_list(), 3)}. Normal images have label 0 and defect 'good'."
        )


def read_csv_table(path: Path) -> pl.DataFrame:
    """The columns of a CSV file, with absolute paths; not checked any further. Raises as
    `Samples.from_csv`."""
    if not is_utf8(path.absolute()):
        raise LayoutError(f"{printable(str(path.absolute()))}: {NOT_UTF8}")
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
    return _csv_values(table, path)


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
        # os.path resolves .. without the disk
        full = [
            None if value is None else os.path.normpath(os.path.join(base, value))  # noqa: PTH118
            for value in table[column].to_list()
        ]
        table = table.with_columns(pl.Series(column, full, dtype=pl.String))
    return table
