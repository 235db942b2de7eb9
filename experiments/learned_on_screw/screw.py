"""Detectors that are trained on features, on MVTec AD screw by the default representation: figures along the
training, the last step counts.

    python experiments/learned_on_screw/screw.py --data-root FOLDER [--detectors uniad cflow glass]
    [--seeds 0 1 2] [--set uniad.learning_rate=1e-3 ...] [--every N] [--image-size 256] [--report]

The official split: 320 good images to learn from, 41 good and 119 flawed ones to test on. Every parameter is
the detector's default unless --set gives another value, which the page then says. Each run is a folder in
--out; it holds the training with its checkpoints, and run.json once it is finished. Started again, the script
goes on where it stopped; processes may share an --out if they are given different detectors or seeds. The
figures of the test images are written down every --every steps and never decide over anything: the best of
them is an oracle's. Tables and curves go to --docs at the end; --report writes them from the runs that are
finished."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DETECTORS = ("uniad", "cflow", "glass")
TESTS = 10
"""Along a training, where --every is not given."""


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The options; paths made absolute."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    root = os.environ.get("KIZU_DATA")
    add("--data-root", type=Path, default=root, help="folder of mvtec-screw (default: KIZU_DATA)")
    add("--out", type=Path, default=ROOT / "runs" / "learned_on_screw")
    add("--docs", type=Path, default=ROOT / "docs" / "results" / "learned_on_screw")
    add("--detectors", nargs="+", default=list(DETECTORS))
    add("--seeds", nargs="+", type=int, default=[0])
    add("--representation", help="default: the embedded one, at each detector's levels")
    add("--set", nargs="+", default=[], metavar="DETECTOR.PARAMETER=VALUE", help="value as in JSON")
    add("--batch-size", type=int, default=16)
    add("--image-size", type=int, default=256)
    add("--every", type=int, help=f"steps between two tests (default: {TESTS} tests in all)")
    add("--report", action="store_true")
    options = parser.parse_args(arguments)
    options.out, options.docs = options.out.resolve(), options.docs.resolve()
    options.data_root = Path(options.data_root).resolve() if options.data_root else None
    return options


def split(options: argparse.Namespace) -> Any:
    """The official split of the category. Ends the program where the data are not at hand."""
    import kizu
    from kizu.protocols.one_class import one_class

    root = None if options.data_root is None else options.data_root / "mvtec-screw"
    if root is None or not root.is_dir():
        sys.exit(f"There is no mvtec-screw in {options.data_root or '--data-root (not given)'}.")
    return one_class(kizu.dataset("mvtec", root).where(category="screw"), seed=0)


def run_all(options: argparse.Namespace) -> None:
    """Every run that is not finished yet, seed by seed."""
    from kizu import registry

    known, parts = registry.names("detectors"), split(options)
    for name in options.detectors:
        if name not in known:
            say(f"{name} is left out: this kizu has no detector of that name")
    for seed in options.seeds:
        for name in (name for name in options.detectors if name in known):
            record = run(name, seed, parts, options)
            last = 100 * record["tests"][-1]["image_auroc"]
            say(f"{name} seed {seed}: image AUROC {last:.1f} in the end, {record['minutes']:.0f} minutes")


def run(name: str, seed: int, parts: Any, options: argparse.Namespace) -> dict[str, Any]:
    """One training, from its beginning or its checkpoint; a finished one is read."""
    from kizu.outputs import write_json
    from kizu.training import FitOptions

    folder = options.out / f"{name}_{seed}"
    model, wanted = settings(name, seed, parts, options)
    if (folder / "run.json").exists():
        return same(json.loads((folder / "run.json").read_text("utf-8")), wanted, folder)
    training, seconds = folder / "training", folder / "seconds.txt"
    before = float(seconds.read_text("utf-8")) if seconds.exists() else 0.0
    measure = Measured(name, parts.test, model, seconds, before)
    model.fit(
        parts.train,
        options=FitOptions(
            folder=training,
            resume=(training / "checkpoint.kizu").exists(),
            checkpoint_every=wanted["every"],
            evaluate=measure,
            evaluate_every=wanted["every"],
            progress=quiet,
        ),
    )
    tests = [row for row in model.log_ if "image_auroc" in row]
    keep = ("step", "loss", "image_auroc", "pixel_auroc", "aupro_0.3")
    record = {
        **wanted,
        "precision": model.trained_in_.facts(),
        "minutes": measure.seconds() / 60,
        "tests": [{key: row[key] for key in keep if key in row} for row in tests],
    }
    write_json(folder / "run.json", record)
    (training / "checkpoint.kizu").unlink(missing_ok=True)
    return record


def settings(name: str, seed: int, parts: Any, options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The detector, and all that decides over the outcome of its run."""
    import kizu

    size = {"image_size": options.image_size, "batch_size": options.batch_size}
    chosen = given(name, options)
    model = kizu.detector(name, options.representation, seed=seed, **size, **chosen)
    every = options.every or max(model.iterations // TESTS, 1)
    plain = {
        key: list(value) if isinstance(value, tuple) else value for key, value in model.parameters.items()
    }
    representation = model.representation.card["name"]
    facts = {"detector": name, "seed": seed, "representation": representation, "parameters": plain}
    images = {"train": len(parts.train), "test": len(parts.test)}
    return model, {**facts, "every": every, "images": images, "given": chosen}


def given(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What --set says of this detector. Ends the program for words of another form."""
    chosen = {}
    for word in options.set:
        place, _, value = word.partition("=")
        detector, _, parameter = place.partition(".")
        try:
            chosen |= {parameter: json.loads(value)} if detector == name else {}
        except ValueError:
            sys.exit(f"--set takes DETECTOR.PARAMETER=VALUE with a value as in JSON, got {word!r}.")
    return chosen


def same(record: dict[str, Any], wanted: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The record, if it is that of this run; else the program ends."""
    different = [key for key, value in wanted.items() if record.get(key) != value]
    if different:
        sys.exit(f"{folder} holds another run: {', '.join(different)} differ. Take another --out.")
    return record


class Measured:
    """Test figures of a model in training, said and kept. How long the training took without them is written
    to a file at each test, for a run that is resumed. before: seconds of the parts before this one."""

    def __init__(self, name: str, test: Any, model: Any, file: Path, before: float) -> None:
        from kizu.evaluation.diagnosis import Evaluator

        self.name, self.file, self.before = name, file, before
        self.evaluator, self.since = Evaluator(test, model), time.perf_counter()

    def __call__(self, step: int, fitted: Any) -> dict[str, float]:
        """Those of image_auroc, pixel_auroc and aupro_0.3."""
        self.file.write_text(f"{self.seconds():.1f}", "utf-8")
        started = time.perf_counter()
        figures = self.evaluator(step, fitted)
        self.since += time.perf_counter() - started
        said = ", ".join(f"{key} {100 * value:.1f}" for key, value in figures.items())
        say(f"{self.name}, step {step}: {said}")
        return figures

    def seconds(self) -> float:
        """Of the training so far."""
        return self.before + time.perf_counter() - self.since


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
        from screw_tables import write

        say(write(options))
    except KizuError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
