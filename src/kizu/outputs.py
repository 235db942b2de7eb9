"""Writing without harm: whole or not at all, and never over what kizu did not write.

This rule holds for every command and for every save in Python; `replacing` and `replacing_folder` keep it:

    A file is replaced when its first bytes carry a mark of kizu (MARKS: the card of a model, the line
    "generator" of a page, "Software" of a picture, ...), or when it lies in a folder of kizu and has a name
    that kizu gives there.
    A folder is replaced when it holds the record of the same kind of output (RECORDS: card.json, run.json,
    inspection.json, ...), written by kizu, and nothing but files with names that kizu gives there. Your notes
    beside a report keep the folder as it is.
    An input, and a folder that holds an input, is never replaced.

Writing is atomic: a temporary neighbour is filled, flushed and renamed, so that a reader sees the old or the
new, never a half."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kizu.errors import LayoutError, OutputExists, UsageError, some

FORMAT = 1
FILE_SUFFIXES = (".kizu", ".zip")
"""A model whose path ends so is one file, any other a folder."""
_TRAINING = ("*log.jsonl", "*.kizu")
_MODEL = ("weights.safetensors", "recipe.json", "log.jsonl", "skipped.json", "*.kizu")
RECORDS: dict[str, tuple[str, ...]] = {
    "card.json": _MODEL,
    "recipe.json": (*_MODEL, "card.json"),
    "fit.json": _TRAINING,
    "diagnosing.json": ("diagnosis.json", *_TRAINING),
    "run.json": (
        *("samples.parquet", "maps.npz", "metrics.json", "curves.json", "log.jsonl"),
        *("report.html", "contact_sheet.png", "images/#.jpg", "masks/#.png"),
    ),
    "suspicious.json": ("index.html", "leave_out.txt"),
    "inspection.json": (
        *("results.jsonl", "results.csv", "index.html", "report.html", "panels/#.png", "panels/#-*.png"),
        *("maps/#-*.npy", "maps/#-*.tiff"),
    ),
    "attention.json": ("attention.npz", "attention.png", "attention.html"),
    "experiment.json": ("cells.jsonl", "results.csv", "results.md", "README.md", "*.png", "*.html"),
    "prepared.json": ("train/*.png", "test/*.png", "images/*.png", "masks/*.png"),
}
"""Record that marks a folder as kizu's -> patterns of the other names that kizu gives in it (* also matches
what lies deeper, # is a number)."""
MARKS = (
    b'"kizu_format": ',
    b'<meta name="generator" content="kizu',
    b"Software\0kizu",
    b"image,mask,label,category,defect,split,view,group,dataset\n",
    b"<!-- written by kizu -->",
    b'{"step": ',
)
"""One of these stands within the first HEAD bytes of a file that kizu wrote: records and models, pages,
pictures, tables of samples, tables of results, logs of a training."""
HEAD = 4096
LOCK = ".kizu.lock"
"""Lies in a folder while a run writes into it (`kizu.locks`); it counts as nothing."""
_JUNK = (".DS_Store", "Thumbs.db", "desktop.ini", ".*.part", LOCK)


def check_output(
    path: Path | str, record: str, *, overwrite: bool, inputs: Iterable[Path | str] = ()
) -> None:
    """Raise what writing `path` would raise, before any work is done.

    record: of RECORDS, what the output is when it is a folder. inputs: what the work reads. Raises UsageError
    when `path` is an input or holds one, or nothing may be written there; OutputExists when it is there and
    overwrite is not said, or is not kizu's."""
    path = Path(path)
    refuse_inputs(path, inputs)
    _check_writable(path)
    if not path.exists() or is_empty(path):
        return
    if not overwrite:
        raise OutputExists(path)
    to_file = record == "card.json" and path.suffix in FILE_SUFFIXES
    foreign = why_foreign_file(path) if to_file else _why_foreign_folder(path, record)
    if foreign:
        raise OutputExists(path, foreign)


