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

from kizu import untrusted
from kizu.errors import ModelFileError, UsageError
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
MAX_CARD = 96 * 2**20
"""Bytes: the digests of two million images."""
MAX_HEADER = 16 * 2**20
TYPES = (
    *("float64", "float32", "float16", "bfloat16", "bool"),
    *("int64", "int32", "int16", "int8", "uint8"),
)
"""Of the numbers in a model's tensors."""
MAX_DIMENSIONS = 8
_TENSOR_ERRORS = (
    AssertionError,
    AttributeError,
    KeyError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What safetensors and torch raise for a header of odd types and shapes, beside SafetensorError."""


def save(
    path: Path | str, tensors: dict[str, Tensor], card: dict[str, Any], *, overwrite: bool = False
) -> Path:
    """Write tensors and card to `path`: one zip when it ends in .kizu or .zip, a folder otherwise.

    Raises OutputExists when `path` is there and `overwrite` is not said, or kizu did not write it; UsageError
    for a card of more than MAX_CARD bytes, which could not be opened again, and for what is no path. On any
    failure (a full disk, Ctrl-C) what was there before is still there and no half-written file remains."""
    from safetensors.torch import save as to_bytes

    if not isinstance(path, str | Path):
        raise UsageError(f"A model is saved under a path, got {path!r:.80}.")
    path = Path(path)
    whole = {"kizu_format": FORMAT, **card}
    text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if len(text) > MAX_CARD:
        raise UsageError(
            f"{path}: its card has {len(text):,} characters and could not be opened again; {MAX_CARD:,} are "
            "allowed. Learn from at most two million images."
        )
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
    card = load_card(path)
    return load_tensors(path), card


def load_tensors(path: Path | str) -> dict[str, Tensor]:
    """The tensors alone, for what checks the card before them. Raises ModelFileError."""
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    path = Path(path)
    data = untrusted.entry(path, WEIGHTS)
    _check_header(path, data)
    try:
        tensors: dict[str, Tensor] = from_bytes(data)
    except (SafetensorError, *_TENSOR_ERRORS) as error:
        raise ModelFileError(
            f"{path}: the weights are damaged or cut short ({error}). Save the model again."
        ) from error
    for name, tensor in tensors.items():
        if str(tensor.dtype).removeprefix("torch.") not in TYPES or tensor.ndim > MAX_DIMENSIONS:
            raise ModelFileError(
                f"{path}: tensor {name[:80]!r} is {tensor.ndim} dimensions of {tensor.dtype}, which kizu "
                "never writes. Refused."
            )
    return tensors


def load_card(path: Path | str) -> dict[str, Any]:
    """The card alone: JSON whose numbers are finite; `kizu.cards` says what may stand in it. Raises
    ModelFileError."""
    path = Path(path)
    card = untrusted.parse_json(untrusted.entry(path, CARD, most=MAX_CARD), f"{path}: {CARD}")
    if not isinstance(card, dict) or "kizu_format" not in card:
        raise ModelFileError(f"{path}: card.json is not one of kizu's (it has no kizu_format).")
    if card["kizu_format"] != FORMAT or isinstance(card["kizu_format"], bool):
        raise ModelFileError(
            f"{path} has format {card['kizu_format']!r:.40}; this kizu reads format {FORMAT}. Update "
            "kizu or save the model again."
        )
    return card


def content_digest(path: Path | str) -> str:
    """What identifies a saved model or representation: SHA-256 of its card and its weights, the same in a
    folder and in a zip. Raises ModelFileError."""
    total = hashlib.sha256()
    for name in (CARD, WEIGHTS):
        data = untrusted.entry(Path(path), name)
        total.update(f"{name} {len(data)} ".encode())
        total.update(data)
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


def _check_header(path: Path, data: bytes) -> None:
    """Refuse a safetensors header that claims more than it may, before anything of that size is allocated."""
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else None
    if length is None or length > min(MAX_HEADER, max(len(data) - 8, 0)):
        raise ModelFileError(
            f"{path}: the weights' header claims {length} bytes where {max(len(data) - 8, 0):,} are left. "
            "Damaged or hostile: refused."
        )
