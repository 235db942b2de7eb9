"""CIFAR-10 and CIFAR-100 as their author packs them for C programs, and the copies of their pictures as
files.

Read: the binary versions, and a pack of JPEG files in NumPy's format without Python objects. The version for
Python is a pickle, which can run code of whoever wrote it when it is opened: it is refused."""

from __future__ import annotations

import functools
import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kizu.datasets._copies import DAMAGED, made_once, source_facts, write_pixels
from kizu.datasets._layout import folders_in
from kizu.errors import LayoutError, some

CITATION = "A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images, technical report, 2009"
HOMEPAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
"""Of CIFAR-10, in the order of the labels 0 to 9."""
SIDE = 32
_BINARY = {
    "cifar10": "cifar-10-batches-bin",
    "cifar100": "cifar-100-binary",
}
_PARTS = {
    ("cifar10", "train"): tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    ("cifar10", "test"): ("test_batch.bin",),
    ("cifar100", "train"): ("train.bin",),
    ("cifar100", "test"): ("test.bin",),
}
_PICKLED = ("cifar-10-batches-py", "cifar-100-python", "data_batch_1", "test_batch")
_PACK_KEYS = {"jpeg", "offsets", "labels"}


class Pictures(NamedTuple):
    """One side of a data set: images (n, 32, 32, 3) uint8 and labels (n,) int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def files_of(root: Path, name: str, split: str) -> tuple[Path, ...]:
    """The files that hold "cifar10" or "cifar100", split "train" or "test": of the binary version, else the
    pack of JPEG files, whose order is not the official one. They lie in `root` or in the folder in it that
    the archive unpacks to. Raises LayoutError."""
    place = _place(root, name)
    pack = place / f"{name}_{split}.npz"
    files = tuple(place / part for part in _PARTS[name, split])
    if pack.is_file() and not files[0].is_file():
        return (pack,)
    gone = [file.name for file in files if not file.is_file()]
    if gone:
        raise LayoutError(f"{place} holds no {some(gone)}; download the binary version again.")
    return files


def pictures_of(root: Path, name: str, split: str, *, coarse: bool = False) -> Pictures:
    """The pictures of `files_of`. coarse: labels are the twenty superclasses of CIFAR-100. Raises
    LayoutError."""
    files = files_of(root, name, split)
    if files[0].suffix == ".npz":
        return _read_pack(files[0])
    classes = len(class_names(root, name, coarse=coarse))
    parts = [_read_records(file, 1 if name == "cifar10" else 2, classes, coarse) for file in files]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Pictures(images, labels)


def class_names(root: Path, name: str, *, coarse: bool = False) -> tuple[str, ...]:
    """Names of the classes, in the order of the labels; those of CIFAR-100 are read from its archive. Raises
    LayoutError."""
    if name == "cifar10":
        return CLASSES
    file = _place(root, name) / f"{'coarse' if coarse else 'fine'}_label_names.txt"
    if not file.is_file():
        raise LayoutError(f"{file} is not there; it belongs to the binary version of the data set.")
    lines = file.read_text("utf-8", "replace").split("\n")
    names = tuple(line.strip() for line in lines if line.strip())
    plain = all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in names)  # they become names of folders
    if not plain or len(names) != (20 if coarse else 100) or len(set(names)) < len(names):
        raise LayoutError(
            f"{file} lists {len(names)} names; {20 if coarse else 100} different ones were due."
        )
    return names


def clean_copies(
    place: Path, root: Path, name: str, split: str, wanted: Sequence[int], *, coarse: bool = False
) -> dict[int, list[Path]]:
    """Label -> its pictures as PNG in place/<split>/<class>/images, named by their number in the archive."""
    load = functools.cache(lambda: pictures_of(root, name, split, coarse=coarse))
    names = class_names(root, name, coarse=coarse)
    facts = {"dataset": name, "split": split, "source": source_facts(files_of(root, name, split))}
    made = {}
    for label in wanted:

        def write(folder: Path, label: int = label) -> None:
            rows = np.flatnonzero(load().labels == label)
            write_pixels(folder / "images", [f"{row:05d}" for row in rows], load().images[rows])

        made[label] = made_once(place / split / names[label], {**facts, "label": names[label]}, write)
    return made


def _place(root: Path, name: str) -> Path:
    """The folder with the files of `name`. Raises LayoutError."""
    test = _PARTS[name, "test"][0]
    for place in (root, root / _BINARY[name], root / name):
        if (place / test).is_file() or (place / f"{name}_test.npz").is_file():
            return place
    archive = "cifar-10-binary.tar.gz" if name == "cifar10" else "cifar-100-binary.tar.gz"
    pickled = [entry for entry in _PICKLED if (root / entry).exists()]
    if pickled:
        raise LayoutError(
            f"{root / pickled[0]} is the version for Python, a pickle, which can run code when it is opened; "
            f"it is not read. Download the binary version, {archive}, and unpack it there."
        )
    there = some([sub.name for sub in folders_in(root)]) or "none"
    raise LayoutError(
        f"{root} holds neither {test} nor {_BINARY[name]}/{test}, which {archive} unpacks to; its folders: "
        f"{there}."
    )


def _read_records(
    file: Path, heads: int, classes: int, coarse: bool
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(images, labels) of one file of records: `heads` label bytes (CIFAR-100: coarse, fine), then 1,024 red,
    green and blue bytes each."""
    data = np.fromfile(file, np.uint8)
    size = heads + 3 * SIDE * SIDE
    if not len(data) or len(data) % size:
        raise LayoutError(
            f"{file} has {len(data):,} bytes, which is no whole number of records of {size:,} bytes. It is "
            "cut short or another file; download it again."
        )
    records = data.reshape(-1, size)
    labels = records[:, 0 if coarse else heads - 1].astype(np.int64)
    if labels.max() >= classes:
        raise LayoutError(f"{file}: a record has the label {labels.max()}; 0 to {classes - 1} are due.")
    return records[:, heads:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1), labels


def _read_pack(file: Path) -> Pictures:
    """A pack of JPEG files: jpeg uint8, all bytes one after another; offsets int64 (n + 1); labels uint8."""
    try:
        with file.open("rb") as stream:
            pack = np.load(stream, allow_pickle=False)
            if not isinstance(pack, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array, no pack of them")
            missing = sorted(_PACK_KEYS - set(pack.files))
            if missing:
                raise LayoutError(
                    f"{file} holds no array {missing[0]}; {some(sorted(_PACK_KEYS))} are needed."
                )
            data, offsets, labels = pack["jpeg"].tobytes(), pack["offsets"], pack["labels"].astype(np.int64)
            images = [_decoded(data[a:b]) for a, b in itertools.pairwise(offsets)]
            stacked = np.stack(images)
    except DAMAGED as error:
        raise LayoutError(f"{file} is damaged or another file ({error}). Fetch it again.") from error
    if stacked.shape != (len(labels), SIDE, SIDE, 3) or labels.max() >= len(CLASSES):
        raise LayoutError(f"{file} holds pictures {stacked.shape} and {len(labels)} labels that do not fit.")
    return Pictures(stacked, labels)


def _decoded(data: bytes) -> NDArray[Any]:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        if image.size != (SIDE, SIDE):
            raise ValueError(f"a picture has {image.size[0]} x {image.size[1]} pixels")
        return np.asarray(image.convert("RGB"))
