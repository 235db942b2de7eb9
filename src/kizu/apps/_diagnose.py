"""`kizu diagnose`: variants of ReContrast trained, tested on the way, and compared on one page."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kizu
from kizu import registry
from kizu.apps._commands import error_list, read
from kizu.apps._screen import Screen
from kizu.apps._settings import parameters_from
from kizu.errors import OutputExists, UsageError
from kizu.outputs import has_record, refuse_inputs, why_foreign_file

if TYPE_CHECKING:
    from kizu.samples import Samples

PAGE = "diagnosis.html"
MOST_POINTS = 201
"""Along a side of the landscape: each point predicts 8 images."""


def diagnose(
    data: Path,
    out: Path,
    names: list[str],
    *,
    dataset: str,
    category: str | None,
    mask_rule: str | None,
    representation: str | None,
    parameters: list[str],
    every: int,
    landscape: int,
    seed: int,
    resume: bool,
    overwrite: bool,
    as_json: bool,
) -> int:
    """`kizu diagnose`."""
    from kizu.evaluation.diagnosis import diagnose as run
    from kizu.evaluation.diagnosis import variant
    from kizu.evaluation.seen import leave_out_seen
    from kizu.protocols.one_class import one_class
    from kizu.reports.diagnosis import diagnosis

    screen = Screen(as_json)
    if every < 1:
        raise UsageError(f"--every is a whole number from 1 on, got {every}.")
    if landscape not in (0, *range(2, MOST_POINTS + 1)):
        raise UsageError(f"--landscape is 0 for none, or 2 to {MOST_POINTS} points a side, got {landscape}.")
    if len(set(names)) < len(names):
        raise UsageError("Name every --variant once.")
    detectors = {name: _detector(*variant(name), representation, parameters, seed) for name in names}
    _check_output(out, resume=resume, overwrite=overwrite)
    samples = read(dataset, data, category, mask_rule)
    refuse_inputs(out, [data, *samples.paths])
    split, net = one_class(samples, seed=seed), next(iter(detectors.values())).representation
    test, left_out = leave_out_seen(split.test, net, split.train, dataset=dataset)
    split = dataclasses.replace(split, test=test)
    if left_out:
        screen.say(f"{left_out} test images that the model has seen were left out.")
    records, folders = {}, []
    for name, detector in detectors.items():
        folder = out / name
        with screen.progress(None) as progress:
            choice: dict[str, Any] = {"every": every, "landscape": landscape, "overwrite": overwrite}
            records[name] = run(name, detector, split, folder, progress=progress, **choice)
        folders.append(folder)
        last, best = records[name]["last"], records[name]["best_oracle"]
        screen.say(
            f"{name}: image AUROC {last['image_auroc']:.4f} at the last iteration, {best['image_auroc']:.4f} "
            "at the best (oracle)"
        )
    return _show(screen, diagnosis(folders, out / PAGE), records, samples, left_out)


def _show(
    screen: Screen, page: Path, records: dict[str, dict[str, Any]], samples: Samples, left_out: int
) -> int:
    """The page, the files that were not used, and JSON; returns the exit code."""
    screen.say(f"Wrote {page}")
    unread = [(one["path"], one["error"]) for run in records.values() for one in run["skipped"]]
    unused = list(dict.fromkeys([*samples.unused, *unread]))
    screen.unused(unused)
    screen.passed_over(samples.passed_over)
    runs = {name: {key: run[key] for key in ("last", "best_oracle")} for name, run in records.items()}
    screen.result({"report": str(page), "runs": runs, "skipped": error_list(unused), "left_out": left_out})
    return 1 if unused else 0


def _check_output(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise, before any work, OutputExists where `out` is there and may not be, or holds what no diagnosis
    wrote; UsageError for --resume with nothing to resume, or with --overwrite."""
    from kizu.evaluation.diagnosis import RECORD

    if resume and overwrite:
        raise UsageError("--resume goes on with what is there and --overwrite removes it: say one of them.")
    if resume and not out.exists():
        raise UsageError(f"There is nothing to resume in {out}. Leave --resume away, or correct -o.")
    if out.exists() and not (overwrite or resume):
        raise OutputExists(out)
    for entry in out.iterdir() if out.is_dir() else ():
        own = has_record(entry, RECORD) if entry.is_dir() else entry.name.startswith(f".{PAGE}.")
        own = own or (entry.name == PAGE and not why_foreign_file(entry))
        if not own:
            raise OutputExists(out, f"it holds {entry.name}, which no diagnosis wrote")


def _detector(
    name: str, parameters: dict[str, Any], representation: str | None, texts: list[str], seed: int
) -> Any:
    """The detector of a variant; --set may not change what makes the variant."""
    chosen = parameters_from(texts, registry.load("detectors", name))
    if chosen.get("seed", seed) != seed and seed:
        raise UsageError(f"--seed {seed} and --set seed={chosen['seed']} are two seeds: say one of them.")
    clash = sorted(set(chosen) & set(parameters))
    if clash:
        raise UsageError(
            f"--set {clash[0]} would make another variant; this one has "
            f"{', '.join(f'{key}={value}' for key, value in parameters.items())}."
        )
    return kizu.detector(name, representation, **{"seed": seed, **chosen, **parameters})
