"""Samples: what is let in, what comes out, and that nothing changes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from trees import write_csv

from kizu.errors import DataError, EmptyData, LayoutError, OutputExists, UnknownName, UsageError
from kizu.sample_table import SCHEMA
from kizu.samples import Samples


def table(**columns: list[object]) -> pl.DataFrame:
    count = len(next(iter(columns.values())))
    return pl.DataFrame({"image": [f"/d/{n}.png" for n in range(count)], **columns})


@pytest.fixture
def six() -> Samples:
    return Samples(
        table(
            mask=[None, None, None, None, "/d/m.png", None],
            label=[0, 0, 0, 1, 1, None],
            category=["a", "a", "b", "a", "b", "b"],
            defect=["good", "good", "good", "dent", "hole", None],
            split=["train", "train", "train", "test", "test", None],
            group=["1", "1", "2", "3", "3", None],
        )
    )


def test_columns_are_complete_and_typed(six: Samples) -> None:
    assert dict(six.table.schema) == {
        name: kind() if isinstance(kind, type) else kind for name, kind in SCHEMA.items()
    }
    alone = Samples(pl.DataFrame({"image": ["/x.png"], "label": [0]})).table.row(0, named=True)
    assert alone["label"] == 0
    assert (alone["category"], alone["defect"], alone["dataset"], alone["split"]) == (
        "default",
        "good",
        "folder",
        None,
    )


def test_parts(six: Samples) -> None:
    assert len(six) == 6
    assert six.labels.tolist() == [0, 0, 0, 1, 1, -1]
    assert six.paths[2] == "/d/2.png"
    assert six.train.paths == ["/d/0.png", "/d/1.png", "/d/2.png"]
    assert six.test.paths == six.anomalous.paths == ["/d/3.png", "/d/4.png"]
    assert len(six.normal) == 3
    assert six.pixel_labelled.paths == ["/d/0.png", "/d/1.png", "/d/2.png", "/d/4.png"]


def test_where(six: Samples) -> None:
    assert six.where(category="b", label=1).paths == ["/d/4.png"]
    assert six.where(defect=["dent", "hole"]).paths == ["/d/3.png", "/d/4.png"]
    assert len(six.where(group="3", split="train")) == 0
    assert six.where() == six
    with pytest.raises(UnknownName, match="'dent'"):
        six.where(defect="dents")
    with pytest.raises(UsageError, match=r"0 \(normal\) or 1"):
        six.where(label=2)


def test_take(six: Samples) -> None:
    assert six.take([4, 0]).paths == ["/d/4.png", "/d/0.png"]
    assert six.take(np.array([1])).paths == ["/d/1.png"]
    assert len(six.take([])) == 0
    for rows in ([6], [-1], [[1]], [0.5], [True]):
        with pytest.raises(UsageError, match="take"):
            six.take(rows)  # type: ignore[arg-type]


def test_concat_and_equality(six: Samples) -> None:
    assert six.train.concat(six.test, six.take([5])) == six
    assert six.train != six.test
    assert six != 6


def test_nothing_changes_them(six: Samples) -> None:
    before = six.table.clone()
    got = six.table
    got[0, "category"] = "changed"
    got.drop_in_place("mask")
    assert six.table.equals(before)
    with pytest.raises(AttributeError):
        six.table = before  # type: ignore[misc]


def test_repr_counts(six: Samples) -> None:
    assert repr(six).splitlines()[0] == "Samples: 6 images"
    assert "  folder / a  train  normal: 2" in repr(six)
    assert "  folder / b  no split  unknown: 1" in repr(six)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"label": [2]}, "got 2"),
        ({"label": [-1]}, "got -1"),
        ({"label": ["good"]}, "label must hold"),
        ({"label": [0.0]}, "label must hold"),
        ({"split": ["val"]}, "got val"),
        ({"category": [3]}, "category must hold text"),
        ({"image": ["a.png"]}, "absolute"),
        ({"mask": ["m/a.png"]}, "mask has 1"),
        ({"image": [None]}, "empty in 1 row"),
        ({"label": [0], "defect": ["dent"]}, "label 0 with a defect"),
        ({"label": [1], "defect": ["good"]}, "label 1 with the defect 'good'"),
    ],
)
def test_bad_tables(columns: dict[str, list[object]], words: str) -> None:
    with pytest.raises(DataError, match=words):
        Samples(table(**columns))


def test_unknown_and_missing_columns() -> None:
    with pytest.raises(UnknownName, match=r"'labels'.*'label'"):
        Samples(table(labels=[0]))
    with pytest.raises(DataError, match="need the column image"):
        Samples(pl.DataFrame({"label": [0]}))


def test_csv_there_and_back(six: Samples, tmp_path: Path) -> None:
    six.to_csv(tmp_path / "s.csv")
    assert Samples.from_csv(tmp_path / "s.csv") == six
    with pytest.raises(OutputExists):
        six.to_csv(tmp_path / "s.csv")
    six.train.to_csv(tmp_path / "s.csv", overwrite=True)
    assert Samples.from_csv(tmp_path / "s.csv") == six.train
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"]


def test_csv_paths_move_with_the_folder(tmp_path: Path) -> None:
    Samples(pl.DataFrame({"image": [str(tmp_path / "old" / "x" / "é 1.png")]})).to_csv(tmp_path / "s.csv")
    (tmp_path / "new").mkdir()
    (tmp_path / "s.csv").rename(tmp_path / "new" / "s.csv")
    assert Samples.from_csv(tmp_path / "new" / "s.csv").paths == [
        str(tmp_path / "new" / "old" / "x" / "é 1.png")
    ]


def test_csv_by_hand(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "s.csv",
        [
            ("image", " label", "mask"),
            ("a/../b.png", "0 ", ""),
            ("/abs/c.png", "", "m/c.png"),
            ("d.png", 1, ""),
        ],
    )
    samples = Samples.from_csv(path)
    assert samples.paths == [str(tmp_path / "b.png"), "/abs/c.png", str(tmp_path / "d.png")]
    assert samples.labels.tolist() == [0, -1, 1]
    assert samples.table["mask"].to_list() == [None, str(tmp_path / "m" / "c.png"), None]
    assert samples.table["defect"].to_list() == ["good", "unknown", "unknown"]


def test_csv_as_other_programs_write_it(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_bytes(b'\xef\xbb\xbfimage,label\r\n"a, b.png",1.0\r\nc.png\r\nd.png,0\r\n\r\n')
    samples = Samples.from_csv(tmp_path / "s.csv")
    assert [Path(path).name for path in samples.paths] == ["a, b.png", "c.png", "d.png"]
    assert samples.labels.tolist() == [1, -1, 0]


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", EmptyData, "is empty"),
        ("image,label\n", EmptyData, "no rows"),
        ("image,lable\na.png,0\n", UnknownName, "'label'"),
        ("image;label\na.png;0\n", LayoutError, "separated by commas"),
        ("image,label\n,0\n", DataError, "empty in 1 row"),
        ("image,label\na.png,yes\n", DataError, "got yes"),
        ("path,label\na.png,0\n", UnknownName, "'path'"),
        ("label\n0\n", DataError, "column image"),
        ("image,label\na.png,0\nb.png,1\n./a.png,0\n", LayoutError, "more than once"),
        ("image,label\na.png,0,1,2\n", LayoutError, "not a readable CSV"),
        ("image,image\na.png,b.png\n", (LayoutError, UnknownName), "image"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, error: type[Exception], words: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(error, match=words):
        Samples.from_csv(tmp_path / "s.csv")


def test_binary_csv_and_no_csv(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="no such CSV"):
        Samples.from_csv(tmp_path / "none.csv")
    (tmp_path / "s.csv").write_bytes(b"image\n\xff\xfe\x00\x01\n")
    with pytest.raises(LayoutError, match="not a readable CSV"):
        Samples.from_csv(tmp_path / "s.csv")
