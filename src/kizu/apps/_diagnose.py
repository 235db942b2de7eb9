"""`kizu diagnose`: variants of ReContrast trained, tested on the way, and compared on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kizu
from kizu import registry
from kizu.apps._commands import read
from kizu.apps._screen import Screen
from kizu.apps._settings import parameters_from
from kizu.errors import OutputExists, UsageError
from kizu.outputs import refuse_inputs


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
    from kizu.protocols.one_class import one_class
    from kizu.reports.diagnosis import diagnosis

    screen = Screen(as_json)
    if len(set(names)) < len(names):
        raise UsageError("Name every --variant once.")
    detectors = {name: _detector(*variant(name), representation, parameters, seed) for name in names}
    if out.exists() and not (overwrite or resume):
        raise OutputExists(out)
    samples = read(dataset, data, category, mask_rule)
    refuse_inputs(out, [data, *samples.paths])
    split = one_class(samples, seed=seed)
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
    page = diagnosis(folders, out / "diagnosis.html")
    screen.say(f"Wrote {page}")
    runs = {name: {key: run[key] for key in ("last", "best_oracle")} for name, run in records.items()}
    screen.result({"report": str(page), "runs": runs})
    return 0


def _detector(
    name: str, parameters: dict[str, Any], representation: str | None, texts: list[str], seed: int
) -> Any:
    """The detector of a variant; --set may not change what makes the variant."""
    chosen = parameters_from(texts, registry.load("detectors", name))
    clash = sorted(set(chosen) & set(parameters))
    if clash:
        raise UsageError(
            f"--set {clash[0]} would make another variant; this one has "
            f"{', '.join(f'{key}={value}' for key, value in parameters.items())}."
        )
    return kizu.detector(name, representation, **{"seed": seed, **chosen, **parameters})
