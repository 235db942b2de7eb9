"""Does the order of ReContrast's table 6 hold with another representation? Every variant of its ablation,
trained on real and planted products.

    python experiments/recontrast_ladder/ladder.py [--data-root FOLDER] [--iterations 48] [--seeds 0 1 2]
    [--report]

Variants A, B, B+hm, C, D, C+cp, E-gl, E and full, on MVTec AD screw, on magnetic tile (80 % of the groups of
good tiles for training) and on a planted product; the first two only where --data-root, or KIZU_DATA, holds
them. The split is fixed; the seeds are those of the training. A run is a folder in --out, written by
`kizu.evaluation.diagnosis.diagnose`. Started again, the script goes on where it stopped; several processes
may share an --out if they are given different seeds. Tables and curves go to --docs at the end; --report
writes them from the runs that are finished. The budget is small beside the paper's 2,000 iterations of 16
images, so the
learning rate of the encoder is scaled up: --encoder-rate."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DATASETS = ("planted", "screw", "magnetic_tile")
PLANTED = {"train": 60, "test_good": 30, "test_defective": 60}
LANDSCAPES = ("A", "B", "full")
"""Variants whose landscape is drawn, on the planted product and the first seed."""


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The options; paths made absolute."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--data-root",
        type=Path,
        default=os.environ.get("KIZU_DATA"),
        help="folder of mvtec-screw and magnetic-tile",
    )
    add("--out", type=Path, default=ROOT / "runs" / "recontrast_ladder")
    add("--docs", type=Path, default=ROOT / "docs" / "results" / "recontrast_ladder")
    add("--datasets", nargs="+", default=list(DATASETS), choices=DATASETS)
    add("--variants", nargs="+", help="these variants only")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--representation", help="default: the embedded one")
    add("--iterations", type=int, default=48)
    add("--batch-size", type=int, default=8)
    add("--image-size", type=int, default=128)
    add(
        "--encoder-rate",
        type=float,
        default=2e-4,
        help="the paper's 1e-5 for 2,000 iterations is 4e-4 for 48",
    )
    add("--every", type=int, default=16, help="iterations between two tests")
    add("--landscape", type=int, default=9, help="points a side")
    add("--report", action="store_true")
    options = parser.parse_args(arguments)
    options.out, options.docs = options.out.resolve(), options.docs.resolve()
    options.data_root = Path(options.data_root).resolve() if options.data_root else None
    return options


def samples(name: str, options: argparse.Namespace) -> Any:
    """The data set, or None when it is not at hand."""
    import kizu

    if name == "planted":
        place = options.out / "planted"
        return kizu.dataset("planted", place, products=["circuit"], size=options.image_size, **PLANTED)
    kind, folder = {"screw": ("mvtec", "mvtec-screw"), "magnetic_tile": ("magnetic_tile", "magnetic-tile")}[
        name
    ]
    root = None if options.data_root is None else options.data_root / folder
    if root is None or not root.is_dir():
        say(f"{name} is left out: {folder} is not in {options.data_root or '--data-root (not given)'}")
        return None
    return kizu.dataset(kind, root)


def detector(variant: str, seed: int, options: argparse.Namespace) -> Any:
    """A variant at this budget."""
    import kizu
    from kizu.evaluation.diagnosis import variant as parameters_of

    name, parameters = parameters_of(variant)
    size = {
        "iterations": options.iterations,
        "batch_size": options.batch_size,
        "image_size": options.image_size,
        "seed": seed,
    }
    more = {"encoder_learning_rate": options.encoder_rate} if name == "recontrast" else {}
    return kizu.detector(name, options.representation, **size, **more, **parameters)


def run_all(options: argparse.Namespace) -> None:
    """Every run that is not finished yet, seed by seed: stopped early, all variants have the same seeds."""
    from kizu.evaluation.diagnosis import diagnose, variants
    from kizu.protocols.one_class import one_class

    tables = {name: table for name in options.datasets if (table := samples(name, options)) is not None}
    splits = {name: one_class(table, seed=0) for name, table in tables.items()}
    for seed in options.seeds:
        for name, split in splits.items():
            for variant in options.variants or variants():
                side = options.landscape if name == "planted" and seed == 0 and variant in LANDSCAPES else 0
                folder, started = options.out / name / f"{variant}_{seed}", time.perf_counter()
                model = detector(variant, seed, options)
                record = diagnose(
                    variant, model, split, folder, every=options.every, landscape=side, progress=quiet
                )
                last, best = record["last"]["image_auroc"], record["best_oracle"]["image_auroc"]
                say(
                    f"{name} {variant} seed {seed}: image AUROC {last:.4f} last, {best:.4f} best, "
                    f"{time.perf_counter() - started:.0f} s"
                )


def quiet(done: int, what: str) -> None:
    """No bar."""


def say(text: str) -> None:
    """A line with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Run and report."""
    from kizu.errors import KizuError

    options = parsed(arguments)
    try:
        if not options.report:
            run_all(options)
        from ladder_tables import write

        say(write(options))
    except KizuError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
