"""Ways to spoil a model file: bytes, zip headers, fields of the card, tensors and their header.

A model is `Parts`: the bytes of its two files. `spoiled` draws one way from a seed, writes the file, and says
what it did."""

from __future__ import annotations

import io
import json
import math
import random
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from kizu.store import CARD, WEIGHTS

RAW = {
    "NaN": "NaN", "-Infinity": "-Infinity", "1e999": "1e999", "a number of 5,000 digits": "9" * 5000,
    "10^30": "1" + 30 * "0", "100,000 brackets": "[" * 100_000, "60 lists": "[" * 60 + "]" * 60,
    "a control character": r'"\u001b[2J"', "half a character": r'"\ud800"',
    "300,000 lists": "[" + "[]," * 300_000 + "0]", "a megabyte": '"' + "x" * 2**20 + '"',
}  # fmt: skip
"""What no Python value gives, as JSON text."""
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 64, 4096, 65_536, 2**31, 2**53, 10**18, -(10**18), 2**64),
    *(0.5, 2.5, -0.0, 1e-300, 1e12, 1e308, -1e308, "", "x", "NaN", "1", "x" * 300, "傷", "../../etc/passwd"),
    *(
        "hf-hub:timm/resnet18.a1_in1k",
        "local-dir:/tmp",
        "/etc/passwd",
        "resnet18",
        "resnet18.none",
        "test_vit",
    ),
    *(
        "vit_large_patch14_dinov2",
        "convnext_tiny",
        "random",
        "timm",
        "file",
        "residual",
        "stacked",
        "backbone",
    ),
    *("patchcore", "padim", "gaussian", "base", "_objective", "sources", "cuda", "bf16", "cross"),
    *([], {}, [[]], [1, 2], [3], [0], [-1], [1, 1], [8192, 8192], [10**9, 10**9], ["x"], [None], {"kind": 1}),
    *({"kind": "stacked", "name": "x", "parts": []}, {"name": "residual", "parameters": {}, "seed": 0}),
)


