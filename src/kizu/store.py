"""Anything trained <-> disk: weights.safetensors + card.json, in a folder or in one uncompressed zip. Never
pickle.

Loading a file from a stranger runs no code: the card is JSON, the weights are safetensors, names are a fixed
pair, sizes are checked against the file before anything is read, and the caller states the shapes that it
expects.

What is replaced: only what kizu wrote, and never an input. `kizu.outputs` says the rule, `replacing` and
`replacing_folder` keep it for every output, the models here among them."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kizu.errors import ModelFileError
from kizu.outputs import FILE_SUFFIXES
from kizu.outputs import FORMAT as FORMAT
from kizu.outputs import check_output as check_output
from kizu.outputs import has_record as has_record
from kizu.outputs import is_empty as is_empty
from kizu.outputs import read_record as read_record
from kizu.outputs import read_rows as read_rows
from kizu.outputs import refuse_inputs as refuse_inputs
from kizu.outputs import remove_folder as remove_folder
from kizu.outputs import replacing as replacing
from kizu.outputs import replacing_folder as replacing_folder
from kizu.outputs import write_json as write_json
from kizu.outputs import write_record as write_record

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, CARD = "weights.safetensors", "card.json"
MAX_CARD = 16 * 2**20
MAX_HEADER = 32 * 2**20


def save(
    path: Path | str, tensors: dict[str, Tensor], card: dict[str, Any], *, overwrite: bool = False
) -> Path:
    """Write tensors and card to `path`: one zip when it ends in .kizu or .zip, a folder otherwise.

    Raises OutputExists when `path` is there and `overwrite` is not said, or kizu did not write it. On any
    failure (a full disk, Ctrl-C) what was there before is still there and no half-written file remains."""
    from safetensors.torch import save as to_bytes

    path = Path(path)
    whole = {"kizu_format": FORMAT, **card}
    text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    data = to_bytes({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    if path.suffix in FILE_SUFFIXES:
        with (
            replacing(path, overwrite=overwrite) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
        ):
            archive.writestr(zipfile.ZipInfo(CARD), text)
            archive.writestr(zipfile.ZipInfo(WEIGHTS), data)
    else:
        with replacing_folder(path, record=CARD, overwrite=overwrite) as temporary:
            (temporary / CARD).write_text(text, "utf-8")
            (temporary / WEIGHTS).write_bytes(data)
    return path


def load(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, card) of what `save` wrote. Raises ModelFileError when the file is missing, damaged, foreign
    or unsafe."""
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    path = Path(path)
    card = load_card(path)
    size, read = _entry(path, WEIGHTS)
    _check_header(path, size, read)
    try:
        return from_bytes(read(size)), card
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelFileError(
            f"{path}: the weights are damaged or cut short ({error}). Save the model again."
        ) from error


def load_card(path: Path | str) -> dict[str, Any]:
    """The card alone. Raises ModelFileError."""
    path = Path(path)
    if not path.exists():
        raise ModelFileError(f"{path} does not exist. Give the path that `kizu fit ... -o` or `.save` wrote.")
    size, read = _entry(path, CARD)
    if size > MAX_CARD:
        raise ModelFileError(
            f"{path}: card.json claims {size:,} bytes; a card has at most {MAX_CARD:,}. Refused."
        )
    try:
        card = json.loads(read(size))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: card.json is not valid JSON ({error}).") from error
    if not isinstance(card, dict) or "kizu_format" not in card:
        raise ModelFileError(f"{path}: card.json is not one of kizu's (it has no kizu_format).")
    if card["kizu_format"] != FORMAT:
        raise ModelFileError(
            f"{path} has format {card['kizu_format']!r}; this kizu reads format {FORMAT}. Update kizu or "
            "save the model again."
        )
    return card


def content_digest(path: Path | str) -> str:
    """What identifies a saved model or representation: SHA-256 of its card and its weights, the same in a
    folder and in a zip. Raises ModelFileError."""
    total = hashlib.sha256()
    for name in (CARD, WEIGHTS):
        size, read = _entry(Path(path), name)
        total.update(f"{name} {size} ".encode())
        total.update(read(size))
    return total.hexdigest()


def without_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def expect(path: Path | str, tensors: dict[str, Tensor], shapes: dict[str, str]) -> dict[str, int]:
    """Check names, shapes and numbers of loaded tensors against patterns such as {"bank": "N D"}; returns the
    letters bound.

    Raises ModelFileError naming the tensor that is missing, of another shape, or not finite.
    """
    from kizu.checks import bind_shape
    from kizu.errors import ShapeError

    bound: dict[str, tuple[int, str]] = {}
    for name, pattern in shapes.items():
        if name not in tensors:
            raise ModelFileError(f"{path}: tensor '{name}' is missing; found {sorted(tensors)[:12]}.")
        try:
            bind_shape(name, tuple(tensors[name].shape), pattern, bound)
        except ShapeError as error:
            raise ModelFileError(f"{path}: {error}") from error
        if tensors[name].is_floating_point() and not bool(tensors[name].isfinite().all()):
            raise ModelFileError(f"{path}: tensor '{name}' holds NaN or infinity.")
    return {letter: size for letter, (size, _) in bound.items()}


def provenance() -> dict[str, Any]:
    """Versions, commit and time of day for a card or a run."""
    import importlib.metadata
    import platform
    import time

    import kizu

    versions = {name: importlib.metadata.version(name) for name in ("torch", "timm", "numpy")}
    return {
        "kizu": kizu.__version__,
        "python": platform.python_version(),
        **versions,
        "commit": _commit(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _commit() -> str | None:
    source = Path(__file__).resolve().parent
    if not (source.parent.parent / ".git").exists():
        return None
    command = ["git", "-C", str(source), "describe", "--always", "--dirty"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def _entry(path: Path, name: str) -> tuple[int, Any]:
    """(size, read(count)) of one of the two entries, in a folder or a zip."""
    if path.is_dir():
        file = path / name
        if not file.is_file():
            raise ModelFileError(f"{path} holds no {name}: it is not a model that kizu saved.")

        def from_file(count: int) -> bytes:
            with file.open("rb") as stream:
                return stream.read(count)

        return file.stat().st_size, from_file
    try:
        archive = zipfile.ZipFile(path)
        info = archive.getinfo(name)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise ModelFileError(
            f"{path} is damaged, cut short, or not a model that kizu saved ({error})."
        ) from error
    if (
        info.compress_type != zipfile.ZIP_STORED
        or info.file_size > path.stat().st_size
        or info.flag_bits & 0x1
    ):
        raise ModelFileError(
            f"{path}: {name} claims {info.file_size:,} bytes in a file of {path.stat().st_size:,}. Refused."
        )

    def from_zip(count: int) -> bytes:
        try:
            with archive.open(info) as stream:
                return stream.read(count)
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise ModelFileError(f"{path} is damaged or cut short ({error}).") from error

    return info.file_size, from_zip


def _check_header(path: Path, size: int, read: Any) -> None:
    """Refuse a safetensors header that claims more than it may, before anything of that size is allocated."""
    start = read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else None
    if length is None or length > min(MAX_HEADER, max(size - 8, 0)):
        raise ModelFileError(
            f"{path}: the weights' header claims {length} bytes where {max(size - 8, 0):,} are left. Damaged "
            "or hostile: refused."
        )
