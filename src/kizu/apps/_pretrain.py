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
                "Say what to train on: --data FOLDER, or --data procedural for our own generator; "
                "adpretrain: --data NAME:PATH, a data set with masks."
            )
        if registry.load("pretraining", objective).writes == "projector":
            named = {name: value for name, value in named.items() if name in given}
        chosen = _parameters(objective, named, parameters)
        screen.say(
            f"Training {chosen.get('backbone', 'a projector')} with {objective}"
            f"{' + SPD' if chosen.get('spd') else ''} on {', '.join(data)}"
        )
        folder = run.pretrain(objective, data, out, show=not as_json, **settings, **chosen)
    leave()
    return _say_written(folder, screen) if is_first_process() else 0


def _say_written(folder: Path, screen: Screen) -> int:
    """What came of a run; the exit code is 1 where images could not be read."""
    kind, card = _card(folder)
    last = card["curve"][-1]
    screen.say(f"Wrote {folder}: loss {last['loss']:.4f} after {last['step']} steps. {_use(kind, folder)}")
    skipped = card["skipped_images"]
    if skipped:
        screen.say(f"{counted(skipped, 'image')} could not be read; {folder / 'skipped.json'} names them.")
    screen.result({kind: str(folder), "name": card["name"], "last": last, "skipped": skipped})
    return 1 if skipped else 0


def _say_finished(folder: Path, screen: Screen) -> int:
    """A run that has nothing left to do."""
    kind, card = _card(folder)
    screen.say(f"{folder} is finished already and stays as it is. {_use(kind, folder)}")
    screen.result(
        {
            kind: str(folder),
            "name": card["name"],
            "last": card["curve"][-1],
            "skipped": card["skipped_images"],
        }
    )
    return 0


def _card(folder: Path) -> tuple[str, dict[str, Any]]:
    """("representation" or "projector", its card) of a finished run."""
    from kizu import store

    card = store.load_card(folder)
    kind = str(card["kind"])
    return kind, card[kind]


def _use(kind: str, folder: Path) -> str:
    """How to go on."""
    if kind == "projector":
        return f"Use it with --adaptation residual --adapt-set projector={folder}"
    return f"Use it with --representation {folder}"


def _parameters(objective: str, named: dict[str, Any], texts: list[str]) -> dict[str, Any]:
    """Options and `--set name=value` -> keywords of the objective; SPD's flat names become one SPDConfig.

    Raises UnknownParameter, and UsageError for a value of another type or an SPD parameter without --spd."""
    from kizu.pretraining.spd import FLAT_NAMES, SPDConfig, collect_spd

    cls = registry.load("pretraining", objective)
    own = {*inspect.signature(cls).parameters}
    known, values = own | (set(FLAT_NAMES) if "spd" in own else set()), dict(named)
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if equals and name not in known:
            raise UnknownParameter(objective, name, known)
        if name in FLAT_NAMES and "spd" in own:
            values[name] = parameters_from([f"{FLAT_NAMES[name]}={value}"], SPDConfig)[FLAT_NAMES[name]]
        else:
            values |= parameters_from([text], cls)
    return collect_spd(values) if "spd" in own else values