@dataclass(frozen=True)
class Parts:
    """card, weights: the bytes of the two files of a model. what: how it was made, or spoiled."""

    what: str
    card: bytes
    weights: bytes

    def written(self, folder: Path, *, as_folder: bool) -> Path:
        """The model on disk, a folder or a zip."""
        path = folder / ("model" if as_folder else "model.kizu")
        if as_folder:
            path.mkdir()
            (path / CARD).write_bytes(self.card)
            (path / WEIGHTS).write_bytes(self.weights)
        else:
            path.write_bytes(self.zipped())
        return path

    def zipped(self, compression: int = zipfile.ZIP_STORED, **names: str) -> bytes:
        """One zip; names: other names of `card` and `weights`."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            archive.writestr(zipfile.ZipInfo(names.get("card", CARD)), self.card, compression)
            archive.writestr(zipfile.ZipInfo(names.get("weights", WEIGHTS)), self.weights, compression)
        return buffer.getvalue()


def of(path: Path, what: str) -> Parts:
    """A model that was saved as a zip."""
    with zipfile.ZipFile(path) as archive:
        return Parts(what, archive.read(CARD), archive.read(WEIGHTS))


def spoiled(model: Parts, other: Parts, seed: int, folder: Path) -> tuple[str, Path]:
    """(what was done to `model`, the file); `other` is a second model to mix in."""
    chance = random.Random(seed)
    as_folder = chance.random() < 0.5
    way = chance.choices(WAYS, [1, 1, 1, 5, 1, 3, 2])[0]
    if way is zip_bytes:
        said, data = zip_bytes(model, chance)
        path = folder / "model.kizu"
        path.write_bytes(data)
        return f"{model.what}: {said}", path
    changed = way(model, other, chance)
    return f"{model.what}: {changed.what}", changed.written(folder, as_folder=as_folder)


def zip_bytes(model: Parts, chance: random.Random) -> tuple[str, bytes]:
    """Headers of the zip, and how it is packed."""
    kind = chance.choice(
        ["header", "header", "bytes", "deflated", "renamed", "twice", "comment", "in a folder"]
    )
    if kind == "deflated":
        return kind, model.zipped(chance.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
    if kind == "renamed":
        return kind, model.zipped(
            card=chance.choice(["Card.json", "", "../card.json", "card.json/", "x" * 999])
        )
    if kind == "in a folder":
        return kind, model.zipped(card=f"m/{CARD}", weights=f"m/{WEIGHTS}")
    data = bytearray(model.zipped())
    if kind == "twice":
        return kind, bytes(data) + bytes(data)
    if kind == "comment":
        return kind, bytes(data[:-2]) + struct.pack("<H", 9) + b"PK\x05\x06hello"
    if kind == "bytes":
        return some_bytes(bytes(data), chance)
    starts = [at for at in range(len(data) - 3) if data[at : at + 4] in (b"PK\3\4", b"PK\1\2", b"PK\5\6")]
    at = chance.choice(starts) + chance.randrange(4, 46)
    width = chance.choice([1, 2, 4])
    value = chance.choice([0, 1, 8, 99, 0x7FFF, 0xFFFFFFFF, chance.getrandbits(32)]) & (256**width - 1)
    data[at : at + width] = value.to_bytes(width, "little")
    return f"zip header, {width} bytes at {at} are {value}", bytes(data)


def card_bytes(model: Parts, other: Parts, chance: random.Random) -> Parts:
    """Any bytes of the card."""
    said, data = some_bytes(model.card, chance)
    return Parts(f"card, {said}", data, model.weights)


def weight_bytes(model: Parts, other: Parts, chance: random.Random) -> Parts:
    """Any bytes of the weights."""
    said, data = some_bytes(model.weights, chance)
    return Parts(f"weights, {said}", model.card, data)


def card_field(model: Parts, other: Parts, chance: random.Random) -> Parts:
    """One to three fields of the card."""
    card, count = json.loads(model.card), chance.choice([1, 1, 1, 2, 3])
    said = [_change(card, json.loads(other.card), chance) for _ in range(count)]
    text = json.dumps(card, ensure_ascii=False)
    for name, raw in RAW.items():
        text = text.replace(json.dumps(f"RAW {name}"), raw)
    return Parts("; ".join(said), text.encode(), model.weights)


def swapped(model: Parts, other: Parts, chance: random.Random) -> Parts:
    """The card of one model with the weights of another."""
    return Parts(f"with the weights of {other.what}", model.card, other.weights)


def tensor(model: Parts, other: Parts, chance: random.Random) -> Parts:
    """One to three tensors."""
    tensors, said = load(model.weights), []
    for _ in range(chance.choice([1, 1, 2, 3])):
        if all(value.is_complex() for value in tensors.values()):
            break
        name = chance.choice(sorted(name for name, value in tensors.items() if not value.is_complex()))
        change = chance.choice(sorted(TENSOR_CHANGES))
        said.append(f"{name} {change}")
        value = TENSOR_CHANGES[change](tensors.pop(name))
        if value is not None:
            new = chance.choice(["", "detector.", "x" * 200]) + name if change == "renamed" else name
            tensors[new] = value.contiguous()
    return Parts("; ".join(said), model.card, save(tensors))


def header(model: Parts, other: Parts, chance: random.Random) -> Parts:
    """The header of the weights: its length, and fields of it."""
    (length,) = struct.unpack("<Q", model.weights[:8])
    fields, rest = json.loads(model.weights[8 : 8 + length]), model.weights[8 + length :]
    said = _change(fields, fields, chance) if fields else "nothing"
    text = json.dumps(fields)
    for name, raw in RAW.items():
        text = text.replace(json.dumps(f"RAW {name}"), raw)
    claimed = chance.choice(
        [len(text.encode())] * 4 + [0, 2**63, 2**64 - 1, len(rest), chance.getrandbits(20)]
    )
    data = struct.pack("<Q", claimed) + text.encode() + rest
    return Parts(f"header of {claimed} bytes, {said}", model.card, data)


WAYS: list[Callable[..., Any]] = [zip_bytes, card_bytes, weight_bytes, card_field, swapped, tensor, header]
TENSOR_CHANGES: dict[str, Callable[[torch.Tensor], torch.Tensor | None]] = {
    "removed": lambda value: None,
    "renamed": lambda value: value,
    "of float64": lambda value: value.double(),
    "of float16": lambda value: value.half(),
    "of bfloat16": lambda value: value.bfloat16(),
    "of int64": lambda value: value.nan_to_num().long() if value.is_floating_point() else value,
    "of int8": lambda value: value.to(torch.int8),
    "of bool": lambda value: value.bool(),
    "of complex64": lambda value: value.to(torch.complex64),
    "flat": lambda value: value.flatten(),
    "turned": lambda value: value.mT if value.ndim > 1 else value[None],
    "cut": lambda value: value[..., : value.shape[-1] // 2] if value.ndim else value[None],
    "empty": lambda value: value.flatten()[:0],
    "twice as long": lambda value: torch.cat([value, value]) if value.ndim else value[None],
    "NaN": lambda value: torch.full(value.shape, math.nan),
    "infinite": lambda value: torch.full(value.shape, math.inf),
    "1e38": lambda value: torch.full(value.shape, 1e38),
    "1e300": lambda value: torch.full(value.shape, 1e300, dtype=torch.float64),
    "0": torch.zeros_like,
    "negative": lambda value: -value if value.dtype != torch.bool else ~value,
    "large": lambda value: (value.double() * 1e6).to(torch.float32),
    "2^62": lambda value: torch.full(value.shape, 2**62),
}


def some_bytes(data: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Some bytes flipped, cut off, added, left out, or zeroed."""
    at, changed = chance.randrange(max(len(data), 1)), bytearray(data)
    kind = chance.choice(
        ["flipped", "flipped near the start", "flipped near the end", "cut", "longer", "zeroed"]
    )
    if kind.startswith("flipped"):
        near = {"flipped": (0, len(data)), "flipped near the start": (0, 300)}.get(
            kind, (len(data) - 300, len(data))
        )
        for _ in range(chance.choice([1, 1, 2, 8])):
            at = min(max(chance.randrange(*near), 0), len(data) - 1)
            changed[at] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del changed[at:]
    elif kind == "longer":
        changed += chance.randbytes(chance.choice([1, 100, 100_000]))
    else:
        changed[at : at + 64] = bytes(len(changed[at : at + 64]))
    return f"{kind} at {at}", bytes(changed)


