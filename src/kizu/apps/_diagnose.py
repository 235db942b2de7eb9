"""`kizu diagnose`: rungs of ReContrast's ladder trained and tested along the way, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kizu
from kizu import registry
from kizu.apps._commands import read
from kizu.apps._screen import Screen
from kizu.apps._settings import parameters_from
from kizu.errors import OutputExists, UsageError


def diagnose(
    data: Path,
    out: Path,
    names: list[str],
    *,
    dataset: str,
    category: str | None,
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
    from kizu.evaluation.diagnosis import forget, rung
    from kizu.protocols.one_class import one_class
    from kizu.reports.diagnosis import diagnosis

    screen = Screen(as_json)
    if len(set(names)) < len(names):
        raise UsageError("Every --rung is named once.")
    detectors = {name: _detector(*rung(name), representation, parameters, seed) for name in names}
    if out.exists() and not (overwrite or resume):
        raise OutputExists(out)
    split = one_class(read(dataset, data, category), seed=seed)
    made, folders = {}, []
    for name, detector in detectors.items():
        folder = out / name
        if overwrite:
            forget(folder)
        with screen.progress(None) as progress:
            made[name] = run(
                name, detector, split, folder, every=every, landscape=landscape, progress=progress
            )
        folders.append(folder)
        last, best = made[name]["last"], made[name]["best_oracle"]
        screen.say(
            f"{name}: image AUROC {last['image_auroc']:.4f} at the last iteration, {best['image_auroc']:.4f} "
            "at the best (oracle)"
        )
    page = diagnosis(folders, out / "diagnosis.html")
    screen.say(f"Wrote {page}")
    screen.result(
        {
            "report": str(page),
            "runs": {name: {key: run[key] for key in ("last", "best_oracle")} for name, run in made.items()},
        }
    )
    return 0


def _detector(
    name: str, parameters: dict[str, Any], representation: str | None, given: list[str], seed: int
) -> Any:
    """A rung's detector; --set may not undo what makes the rung."""
    own = parameters_from(given, registry.load("detectors", name))
    clash = sorted(set(own) & set(parameters))
    if clash:
        raise UsageError(
            f"--set {clash[0]} would make another rung of it: "
            f"{', '.join(f'{key}={value}' for key, value in parameters.items())}."
        )
    return kizu.detector(name, representation, **{"seed": seed, **own, **parameters})
