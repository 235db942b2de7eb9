"""CIFAR-10-C and CIFAR-100-C as few-shot contrastive fine-tuning uses them: clean pictures of a class are
good, the corrupted ones of the same class are anomalous."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kizu import checks
from kizu.datasets import _cifar
from kizu.datasets._copies import DAMAGED, folder_of_copies, made_once, source_facts, write_pixels
from kizu.datasets._corruptions import CORRUPTIONS, LEVEL, corrupted
from kizu.datasets._layout import chosen, folders_in, root_of, to_samples
from kizu.datasets._masks import Row
from kizu.errors import EmptyData, LayoutError, UnknownName, UsageError, some
from kizu.samples import Samples, Wanted

CITATION = (
    "D. Hendrycks, T. Dietterich: Benchmarking Neural Network Robustness to Common Corruptions and "
    "Perturbations, ICLR 2019; pictures: " + _cifar.CITATION
)
LICENCE = "CC BY 4.0 (corrupted arrays); none stated for the pictures (research use, with citation)"
NINE = tuple(CORRUPTIONS)
"""The paper takes nine corruptions and does not say which; it speaks of noise, blur and fog, and its negative
pairs blur and change brightness and contrast. These are all three noises and all four blurs of the benchmark,
fog, and contrast. Left out: snow, frost and brightness, and what geometry and coding do (elastic transform,
pixelate, JPEG)."""
OTHERS = (
    *("snow", "frost", "brightness", "elastic_transform", "pixelate", "jpeg_compression"),
    *("speckle_noise", "gaussian_blur", "spatter", "saturate"),
)
"""Further files of the archives; the last four are its extra ones."""
LEVELS = 5
_FOLDERS = {"cifar10": "CIFAR-10-C", "cifar100": "CIFAR-100-C"}
Source = Literal["official", "generated"]


class Task(NamedTuple):
    """What is asked. clean: "cifar10" or "cifar100"; coarse: classes are the superclasses of CIFAR-100."""

    clean: str
    corruptions: tuple[str, ...]
    level: int
    source: str
    seed: int
    coarse: bool = False


def task(
    clean: str, corruptions: Wanted, level: int, source: str, seed: int, *, coarse: bool = False
) -> Task:
    """The checked task. Raises UnknownName, UsageError."""
    if source not in ("official", "generated"):
        raise UnknownName("source of corrupted pictures", str(source), ("official", "generated"))
    checks.whole_numbers(level=level)
    checks.whole_numbers(least=0, seed=seed)
    if source == "official":
        checks.without_effect("on official pictures, which are drawn already", seed=(seed, 0))
        if level > LEVELS:
            raise UsageError(f"level is 1 (weak) to {LEVELS} (strong), got {level}.")
    elif level != LEVEL:
        raise UsageError(f"Pictures are generated at level {LEVEL} only, got level={level}. Leave it away.")
    known = NINE if source == "generated" else (*NINE, *OTHERS)
    names = NINE if corruptions is None else chosen(corruptions, known, "corruption")
    if not names:
        raise UsageError("corruptions is empty; name one at least, or leave it away.")
    return Task(clean, tuple(names), level, source, seed, coarse)


def samples_of(
    path: Path | str, dataset: str, asked: Task, category: Wanted, split: Wanted, copies: Path | str | None
) -> Samples:
    """Rows of each wanted class: clean training pictures (train), clean test pictures and, for each
    corruption, the same test pictures corrupted (test). `group` is the test picture."""
    root = root_of(path, dataset)
    names = _cifar.class_names(root, asked.clean, coarse=asked.coarse)
    labels = [names.index(name) for name in chosen(category, names, "category")]
    place = folder_of_copies(root, copies) / f"{dataset}{'_coarse' if asked.coarse else ''}"
    write = functools.partial(_cifar.clean_copies, place, root, asked.clean, coarse=asked.coarse)
    train, test = (write(side, labels) for side in ("train", "test"))
    rows = []
    for label in labels:
        name = names[label]
        if not train[label] or not test[label]:
            raise EmptyData(f"{root} holds no {'test' if train[label] else 'training'} picture of {name}.")
        rows += [Row(image, name, "good", 0, "train") for image in train[label]]
        rows += [_test_row(image, name, "good") for image in test[label]]
    for corruption in asked.corruptions:
        for label, images in _corrupted_copies(place, root, asked, corruption, labels, names).items():
            rows += [_test_row(image, names[label], corruption) for image in images]
    order = {names[label]: number for number, label in enumerate(labels)}
    rows.sort(key=lambda row: order[row.category])  # stable: within a class the order is kept
    return to_samples(rows, dataset).where(split=split)


def _test_row(image: Path, category: str, defect: str) -> Row:
    return Row(image, category, defect, int(defect != "good"), "test", group=f"test {image.stem}")


def _corrupted_copies(
    place: Path, root: Path, asked: Task, corruption: str, labels: list[int], names: tuple[str, ...]
) -> dict[int, list[Path]]:
    """Label -> its corrupted test pictures, named by the number of the clean one."""
    files = _cifar.files_of(root, asked.clean, "test")
    if asked.source == "official":
        files = (*files, *_official_files(root, asked.clean, corruption, lossy=files[0].suffix == ".npz"))
    load = functools.cache(lambda: _load(root, asked, corruption))
    facts = {**asked._asdict(), "corruptions": corruption, "source_files": source_facts(files)}
    kind = f"level{asked.level}" if asked.source == "official" else f"generated_seed{asked.seed}"
    made = {}
    for label in labels:

        def write(folder: Path, label: int = label) -> None:
            clean, pictures = load()
            rows = np.flatnonzero(clean.labels == label)
            images = pictures[rows] if pictures is not None else _generate(asked, corruption, clean, rows)
            write_pixels(folder / "images", [f"{row:05d}" for row in rows], images)

        folder = place / f"{corruption}_{kind}" / names[label]
        made[label] = made_once(folder, {**facts, "label": names[label]}, write)
    return made


def _generate(
    asked: Task, corruption: str, clean: _cifar.Pictures, rows: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Corrupted pictures of one class. Their draws depend on seed, corruption and class alone."""
    label = int(clean.labels[rows[0]]) if len(rows) else 0
    generator = np.random.default_rng([asked.seed, NINE.index(corruption), label])
    return corrupted(corruption, clean.images[rows], generator)


