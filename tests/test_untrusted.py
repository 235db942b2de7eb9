"""What zips and JSON of strangers may hold, and how each fault is named."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kizu import store
from kizu.errors import ModelFileError, UsageError
from kizu.untrusted import BLOCK, MAX_DEPTH, entry, parse_json

TENSORS = {"bank": torch.arange(6.0)}


def saved(folder: Path) -> Path:
    return store.save(folder / "model.kizu", TENSORS, {"kind": "test"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": NaN}', "holds NaN"),
        ('{"a": -Infinity}', "holds -Infinity"),
        ('{"a": 1e999}', "number 1e999, too large"),
        ('{"a": 100000000000000000000}', "whole number of 21 digits"),
        ('{"a": 18446744073709551616}', "whole number of 20 digits"),
        ('{"a": ' + "9" * 5000 + "}", "whole number of 5000 digits"),
        ('{"a": 1, "a": 2}', "names 'a' twice"),
        ("{" + ",".join(f'"{n}":0' for n in range(20_001)) + "}", "object of 20,001 names"),
        ("[" * 100_000, "not valid JSON"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), f"more than {MAX_DEPTH} levels"),
        (r'{"a": "\u001b[2J"}', "control characters"),
        (r'{"\ud800": 1}', "control characters"),
        ("[" + "[]," * 2_200_000 + "0]", "2,100,000 values"),
    ],
)
def test_json_that_is_refused(text: str, said: str) -> None:
    with pytest.raises(ModelFileError, match=f"^model: card .*{said.replace('[', '.')}"):
        parse_json(text.encode(), "model: card")


def test_json_that_is_read() -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    text = '{"a": 18446744073709551615, "b": -1.5e300, "c": "two\\nlines, 傷", "d": ' + deep[1:-1] + "}"
    value = parse_json(text.encode(), "card")
    assert (value["a"], value["b"], value["c"]) == (2**64 - 1, -1.5e300, "two\nlines, 傷")
    with pytest.raises(ModelFileError, match="not valid JSON"):
        parse_json(b"\xff\xfe\xff", "card")


def test_a_model_that_was_packed_again(tmp_path: Path) -> None:
    """Without compression, by whatever program, it loads; with it, in folders or encrypted it is refused."""
    path, again = saved(tmp_path), tmp_path / "again.zip"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(again, "w") as archive:
        for name in sorted(parts, reverse=True):
            archive.writestr(name, parts[name])
        archive.writestr("notes.txt", "mine")
        archive.comment = b"packed again"
    assert torch.equal(store.load(again)[0]["bank"], TENSORS["bank"])
    with zipfile.ZipFile(again, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(ModelFileError, match="Unpack it and give the folder, or pack it without compression"):
        store.load(again)
    with zipfile.ZipFile(again) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert torch.equal(store.load(tmp_path / "unpacked")[0]["bank"], TENSORS["bank"])
    with zipfile.ZipFile(again, "w") as archive:
        for name, data in parts.items():
            archive.writestr(f"model/{name}", data)
    with pytest.raises(ModelFileError, match=r"'model/card\.json', a model in a folder of a zip"):
        store.load(again)


def test_an_entry_twice(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(store.CARD, "{}")
    with pytest.raises(ModelFileError, match="more than once"):
        store.load(path)


def version(data: bytearray) -> None:
    start = data.index(b"PK\x01\x02")
    data[start + 6 : start + 8] = struct.pack("<H", 99)


def encrypted(data: bytearray) -> None:
    data[data.index(b"PK\x01\x02") + 8] |= 1


def long_directory(data: bytearray) -> None:
    """The list of entries claims 3 GB, in a file that is as long but holds nothing there."""
    start = data.index(b"PK\x05\x06")
    data[start + 12 : start + 16] = struct.pack("<L", 3 * 10**9)


@pytest.mark.parametrize(
    ("change", "said"), [(version, "damaged"), (encrypted, "encrypted"), (long_directory, "damaged")]
)
def test_a_header_that_was_changed(tmp_path: Path, change: Callable[[bytearray], None], said: str) -> None:
    path = saved(tmp_path)
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=said):
        store.load(path)


def test_a_long_list_of_entries_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "many.kizu"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(BLOCK // 46):
            archive.writestr(f"{number}", "")
    with pytest.raises(ModelFileError, match="list of entries claims"):
        entry(path, store.CARD)


def test_folders_and_devices_in_place_of_files(tmp_path: Path) -> None:
    (tmp_path / "model" / store.CARD).mkdir(parents=True)
    with pytest.raises(ModelFileError, match="holds no card"):
        store.load(tmp_path / "model")
    os.mkfifo(tmp_path / "pipe.kizu")
    with pytest.raises(ModelFileError, match="neither a file nor a folder"):
        store.load(tmp_path / "pipe.kizu")


def test_a_card_that_is_too_long_is_neither_written_nor_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.save(tmp_path / "model", {}, {"words": "x" * 1000})
    monkeypatch.setattr(store, "MAX_CARD", 1000)
    with pytest.raises(ModelFileError, match="1,000 are allowed"):
        store.load(path)
    with pytest.raises(UsageError, match="Learn from at most two million images"):
        store.save(tmp_path / "other", {}, {"words": "x" * 1000})
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_model_of_two_million_images_can_be_opened(tmp_path: Path) -> None:
    digests = [f"{number:032x}" for number in range(2_000_000)]
    path = store.save(tmp_path / "model.kizu", {}, {"seen": {"fitted": digests, "calibrated": []}})
    assert store.load_card(path)["seen"]["fitted"] == digests


@pytest.mark.parametrize(
    "shape", ["[0, 9223372036854775807, 4]", "[-1]", "[1.5]", '"2"', "[" + "1," * 300 + "2]"]
)
@pytest.mark.parametrize("kind", ["F32", "F4", "C64", "F8_E4M3", "X"])
def test_a_tensor_of_an_odd_type_or_shape(tmp_path: Path, kind: str, shape: str) -> None:
    path = store.save(tmp_path / "model", TENSORS, {})
    size = 0 if shape.startswith("[0") else 8
    header = f'{{"bank":{{"dtype":"{kind}","shape":{shape},"data_offsets":[0,{size}]}}}}'.encode()
    (path / store.WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    with pytest.raises(ModelFileError, match=r"weights are damaged|which kizu never writes"):
        store.load(path)


def test_a_file_of_more_bytes_than_there_is_memory(tmp_path: Path) -> None:
    """A terabyte that takes 4 kB of disk."""
    with (tmp_path / "weights.safetensors").open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(ModelFileError, match=r"has 1,099,511,627,776 bytes, and .* of memory are free"):
        entry(tmp_path, "weights.safetensors")
