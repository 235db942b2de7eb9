"""Does SPD help? Tables 2 and 5 of the paper in small: the same budget with and without SPD, tested under
PaDiM and PatchCore.

    python experiments/spd_study/study.py [--data procedural] [--steps 150] [--workers 2] [--data-root FOLDER]
    [--ablation]

For simsiam, moco, simclr and supervised, without and with SPD, and for each seed: one pretraining on the same
images for the same number of steps, then the cells of planted.toml, ksdd.toml and magnetic_tile.toml with its
representation (the last two where --data-root, or KIZU_DATA, holds the images). --ablation trains the rows of
Table 5 instead: SimSiam with eta 0.5 and 1, CutPaste, cross-entropy, and the literal SmoothBlend formula.

Everything is kept in --out, one folder for each run. Started again, the study goes on where it stopped, a
training at its last checkpoint. A folder holds one budget; another budget needs another folder. Tables,
plots and curves go to --docs at the end. --init continues a trained network, as the paper does, instead of
beginning from random weights; the rows without further training are then that network's own. --report
writes tables from the finished runs and trains nothing; --estimate times a few steps and prints how long
the study will take."""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from study_jobs import (
    HERE,
    OBJECTIVES,
    UNTRAINED,
    Job,
    jobs,
    objective_parameters,
    plans,
    planted_filters,
    run,
    say,
    tested_seconds,
    train,
)

ROOT = HERE.parents[1]


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """All that a folder's runs have in common."""
    names = (
        "init",
        "backbone",
        "stages",
        "size",
        "source_size",
        "batch_size",
        "steps",
        "image_size",
        "queue",
        "momentum",
        "set",
    )
    return {
        **{name: getattr(options, name) for name in names},
        "data": options.data,
        "planted": planted_filters(options),
    }


def claim(options: argparse.Namespace) -> None:
    """Reserve the folder for this budget. Raises UsageError when it holds another."""
    from kizu import store
    from kizu.errors import UsageError

    path, wanted = options.out / "settings.json", settings(options)
    if not path.exists():
        options.out.mkdir(parents=True, exist_ok=True)
        store.write_json(path, wanted)
    stored = json.loads(path.read_text("utf-8"))
    differing = [
        f"{name} {stored.get(name)!r} instead of {value!r}"
        for name, value in wanted.items()
        if stored.get(name) != value
    ]
    if differing:
        raise UsageError(
            f"{options.out} holds a study of another budget: {'; '.join(differing)}. Give another --out."
        )


def draw(options: argparse.Namespace) -> None:
    """Draw the planted images once, before several processes read them."""
    import kizu

    for name, plan, root in plans(options):
        if name == "planted":
            kizu.dataset("planted", root / "planted", **plan.parts["dataset"][0]["filters"])


def estimate(options: argparse.Namespace) -> None:
    """Time a few steps with and without SPD and one test on this machine now; print how long the study
    would take."""
    from kizu.evaluation.experiment import run_experiment

    with tempfile.TemporaryDirectory() as scratch:
        seconds = {}
        for spd in (False, True):
            job = Job("simsiam", spd, 0, parameters=objective_parameters("simsiam", options))
            train(
                job,
                Path(scratch) / job.name / "representation",
                argparse.Namespace(**{**vars(options), "steps": 8}),
            )
            rows = (Path(scratch) / job.name / "representation" / "log.jsonl").read_text("utf-8").splitlines()
            rates = [json.loads(line)["images_per_s"] for line in rows[2:]]
            seconds[spd] = options.steps * options.batch_size * len(rates) / sum(rates)
        elsewhere = argparse.Namespace(**{**vars(options), "out": Path(scratch)})
        for name, plan, root in plans(elsewhere):
            run_experiment(plan, Path(scratch) / "tests" / name, root, lambda text: None)
        test = tested_seconds(Path(scratch) / "tests")
    todo = [job for job in jobs(options) if not (options.out / job.name / "done.json").exists()]
    total = sum((0.0 if job.objective == UNTRAINED else seconds[job.spd]) + test for job in todo)
    say(
        f"{len(todo)} runs to do; a training takes about {seconds[False]:.0f} s without SPD, "
        f"{seconds[True]:.0f} s with it (SimSiam), its tests {test:.0f} s: {total / 3600:.1f} h one after "
        f"the other, about {total / 3600 / options.workers:.1f} h with {options.workers} workers if each has "
        "a core to itself"
    )


def left(options: argparse.Namespace) -> str:
    """How far the study is, and how long the rest takes if it goes on as before."""
    done, todo = [], []
    for job in jobs(options):
        path = options.out / job.name / "done.json"
        if path.exists():
            done.append(json.loads(path.read_text("utf-8")))
        else:
            todo.append(job)
    summary = f"{len(done)} of {len(done) + len(todo)} runs done"
    trained = [row for row in done if row["objective"] != UNTRAINED]
    if not trained or not todo:
        return summary
    test = sum(row["test_seconds"] for row in done) / len(done)

    def expected(job: Job) -> float:
        alike = [row for row in trained if row["spd"] == job.spd] or trained
        return test + sum(row["pretrain_seconds"] for row in alike) / len(alike)

    return f"{summary}, about {sum(map(expected, todo)) / 3600 / options.workers:.1f} h left"


