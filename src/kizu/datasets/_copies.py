"""Image files made from what a publisher packs otherwise (arrays, volumes, very wide images): written once,
whole or not at all, and used again.

A row of Samples is an image file. What is none is written as PNG into a folder of copies: images/, and masks/
where there are any, with a record that says what they were made of. Where that has changed since, the copies
are made anew. The folder lies below that of the data set; where that may not be written to, in `copies=` or
below the folder that the environment variable KIZU_COPIES names."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kizu.checks import check_name
from kizu.errors import LayoutError
from kizu.image_files import list_images
from kizu.outputs import has_record, read_record, replacing_folder, write_record

COPIES = "kizu_copies"
"""Folder of the copies, below that of the data set, where no other is named."""
VARIABLE = "KIZU_COPIES"
"""A folder for the copies of every data set, each in a folder of its own, where `copies` is not said."""
RECORD = "prepared.json"
DAMAGED = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, SyntaxError, ArithmeticError, struct.error),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError, RecursionError, MemoryError),
    Image.DecompressionBombError,
)
"""What NumPy and Pillow raise for a file that is not what its name says."""


class _Made(Exception):
    """Another process has made the same copies meanwhile."""


def folder_of_copies(root: Path, copies: Path | str | None) -> Path:
    """Where the copies of the data set in `root` lie. Raises LayoutError for a name that is not UTF-8."""
    elsewhere = os.environ.get(VARIABLE)
    if copies is None and elsewhere:
        copies = Path(elsewhere) / f"{root.name}_{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"
    place = root / COPIES if copies is None else Path(copies).absolute()
    check_name(place)
    return place


def source_facts(files: Iterable[Path]) -> list[list[Any]]:
    """What identifies files without opening them: name, bytes and time of the last change of each."""
    stats = [(file.name, file.stat()) for file in files]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def made_once(folder: Path, facts: dict[str, Any], write: Callable[[Path], None]) -> list[Path]:
    """The images of `folder`, sorted by name, written by `write(temporary folder)` unless they are there.

    facts: plain JSON values that decide what is written; where they differ from those of the folder, or an
    image is gone, it is written anew. Raises OutputExists for a folder that kizu did not write, UsageError
    where nothing may be written, and what `write` raises; then nothing is left behind."""
    facts = json.loads(json.dumps(facts))
    there = _there(folder, facts)
    if there is not None:
        return there
    with contextlib.suppress(_Made), replacing_folder(folder, record=RECORD, overwrite=True) as temporary:
        for name in ("images", "masks"):
            (temporary / name).mkdir()
        write(temporary)
        count = len(list_images(temporary / "images"))
        write_record(temporary, RECORD, {"images": count, "made_of": facts})
        if _there(folder, facts) is not None:
            raise _Made
    there = _there(folder, facts)
    if there is None:
        raise LayoutError(f"{folder} was changed while it was written. Is another program at work in it?")
    return there


def write_pixels(folder: Path, names: Sequence[str], pixels: Iterable[NDArray[Any]]) -> None:
    """Write each (H, W) or (H, W, 3) array as folder/<name>.png, losslessly: uint8 or, grey, uint16."""
    for name, values in zip(names, pixels, strict=True):
        Image.fromarray(np.ascontiguousarray(values)).save(folder / f"{name}.png", compress_level=1)


def _there(folder: Path, facts: dict[str, Any]) -> list[Path] | None:
    """The images of a folder that was made of `facts` and is complete; None otherwise."""
    if not has_record(folder, RECORD):
        return None
    with contextlib.suppress(LayoutError):
        record = read_record(folder, RECORD)
        if record.get("made_of") == facts and (folder / "images").is_dir():
            found = sorted((folder / "images").glob("*.png"))
            return found if len(found) == record.get("images") else None
    return None