def _check_writable(path: Path) -> None:
    """Raise UsageError when `path`, or the folder that it would be made in, may not be written to."""
    place = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
    place = place.parent if place == path.absolute() and not place.is_dir() else place
    if not place.is_dir():
        raise UsageError(f"{place} is a file, so that nothing can be in it. Give another place to write to.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"{place} may not be written to: permission denied. Give another place to write to.")


def refuse_inputs(path: Path | str, inputs: Iterable[Path | str]) -> None:
    """Raise UsageError when `path`, which is to be written, is one of the inputs or holds one."""
    if not Path(path).exists():
        return
    target = Path(path).resolve()
    for folder in {Path(one).resolve() for one in inputs if Path(one).exists()}:
        if target == folder or target in folder.parents:
            what = "an input" if target == folder else f"a folder that holds an input ({folder})"
            raise UsageError(f"{path} is {what}; nothing is written over it. Give another place to write to.")


def remove_folder(path: Path | str, record: str) -> None:
    """Remove a folder that kizu wrote; none, or an empty one, is fine. One that is locked stays, with nothing
    but the lock in it. Raises OutputExists for another's."""
    path = Path(path)
    check_output(path, record, overwrite=True)
    if not path.is_dir():
        return
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()
    if not any(path.iterdir()):
        path.rmdir()


def is_empty(path: Path) -> bool:
    """Whether this is a folder with nothing in it, a lock aside."""
    return path.is_dir() and all(entry.name == LOCK for entry in path.iterdir())


def has_record(folder: Path | str, record: str) -> bool:
    """Whether a folder holds this record, written by kizu."""
    return _carries_mark(Path(folder) / record, MARKS[:1])


def write_record(folder: Path, record: str, facts: dict[str, Any]) -> None:
    """Write the record that marks a folder as kizu's."""
    write_json(folder / record, {"kizu_format": FORMAT, **facts})


@contextlib.contextmanager
def replacing(path: Path | str, *, overwrite: bool = True) -> Iterator[Path]:
    """A temporary file beside `path` to fill; renamed to `path` on success, removed on any failure. Raises
    OutputExists when `path` is there and overwrite is not said, or kizu did not write it."""
    path = Path(path)
    if path.exists():
        foreign = why_foreign_file(path)
        if not overwrite or foreign:
            raise OutputExists(path, foreign if overwrite else "")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path | str, *, record: str, overwrite: bool = False) -> Iterator[Path]:
    """As `replacing`, for a folder, whose record (of RECORDS) is written in it: what was there is moved aside
    first and comes back if the rename fails."""
    path = Path(path)
    check_output(path, record, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        _swap(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON atomically; NaN is refused (a number that is not defined is null)."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def read_record(folder: Path, record: str) -> dict[str, Any]:
    """What a record that kizu wrote says. Raises LayoutError for none, or a damaged one."""
    try:
        facts = json.loads((folder / record).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise LayoutError(
            f"{folder} holds no readable {record} ({error}). Begin anew, with --overwrite."
        ) from error
    if not isinstance(facts, dict) or "kizu_format" not in facts:
        raise LayoutError(f"{folder / record} is not one of kizu's. Give another folder.")
    return facts


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines that a run appends to; a last one that a killed run did not finish is
    dropped. Raises LayoutError for another damage."""
    *whole, last = path.read_text("utf-8", "replace").split("\n")
    rows = []
    for number, line in enumerate([*whole, last], 1):
        try:
            row = json.loads(line) if line else None
            if line and not isinstance(row, dict):
                raise ValueError("an object was expected")
        except ValueError as error:
            if number > len(whole):
                break
            raise LayoutError(
                f"{path}, line {number}, is damaged ({error}). Begin anew, with --overwrite or in another "
                "folder."
            ) from error
        rows += [row] if row else []
    return rows


def why_foreign_file(path: Path) -> str:
    """Why a file is not kizu's to replace; "" when it is."""
    if not path.is_file():
        return "it is a folder, and a file is to be written"
    if path.stat().st_size == 0 or _carries_mark(path, MARKS):
        return ""
    for folder in path.absolute().parents[:2]:  # such as run/ and run/images/
        name = path.absolute().relative_to(folder).as_posix()
        for record, names in RECORDS.items():
            if _matches(name, names) and has_record(folder, record):
                return ""
    return "kizu did not write it"


def _why_foreign_folder(path: Path, record: str) -> str:
    """Why a folder is not kizu's to replace by an output of this kind; "" when it is."""
    if not path.is_dir():
        return "it is a file, and a folder is to be written"
    if not has_record(path, record):
        return f"it is a folder without a {record} of kizu's, so kizu did not write it"
    known = (record, *RECORDS[record])
    others = [name for name in _files_below(path) if not _matches(name, known)]
    return f"it also holds what kizu did not write there: {some(others, 3)}" if others else ""


def _files_below(folder: Path) -> Iterator[str]:
    """Relative names, with /, of all that is no real folder."""
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in sorted([*files, *links]):
            relative = (Path(place) / name).relative_to(folder).as_posix()
            if not any(fnmatch.fnmatchcase(name, pattern) for pattern in _JUNK):
                yield relative


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    regular = (fnmatch.translate(pattern).replace(r"\#", "[0-9]+") for pattern in patterns)
    return any(re.fullmatch(pattern, name) for pattern in regular)


def _carries_mark(path: Path, marks: tuple[bytes, ...]) -> bool:
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD)
    except OSError:
        return False
    return any(mark in head for mark in marks)


def _flush(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _swap(temporary: Path, path: Path) -> None:
    if not path.exists():
        temporary.replace(path)
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    path.replace(aside)
    try:
        temporary.replace(path)
    except OSError:
        aside.replace(path)
        raise
    if aside.is_symlink() or aside.is_file():
        aside.unlink()
    else:
        shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    if sys.platform == "win32":
        return 0
    current = os.umask(0)
    os.umask(current)
    return current
