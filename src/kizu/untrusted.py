"""Files from strangers -> bytes and JSON, in bounded memory. Whatever is wrong with them is a ModelFileError.

A model is a folder with two files, or one uncompressed zip of the two: what is read is never larger than the
file itself, and no code of it is run."""

from __future__ import annotations

import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import psutil

from kizu.errors import ModelFileError, some

BLOCK = 2**20
"""Bytes that are read from a zip at once; its list of entries must fit in."""
MAX_DEPTH = 40
"""Lists and objects within each other in JSON."""
MAX_VALUES = 2_100_000
"""Values in one JSON text: each takes some 70 bytes of memory, and may take 3 in the file."""
MAX_NAMES = 20_000
"""Names in one object: a schema complains of each of them."""
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, which a terminal obeys, and halves of characters, which no file can hold."""
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError),
    *(KeyError, OverflowError, struct.error, zlib.error),
)
"""All that zipfile was seen to raise for damaged files; NotImplementedError is a RuntimeError."""


def entry(path: Path, name: str, *, most: int | None = None) -> bytes:
    """The file `name` of a model at `path`, a folder or a zip. Raises ModelFileError, for one of more than
    `most` bytes too."""
    if path.is_dir():
        return _from_folder(path, name, most)
    if not path.is_file():
        what = "is neither a file nor a folder" if path.exists() else "does not exist"
        raise ModelFileError(f"{path} {what}. Give the path that `kizu fit ... -o` or `.save` wrote.")
    try:
        with _ShortReads(path) as stream, zipfile.ZipFile(stream) as archive:
            info = _only(path, archive, name)
            _check_stored(path, info, most)
            data = bytearray()
            with archive.open(info) as packed:
                while block := packed.read(BLOCK):
                    data += block
    except PermissionError as error:
        raise ModelFileError(f"{path} may not be read: permission denied.") from error
    except _ZIP_ERRORS as error:
        raise ModelFileError(
            f"{path} is damaged, cut short, or not a model that kizu saved ({error})."
        ) from error
    return bytes(data)


def parse_json(data: bytes, where: str) -> Any:
    """The value of a JSON text; numbers are finite, names occur once, depth and count are bounded.

    `where` begins the message of the ModelFileError that anything else raises.

    >>> parse_json(b'{"a": [1, 2.5]}', "card.json")
    {'a': [1, 2.5]}
    >>> parse_json(b'{"a": NaN}', "card.json")
    Traceback (most recent call last):
        ...
    kizu.errors.ModelFileError: card.json is not valid JSON (it holds NaN).
    """
    try:
        value = json.loads(
            data, parse_constant=_refuse, parse_float=_finite, parse_int=_short, object_pairs_hook=_once
        )
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{where} is not valid JSON ({error}).") from error
    _check_values(value, where)
    return value


class _ShortReads(io.FileIO):
    """A file of which at most BLOCK bytes are read at once: zipfile reads a list of entries as long as the
    file says, so one that claims gigabytes is refused here."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > BLOCK:
            raise zipfile.BadZipFile(f"its list of entries claims {size:,} bytes")
        return super().read(-1 if size is None else size) or b""


def _from_folder(path: Path, name: str, most: int | None) -> bytes:
    file = path / name
    try:
        if not file.is_file():
            raise ModelFileError(f"{path} holds no {name}: it is not a model that kizu saved.")
        _check_size(path, name, file.stat().st_size, most)
        return file.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{file} cannot be read ({error.strerror or error}).") from error


def _only(path: Path, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The one entry of that name."""
    names = archive.namelist()
    if names.count(name) > 1:
        raise ModelFileError(f"{path} holds {name} more than once: nobody can say which counts. Refused.")
    if name in names:
        return archive.getinfo(name)
    deeper = [one for one in names if one.endswith(f"/{name}") and not one.startswith("__MACOSX")]
    if deeper:
        raise ModelFileError(
            f"{path} holds {deeper[0]!r}, a model in a folder of a zip. Unpack it and give that folder."
        )
    raise ModelFileError(
        f"{path} holds no {name}, only {some(map(repr, names), 3) or 'nothing'}: it is not a model that kizu "
        "saved."
    )


def _check_stored(path: Path, info: zipfile.ZipInfo, most: int | None) -> None:
    """Refuse an entry that is encrypted, compressed, or claims more than there is."""
    name, whole = info.filename, path.stat().st_size
    if info.flag_bits & 0x1:
        raise ModelFileError(f"{path}: {name} is encrypted. Decrypt it, and give the unpacked folder.")
    if info.compress_type != zipfile.ZIP_STORED:
        raise ModelFileError(
            f"{path} was packed again with compression, and kizu reads models that are stored as they are. "
            "Unpack it and give the folder, or pack it without compression (zip -0)."
        )
    if info.file_size > whole or info.file_size != info.compress_size:
        raise ModelFileError(
            f"{path}: {name} claims {info.file_size:,} bytes in a file of {whole:,}. Refused."
        )
    _check_size(path, name, info.file_size, most)


def _check_size(path: Path, name: str, size: int, most: int | None) -> None:
    if most is not None and size > most:
        raise ModelFileError(f"{path}: {name} has {size:,} bytes, and {most:,} are allowed. Refused.")
    free = psutil.virtual_memory().available
    if size > free:
        raise ModelFileError(f"{path}: {name} has {size:,} bytes, and {free:,} of memory are free. Refused.")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds the number {text[:20]}, too large for any computer")
    return value


def _short(text: str) -> int:
    """Whole numbers of 64 bits."""
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
        raise ValueError(f"it holds a whole number of {len(text.lstrip('-'))} digits")
    return int(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(pairs) > MAX_NAMES:
        raise ValueError(f"it holds an object of {len(pairs):,} names")
    if len(found) != len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"it names {name[:40]!r} twice in one object")
    return found


def _check_values(value: Any, where: str) -> None:
    """Raise ModelFileError for too many values, too deep ones, or text that cannot be shown."""
    level, count = [value], 0
    for _ in range(MAX_DEPTH):
        for one in level:
            if isinstance(one, str) and _UNPRINTABLE.search(one):
                raise ModelFileError(f"{where} holds text with control characters: {one[:40]!r}. Refused.")
        level = [inner for one in level if isinstance(one, dict | list) for inner in _within(one)]
        count += len(level)
        if not level:
            return
        if count > MAX_VALUES:
            break
    raise ModelFileError(f"{where} holds more than {MAX_DEPTH} levels or {MAX_VALUES:,} values. Refused.")


def _within(one: dict[str, Any] | list[Any]) -> list[Any]:
    return [*one, *one.values()] if isinstance(one, dict) else one