def _load(root: Path, asked: Task, corruption: str) -> tuple[_cifar.Pictures, NDArray[np.uint8] | None]:
    """The clean test pictures, and the official corrupted ones of the level in the same order."""
    clean = _cifar.pictures_of(root, asked.clean, "test", coarse=asked.coarse)
    if asked.source != "official":
        return clean, None
    pixels, labels = _official_files(root, asked.clean, corruption)
    every = _array(pixels, (_cifar.SIDE, _cifar.SIDE, 3))
    known = _array(labels, ())
    fine = clean.labels if not asked.coarse else _cifar.pictures_of(root, asked.clean, "test").labels
    if len(every) != LEVELS * len(fine) or not np.array_equal(known, np.tile(fine, LEVELS)):
        raise LayoutError(
            f"{pixels.parent} and the clean test pictures in {root} do not belong together: {len(every)} "
            f"corrupted pictures are {LEVELS} times the {len(fine)} clean ones, with the labels in the same "
            "order, or one of the two is another version. Download both again."
        )
    return clean, every[(asked.level - 1) * len(fine) : asked.level * len(fine)]


def _official_files(root: Path, clean: str, corruption: str, *, lossy: bool = False) -> tuple[Path, Path]:
    """(pixels, labels) of the published arrays. Raises LayoutError."""
    place = next((p for p in (root / _FOLDERS[clean], root) if (p / "labels.npy").is_file()), None)
    if place is None:
        there = some([sub.name for sub in folders_in(root)]) or "none"
        raise LayoutError(
            f"{root} holds no {_FOLDERS[clean]}/labels.npy, from the published archive "
            f"{_FOLDERS[clean]}.tar; its folders: {there}. Without it, nine corruptions of the "
            "clean pictures can be made here: source='generated' (experiments: "
            'filters = { source = "generated" }).'
        )
    if lossy:
        raise LayoutError(
            f"{root} holds the clean pictures as JPEG and {place.name} without it: a detector would see the "
            "traces of JPEG, not the corruptions. Download the binary version of the clean pictures, or say "
            "source='generated'."
        )
    pixels = place / f"{corruption}.npy"
    if not pixels.is_file():
        have = some([file.stem for file in sorted(place.glob("*.npy")) if file.stem != "labels"], 20)
        raise LayoutError(f"{pixels} is not there; of the corruptions there are: {have or 'none'}.")
    return pixels, place / "labels.npy"


def _array(file: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """An array (n, *shape) of whole numbers, left on disk. Raises LayoutError; no Python object is read."""
    try:
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    except DAMAGED as error:
        raise LayoutError(
            f"{file} is damaged or no array of numbers ({error}). Download it again."
        ) from error
    if not isinstance(values, np.ndarray) or values.shape[1:] != shape or values.ndim != 1 + len(shape):
        raise LayoutError(
            f"{file} holds no array of shape (n, {', '.join(map(str, shape))}). Download it again."
        )
    if values.dtype != np.uint8 and (shape or not np.issubdtype(values.dtype, np.integer)):
        raise LayoutError(f"{file} holds numbers of the type {values.dtype}; uint8 is due.")
    return values