def _change(whole: Any, other: Any, chance: random.Random) -> str:
    """One field of a JSON value, in place; what was done."""
    places = list(_places(whole, ""))
    owner, key, name = chance.choice(places)
    kind = chance.choice(["replaced", "replaced", "replaced", "raw", "scaled", "removed", "added", "mixed"])
    old = owner[key]
    if kind == "removed":
        del owner[key]
        return f"{name} removed"
    if kind == "scaled" and isinstance(old, int | float):
        value = old * chance.choice([-1, 2, 10, 1000, 10**6, 10**9])
    elif kind == "raw":
        value = f"RAW {chance.choice(sorted(RAW))}"
    elif kind == "mixed":
        theirs, theirs_key, _ = chance.choice(list(_places(other, "")))
        value = theirs[theirs_key]
    else:
        value = chance.choice(VALUES)
    if kind == "added" and isinstance(owner, dict):
        key = chance.choice(
            ["sigma", "hidden", "kind", "parts", "base", "x" * 50, "half", "seed", "image_size"]
        )
        name += f" and beside it {key}"
    owner[key] = json.loads(json.dumps(value))
    return f"{name} -> {repr(value)[:60]}"


def _places(value: Any, name: str) -> Any:
    """(owner, key, dotted name) of each value; of lists only the first few."""
    pairs = list(value.items()) if isinstance(value, dict) else list(enumerate(value))[:4]
    for key, inner in pairs:
        yield value, key, f"{name}.{key}"
        if isinstance(inner, dict | list):
            yield from _places(inner, f"{name}.{key}")