def work(options: argparse.Namespace) -> None:
    """All jobs, in this process or in `workers` of them with one thread each."""
    todo = [job for job in jobs(options) if not (options.out / job.name / "done.json").exists()]
    if options.workers == 1:
        for job in todo:
            run(job, options)
            say(left(options))
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    for job in [*todo, *[None] * options.workers]:
        queue.put(job)
    team = [context.Process(target=serve, args=(queue, options)) for _ in range(options.workers)]
    with ended(team):
        for process in team:
            process.start()
        printed = left(options)
        while any(process.is_alive() for process in team):
            time.sleep(2)
            if left(options) != printed:
                printed = left(options)
                say(printed)
    if any(process.exitcode for process in team):
        raise SystemExit("A worker failed; what is done is kept: start the study again to go on.")


def serve(queue: Any, options: argparse.Namespace) -> None:
    """A worker: run jobs from the queue until it is empty."""
    import torch

    torch.set_num_threads(1)
    for job in iter(queue.get, None):
        run(job, options)


@contextlib.contextmanager
def ended(team: list[Any]) -> Iterator[None]:
    """Pass SIGTERM and Ctrl-C on to the workers, which save their trainings, and wait for all of them."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        for process in team:
            if process.is_alive():
                process.terminate()
        for process in team:
            if process.pid is not None:
                process.join()


def report(options: argparse.Namespace) -> None:
    """Tables and figures of what there is."""
    from study_tables import write

    say(f"{left(options)}. {write(options.out, options.docs)}")


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The options; paths made absolute."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--data",
        nargs="+",
        default=["procedural"],
        help="folders of images, or 'procedural', for every pretraining",
    )
    add("--data-root", type=Path, default=os.environ.get("KIZU_DATA"), help="folder of the real test sets")
    add("--out", type=Path, default=ROOT / "runs" / "spd_study", help="what is kept: trainings, cells")
    add("--docs", type=Path, default=ROOT / "docs" / "results" / "spd_study", help="tables and figures")
    add("--objectives", nargs="+", default=list(OBJECTIVES), choices=OBJECTIVES)
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add(
        "--tests",
        nargs="+",
        choices=sorted(path.stem for path in HERE.glob("*.toml")),
        help="these test sets only",
    )
    add("--init", help="a representation whose training is continued, as imagenet/efficientnet_lite0")
    add("--backbone", help="default: that of --init, else resnet18")
    add("--stages", type=int, default=3, help="stages that are trained; the detectors read 1 to 3")
    add("--size", type=int, default=64, help="side of the views")
    add("--source-size", type=int, default=64, help="side of the images that they are cut from")
    add("--batch-size", type=int, default=64)
    add("--steps", type=int, default=150)
    add("--queue", type=int, default=1024, help="keys of MoCo's queue")
    add(
        "--momentum",
        type=float,
        default=0.99,
        help="of MoCo's key encoder; 0.999 hardly moves in a short run",
    )
    add(
        "--set",
        action="append",
        help="a parameter of one objective, as simsiam.learning_rate=0.1; may be repeated",
    )
    add("--image-size", type=int, default=224, help="side of the test images; KolektorSDD keeps its shape")
    add("--products", nargs="+", help="of the planted images")
    add("--planted-train", type=int, help="good images of a product to learn from")
    add("--planted-test", type=int, help="good ones to test on; flawed ones are twice as many")
    add("--ablation", action="store_true", help="the rows of Table 5")
    add("--workers", type=int, default=1, help="processes of one thread each")
    add("--report", action="store_true")
    add("--estimate", action="store_true")
    options = parser.parse_args(arguments)
    options.out, options.docs = options.out.resolve(), options.docs.resolve()
    options.data_root = Path(options.data_root).resolve() if options.data_root else None
    options.backbone = options.backbone or backbone_of(options.init)
    options.data = [
        str(Path(source).resolve()) if Path(source).is_dir() else source for source in options.data
    ]
    return options


def backbone_of(init: str | None) -> str:
    """timm's name of the network of a representation."""
    if init is None:
        return "resnet18"
    from kizu.representations.sources import open_representation

    return str(open_representation(init).card["architecture"])


def main(arguments: list[str] | None = None) -> None:
    """Run, estimate or report."""
    from kizu.errors import KizuError

    options = parsed(arguments)
    try:
        if options.estimate:
            estimate(options)
        elif options.report:
            report(options)
        else:
            claim(options)
            draw(options)
            work(options)
            report(options)
    except KizuError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
