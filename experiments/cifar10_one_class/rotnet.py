"""One class of CIFAR-10 against the other nine: RotNet on WRN-10-4, as Golan and El-Yaniv have it.

    python experiments/cifar10_one_class/rotnet.py --data ../shared/data/cifar10 --classes automobile horse

A class is learned from its 5,000 training images and tested on all 10,000 test images, its own being good.
Started again, a training goes on from its checkpoint, and a run whose row is in results.csv is left out. A
row: class, transforms, score, seed, steps, batch, AUROC, the published one, seconds of training and scoring.

The whole of the paper's run is --transforms geometric --score dirichlet --iterations 8438: 3 passes over 72 x
5,000 pairs of image and transformation in batches of 128, here 32 images in 4 transformations each. The
default is shorter: the four turns, 2,000 steps, and the plain softmax score. One core of an AMD EPYC with
bf16 took 0.8 s a step (2.1 s in fp32), so half an hour a class and about 3 minutes for its test; the paper's
run is 2 hours and, with 72 looks at each test image, one more.

PUBLISHED: Golan and El-Yaniv, NeurIPS 2018, table 1, 72 transformations, the mean of five runs; their mean,
86.0, is that of later papers that cite it. The images at hand (shared/data/cifar10) are JPEGs of CIFAR-10, so
figures need not agree to the digit."""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = {
    "airplane": 74.7, "automobile": 95.7, "bird": 78.1, "cat": 72.4, "deer": 87.8,
    "dog": 87.8, "frog": 83.4, "horse": 95.5, "ship": 93.3, "truck": 91.3,
}  # fmt: skip
FIELDS = (
    *("class", "transforms", "score", "seed", "iterations", "batch_size", "train", "test"),
    *("auroc", "published", "fit_s", "score_s"),
)
KEY = FIELDS[:8]
"""What makes two rows the same run."""


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The options; paths made absolute."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    root = os.environ.get("KIZU_DATA")
    add("--data", type=Path, default=Path(root) / "cifar10" if root else None, help="folder of cifar10_*.npz")
    add("--out", type=Path, default=ROOT / "runs" / "cifar10_one_class")
    add("--classes", nargs="+", default=list(PUBLISHED), choices=list(PUBLISHED), metavar="CLASS")
    add("--representation", default="small/wrn_10_4")
    add("--transforms", default="rotations", choices=("rotations", "geometric"))
    add("--score", default="softmax", choices=("softmax", "dirichlet", "gaussian"))
    add("--iterations", type=int, default=2000, help="steps of --batch-size images in 4 transformations")
    add("--batch-size", type=int, default=32)
    add("--seed", type=int, default=0)
    add("--train", type=int, default=5000, help="training images, fewer to try it out")
    add("--test", type=int, default=1000, help="test images of each class, fewer to try it out")
    options = parser.parse_args(arguments)
    if options.data is None or not (options.data / "cifar10_train.npz").exists():
        parser.error(f"cifar10_train.npz is not in {options.data or '--data (not given)'}")
    options.out = options.out.resolve()
    return options


def read(folder: Path, part: str, numbers: Any) -> tuple[Any, Any]:
    """Images (n, 3, 32, 32) in [0, 1] and classes (n,) of a part, "train" or "test". numbers: classes (n,) ->
    the rows that are wanted."""
    import numpy as np
    import torch
    from PIL import Image

    with np.load(folder / f"cifar10_{part}.npz") as packed:
        data, offsets, classes = packed["jpeg"].tobytes(), packed["offsets"], packed["labels"]
    rows = numbers(classes)
    files = (io.BytesIO(data[offsets[row] : offsets[row + 1]]) for row in rows)
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255).contiguous()
    return images, torch.from_numpy(classes[rows].astype("int64"))


def first_of(kind: int | None, count: int) -> Any:
    """classes (n,) -> the first `count` rows of one class, or of each."""
    import numpy as np

    def chosen(classes: Any) -> Any:
        kinds = range(10) if kind is None else [kind]
        return np.concatenate([np.flatnonzero(classes == one)[:count] for one in kinds])

    return chosen


def run(name: str, test: tuple[Any, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Train on one class, score the test images, and return the row."""
    import kizu
    from kizu.metrics import auroc
    from kizu.types import Batch

    number = list(PUBLISHED).index(name)
    images, _ = read(options.data, "train", first_of(number, options.train))
    detector = kizu.detector(
        "rotnet",
        options.representation,
        transforms=options.transforms,
        score=options.score,
        iterations=options.iterations,
        batch_size=options.batch_size,
        image_size=32,
        seed=options.seed,
    )
    begun = time.perf_counter()
    detector.fit([Batch(part) for part in images.split(500)], options=fit_options(name, options))
    fitted = time.perf_counter()
    scores = [part.score for part in detector.predict_batches([Batch(part) for part in test[0].split(250)])]
    done = time.perf_counter()
    import torch

    value = auroc(torch.cat(scores).numpy(), (test[1] != number).long().numpy())
    return {
        **key_of(name, options),
        "auroc": f"{100 * value:.2f}",
        "published": PUBLISHED[name],
        "fit_s": round(fitted - begun),
        "score_s": round(done - fitted),
    }


def key_of(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What identifies a run."""
    return {"class": name, **{field: getattr(options, field) for field in KEY[1:]}}


def fit_options(name: str, options: argparse.Namespace) -> Any:
    """A folder for each run, gone on with where it holds a checkpoint; a line every minute."""
    from kizu import FitOptions
    from kizu.training.checkpoint import has_checkpoint

    folder = options.out / "_".join(str(value) for value in key_of(name, options).values())
    folder.mkdir(parents=True, exist_ok=True)
    last = [time.perf_counter()]

    def progress(_: int, what: str) -> None:
        if what.startswith("training") and time.perf_counter() - last[0] > 60:
            last[0] = time.perf_counter()
            say(f"{name}: {what}")

    return FitOptions(progress=progress, folder=folder, resume=has_checkpoint(folder), checkpoint_every=100)


def rows_of(table: Path) -> list[dict[str, str]]:
    """The rows that are there."""
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(table: Path, row: dict[str, Any]) -> None:
    """One row more, below the header."""
    new = not table.exists()
    with table.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def say(text: str) -> None:
    """A line with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """All classes that are not done yet."""
    from kizu.errors import KizuError

    options = parsed(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    table = options.out / "results.csv"
    test = read(options.data, "test", first_of(None, options.test))
    try:
        for name in options.classes:
            key = {field: str(value) for field, value in key_of(name, options).items()}
            if any(all(row[field] == key[field] for field in KEY) for row in rows_of(table)):
                say(f"{name} is in {table}")
                continue
            row = run(name, test, options)
            append(table, row)
            say(f"{name}: AUROC {row['auroc']}, published {row['published']}, {row['fit_s']} s")
    except KizuError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
