"""Deep SVDD at its published setting: one class of CIFAR-10 is good, the nine others are anomalous.

    python experiments/cifar10_one_class/deep_svdd.py [--data-root FOLDER] [--classes airplane truck]
    [--seeds 0 1 2] [--variant one_class] [--pretraining-epochs 350] [--epochs 150] [--threads 1]

LeNet without biases, embedding of 128, contrast normalisation, batches of 200, Adam 1e-4; the auto-encoder
for 350 epochs, then the sphere for 150. FOLDER, or KIZU_DATA, holds cifar10/cifar10_train.npz and
cifar10_test.npz: JPEG files of the images, whose compression the published figures do not have. A run is a
folder in --out with its log and checkpoint. Started again, the script goes on where it stopped, and skips
the runs that stand in results.csv; a line every --every seconds says how far it is.

Published: Ruff et al., ICML 2018, table 1, Deep SVDD one-class, mean AUROC over 10 seeds."""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = {
    "airplane": 61.7, "automobile": 65.9, "bird": 50.8, "cat": 59.1, "deer": 60.9, "dog": 65.7, "frog": 67.7,
    "horse": 67.3, "ship": 75.9, "truck": 73.1,
}  # fmt: skip
COLUMNS = (
    "class", "variant", "seed", "pretraining_epochs", "epochs", "batch_size", "images", "auroc", "published",
    "seconds_per_epoch",
)  # fmt: skip
KEY = ("class", "variant", "seed", "pretraining_epochs", "epochs", "batch_size", "images")


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data-root", type=Path, default=os.environ.get("KIZU_DATA"), help="folder of cifar10/")
    add("--out", type=Path, default=ROOT / "runs" / "cifar10_deep_svdd")
    add("--classes", nargs="+", default=list(PUBLISHED), choices=list(PUBLISHED))
    add("--seeds", nargs="+", type=int, default=[0])
    add("--variant", default="one_class", choices=["one_class", "soft_boundary"])
    add("--pretraining-epochs", type=int, default=350)
    add("--epochs", type=int, default=150)
    add("--batch-size", type=int, default=200)
    add("--images", type=int, help="good images of a class to learn from; default: all 5,000")
    add("--threads", type=int, default=1)
    add("--every", type=float, default=30.0, help="seconds between two lines of progress")
    options = parser.parse_args(arguments)
    if options.data_root is None:
        parser.error("--data-root, or KIZU_DATA, is the folder that holds cifar10/")
    return options


def read(path: Path, wanted: str | None = None, most: int | None = None) -> tuple[Any, list[str]]:
    """Images (n, 3, 32, 32) float32 in [0, 1] of one class or of all, and the name of each one's class."""
    import numpy as np
    import torch
    from PIL import Image

    held = np.load(path)
    names = [str(name) for name in held["class_names"]]
    labels, offsets, files = held["labels"], held["offsets"], held["jpeg"].tobytes()
    rows = [row for row in range(len(labels)) if wanted in (None, names[labels[row]])][:most]
    pictures = [Image.open(io.BytesIO(files[offsets[row] : offsets[row + 1]])) for row in rows]
    values = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    return values.permute(0, 3, 1, 2).float().div_(255.0), [names[labels[row]] for row in rows]


def detector(options: argparse.Namespace, images: int, seed: int) -> Any:
    """The published setting; epochs are steps of a batch each."""
    import kizu
    from kizu.representations.small import Small

    steps = -(-images // options.batch_size)
    return kizu.detector(
        "deep_svdd",
        Small("lenet", seed=seed),
        variant=options.variant,
        embedding=128,
        contrast=True,
        batch_norm="train",
        pretraining=options.pretraining_epochs * steps,
        iterations=(options.pretraining_epochs + options.epochs) * steps,
        learning_rate=1e-4,
        weight_decay=5e-7,
        image_size=32,
        batch_size=options.batch_size,
        seed=seed,
        precision="fp32",
        training_precision="fp32",
    )


def progress(name: str, every: float) -> Callable[[int, str], None]:
    """Prints steps, and the time left at the pace since the first of this start."""
    begun: list[tuple[float, int]] = []
    said = [time.perf_counter()]

    def show(_: int, what: str) -> None:
        words = what.split()
        if words[:2] != ["training,", "step"]:
            return
        step, steps, now = int(words[2]), int(words[4]), time.perf_counter()
        begun.append((now, step)) if not begun else None
        if now - said[0] >= every and step > begun[0][1]:
            said[0] = now
            left = (steps - step) * (now - begun[0][0]) / (step - begun[0][1])
            say(f"{name}: step {step:,} of {steps:,}, about {left / 60:.0f} min left")

    return show


def run(name: str, seed: int, options: argparse.Namespace, test: tuple[Any, list[str]]) -> dict[str, Any]:
    """Train on one class, test on all; a row of results.csv."""
    import kizu
    from kizu.metrics import auroc
    from kizu.training.checkpoint import has_checkpoint

    good, _ = read(options.data_root / "cifar10" / "cifar10_train.npz", name, options.images)
    folder = options.out / "_".join(str(value) for value in key_of(name, seed, options, len(good)).values())
    fit = kizu.FitOptions(
        progress=progress(f"{name} seed {seed}", options.every),
        folder=folder,
        resume=has_checkpoint(folder),
        checkpoint_every=250,
    )
    begun = time.perf_counter()
    fitted = detector(options, len(good), seed).fit(good, options=fit)
    pace = [row["images_per_s"] for row in fitted.log_]
    images, names = test
    found = auroc(fitted.predict(images).score, [int(other != name) for other in names])
    say(f"{name} seed {seed}: AUROC {100 * found:.1f}, {time.perf_counter() - begun:.0f} s since this start")
    published = PUBLISHED[name] if options.variant == "one_class" else ""
    return {
        **key_of(name, seed, options, len(good)),
        "auroc": round(100 * found, 2),
        "published": published,
        "seconds_per_epoch": round(len(good) * sum(1 / rate for rate in pace) / len(pace), 2),
    }


def key_of(name: str, seed: int, options: argparse.Namespace, images: int) -> dict[str, Any]:
    """What tells one run from the others."""
    values = (
        name,
        options.variant,
        seed,
        options.pretraining_epochs,
        options.epochs,
        options.batch_size,
        images,
    )
    return dict(zip(KEY, values, strict=True))


def rows_of(path: Path) -> list[dict[str, str]]:
    """Those of results.csv."""
    return list(csv.DictReader(path.read_text("utf-8").splitlines())) if path.exists() else []


def run_all(options: argparse.Namespace) -> None:
    """Every run that is not in results.csv yet."""
    import torch

    torch.set_num_threads(options.threads)
    test = read(options.data_root / "cifar10" / "cifar10_test.npz")
    results = options.out / "results.csv"
    for seed in options.seeds:
        for name in options.classes:
            wanted = {
                key: str(value) for key, value in key_of(name, seed, options, options.images or 5000).items()
            }
            if any({key: row[key] for key in KEY} == wanted for row in rows_of(results)):
                continue
            row = run(name, seed, options, test)
            fresh = not results.exists()
            with results.open("a", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                if fresh:
                    writer.writeheader()
                writer.writerow(row)
    for row in rows_of(results):
        published = row["published"] or "not known"
        say(f"{row['class']:>10} seed {row['seed']}: {row['auroc']}, published {published}")


def say(text: str) -> None:
    """A line with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Run what is left, show what there is."""
    from kizu.errors import KizuError

    try:
        run_all(parsed(arguments))
    except KizuError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
