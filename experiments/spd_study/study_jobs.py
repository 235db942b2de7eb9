"""The runs of the study: which there are, how one is trained and tested. Each has its own folder."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OBJECTIVES = ("simsiam", "moco", "simclr", "supervised")
VARIANTS: dict[str, dict[str, Any]] = {
    "eta_0.5": {"eta": 0.5},
    "eta_1": {"eta": 1.0},
    "cutpaste": {"perturbation": "cutpaste"},
    "cross_entropy": {"spd_loss": "cross_entropy"},
    "smooth_blend_paper": {"perturbation": "smooth_blend_paper"},
}
"""Rows of Table 5 on SimSiam, and the SmoothBlend of the printed formula beside ours; names as after
--set."""
UNTRAINED = "untrained"


@dataclass(frozen=True)
class Job:
    """One pretraining and its tests; `name` is its folder."""

    objective: str
    spd: bool
    seed: int
    variant: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """simsiam_0, simsiam_spd_0, simsiam_spd_cutpaste_0, untrained_0"""
        return "_".join(
            [
                self.objective,
                *(["spd"] if self.spd else []),
                *([self.variant] if self.variant else []),
                str(self.seed),
            ]
        )


def jobs(options: argparse.Namespace) -> list[Job]:
    """All runs, seed by seed: a study that is stopped early is a complete one of fewer seeds.

    The network without any training here comes first, for comparison: random weights, or those of --init."""
    runs = [Job(UNTRAINED, False, options.seeds[0])]
    for seed in options.seeds:
        for objective in ("simsiam",) if options.ablation else options.objectives:
            parameters = objective_parameters(objective, options)
            runs += [Job(objective, spd, seed, parameters=parameters) for spd in (False, True)]
            if options.ablation:
                runs += [
                    Job(objective, True, seed, name, {**parameters, **more})
                    for name, more in VARIANTS.items()
                ]
    return runs


def objective_parameters(objective: str, options: argparse.Namespace) -> dict[str, Any]:
    """What an objective needs at this size, then --set; SPD's parameters under their flat names."""
    small: dict[str, dict[str, Any]] = {
        "moco": {
            "queue": max(options.queue // options.batch_size, 1) * options.batch_size,
            "momentum": options.momentum,
        },
        "simclr": {"optimiser_name": "sgd"},
    }
    parameters = dict(small.get(objective, {}))
    for text in options.set or []:
        name, _, value = text.partition("=")
        owner, _, parameter = name.partition(".")
        if owner == objective:
            try:
                parameters[parameter] = json.loads(value)
            except ValueError:
                parameters[parameter] = value
    return parameters


def plans(options: argparse.Namespace) -> list[tuple[str, Any, Path]]:
    """(name, experiment, data root) of every test set that is at hand, at the size that was asked for."""
    from kizu.evaluation.plan import read_experiment

    present = []
    for path in sorted(HERE.glob("*.toml"), key=lambda path: path.stem != "planted"):
        entry = tomllib.loads(path.read_text("utf-8"))["dataset"][0]
        root = options.out if path.stem == "planted" else options.data_root
        if options.tests and path.stem not in options.tests:
            continue
        if path.stem != "planted" and (root is None or not (root / entry["path"]).is_dir()):
            print(f"{path.stem} is left out: {entry['path']} is not in {root or '--data-root (not given)'}")
            continue
        plan = read_experiment(path)
        for detector in plan.parts["detector"]:
            side = detector["parameters"]["image_size"]
            detector["parameters"]["image_size"] = (
                [scaled(s, options.image_size) for s in side]
                if isinstance(side, list)
                else options.image_size
            )
        if path.stem == "planted":
            plan.parts["dataset"][0]["filters"].update(planted_filters(options))
        present.append((path.stem, plan, root))
    return present


def scaled(side: int, image_size: int) -> int:
    """A side given for images of 224 pixels, at `image_size`, in multiples of 32."""
    return max(round(side * image_size / 224 / 32), 1) * 32


def planted_filters(options: argparse.Namespace) -> dict[str, Any]:
    """The options of the planted images."""
    given = {
        "products": options.products,
        "train": options.planted_train,
        "test_good": options.planted_test,
        "size": options.image_size,
    }
    given["test_defective"] = 2 * options.planted_test if options.planted_test else None
    return {name: value for name, value in given.items() if value is not None}


def run(job: Job, options: argparse.Namespace) -> None:
    """Train unless it is trained, test what is not tested yet; done.json, with the seconds, is written
    last."""
    from kizu import store
    from kizu.evaluation.experiment import run_experiment

    folder = options.out / job.name
    if (folder / "done.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if job.objective != UNTRAINED:
        train(job, folder / "representation", options)
    with contextlib.chdir(folder):  # the cells name the representation beside them, wherever the study lies
        for name, plan, root in plans(options):
            if job.objective != UNTRAINED or options.init:
                tested = options.init if job.objective == UNTRAINED else "representation"
                plan.parts["representation"][:] = [{"name": tested}]
            for protocol in plan.parts["protocol"]:
                protocol["seeds"] = [job.seed if protocol["name"] == "few_shot" else 0]
            run_experiment(plan, folder / name, root, lambda text, name=job.name: say(f"{name}: {text}"))
    facts = {
        **dataclasses.asdict(job),
        "pretrain_seconds": trained_seconds(folder),
        "test_seconds": tested_seconds(folder),
    }
    store.write_json(folder / "done.json", facts)
    say(
        f"{job.name}: done, {facts['pretrain_seconds']:.0f} s of training and {facts['test_seconds']:.0f} s "
        "of testing"
    )


def train(job: Job, folder: Path, options: argparse.Namespace) -> None:
    """Start a pretraining, or go on with it. Without SPD, its parameters are left out."""
    from kizu import store
    from kizu.pretraining import pretrain, resume
    from kizu.pretraining.spd import FLAT_NAMES, collect_spd

    if (folder / store.CARD).exists() and not (folder / "checkpoint.kizu").exists():
        return
    if (folder / "recipe.json").exists():
        resume(folder, show=False)
        return
    used = {name: value for name, value in job.parameters.items() if job.spd or name not in FLAT_NAMES}
    pretrain(
        job.objective, options.data, folder, steps=options.steps, source_size=options.source_size, show=False,
        init=options.init, checkpoint_every=max(options.steps // 5, 1), log_every=max(options.steps // 30, 1),
        backbone=options.backbone, stages=options.stages, size=options.size, batch_size=options.batch_size,
        seed=job.seed, **collect_spd({"spd": job.spd, **used}),
    )  # fmt: skip


def trained_seconds(folder: Path) -> float:
    """From the images per second of the log, so interruptions do not count."""
    log = folder / "representation" / "log.jsonl"
    if not log.exists():
        return 0.0
    rows = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    batch = json.loads((folder / "representation" / "recipe.json").read_text("utf-8"))["parameters"][
        "batch_size"
    ]
    starts = [0, *(row["step"] for row in rows[:-1])]
    return sum(
        (row["step"] - start) * batch / max(row["images_per_s"], 0.1)
        for row, start in zip(rows, starts, strict=True)
    )


def tested_seconds(folder: Path) -> float:
    """Over all cells."""
    rows = [
        json.loads(line)
        for path in folder.glob("*/cells.jsonl")
        for line in path.read_text("utf-8").splitlines()
    ]
    return sum(row.get(f"{part}_seconds") or 0.0 for row in rows for part in ("fit", "predict", "measure"))


def say(text: str) -> None:
    """A line with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
