"""`kizu pretrain`: collect the settings, run, report."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from kizu import registry
from kizu.apps._screen import Screen
from kizu.apps._settings import parameters_from
from kizu.errors import UnknownParameter, UsageError, counted
from kizu.launchers import is_first_process


def pretrain(
    objective: str,
    data: list[str],
    out: Path,
    named: dict[str, Any],
    parameters: list[str],
    resume: bool,
    as_json: bool,
    given: set[str],
    **settings: Any,
) -> int:
    """`kizu pretrain`. named: parameters that have options of their own; a --set of the same name wins.
    given: options that were said, not left at their defaults; a run is resumed with these only."""
    from kizu.pretraining import run
    from kizu.training import leave

    screen = Screen(as_json)
    if resume:
        said = {"objective": objective, "data": data, **settings}
        known = {name: value for name, value in said.items() if name in given and name != "overwrite"}
        objective = objective or run.read_recipe(out)["objective"]
        chosen = {name: value for name, value in named.items() if name in given}
        known |= _parameters(objective, chosen, parameters)
        finished = run.is_finished(out)
        folder = run.resume(out, given=known, show=not as_json)
        if finished:
            return _say_finished(folder, screen)
    else:
        if not objective:
            raise UsageError(f"Say what to train: one of {', '.join(registry.names('pretraining'))}.")
        if not data:
            raise UsageError(
                "Say what to train on: --data FOLDER, or --data procedural for our own generator."
            )
        chosen = _parameters(objective, named, parameters)
        screen.say(
            f"Training {chosen['backbone']} with {objective}{' + SPD' if chosen['spd'] else ''} on "
            f"{', '.join(data)}"
        )
        folder = run.pretrain(objective, data, out, show=not as_json, **settings, **chosen)
    leave()
    return _say_written(folder, screen) if is_first_process() else 0


def _say_written(folder: Path, screen: Screen) -> int:
    """What came of a run; the exit code is 1 where images could not be read."""
    from kizu import store

    card = store.load_card(folder)["representation"]
    last = card["curve"][-1]
    screen.say(
        f"Wrote {folder}: loss {last['loss']:.4f} after {last['step']} steps. Use it with --representation "
        f"{folder}"
    )
    skipped = card["skipped_images"]
    if skipped:
        screen.say(f"{counted(skipped, 'image')} could not be read; {folder / 'skipped.json'} names them.")
    screen.result({"representation": str(folder), "name": card["name"], "last": last, "skipped": skipped})
    return 1 if skipped else 0


def _say_finished(folder: Path, screen: Screen) -> int:
    """A run that has nothing left to do."""
    from kizu import store

    card = store.load_card(folder)["representation"]
    screen.say(f"{folder} is finished already and stays as it is. Use it with --representation {folder}")
    screen.result(
        {
            "representation": str(folder),
            "name": card["name"],
            "last": card["curve"][-1],
            "skipped": card["skipped_images"],
        }
    )
    return 0


def _parameters(objective: str, named: dict[str, Any], texts: list[str]) -> dict[str, Any]:
    """Options and `--set name=value` -> keywords of the objective; SPD's flat names become one SPDConfig.

    Raises UnknownParameter, and UsageError for a value of another type or an SPD parameter without --spd."""
    from kizu.pretraining.spd import FLAT_NAMES, SPDConfig, collect_spd

    cls = registry.load("pretraining", objective)
    known, values = {*inspect.signature(cls).parameters, *FLAT_NAMES}, dict(named)
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if equals and name not in known:
            raise UnknownParameter(objective, name, known)
        if name in FLAT_NAMES:
            values[name] = parameters_from([f"{FLAT_NAMES[name]}={value}"], SPDConfig)[FLAT_NAMES[name]]
        else:
            values |= parameters_from([text], cls)
    return collect_spd(values)
