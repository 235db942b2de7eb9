"""recipe.json of a pretraining run: all that resuming it needs."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kizu import cards, registry, store, untrusted
from kizu.errors import UsageError
from kizu.pretraining.spd import SPDConfig
from kizu.representations.sources import split_levels

RECIPE = "recipe.json"
NAMED = re.compile(r"(?P<head>(?P<name>[a-z][a-z0-9_]*)(\[(?P<categories>[^\]]*)\])?):(?P<path>.+)")
"""A data set and where it lies: NAME:PATH, or NAME[CATEGORY,...]:PATH."""


def read_recipe(folder: Path) -> dict[str, Any]:
    """The recipe of the run in `folder`. Raises UsageError where there is none, ModelFileError when it is
    damaged."""
    if not (folder / RECIPE).exists():
        raise UsageError(f"{folder} holds no pretraining run (no {RECIPE}).")
    recipe = untrusted.parse_json(untrusted.entry(folder, RECIPE, most=store.MAX_CARD), f"{folder / RECIPE}")
    cards.check_recipe(recipe, folder / RECIPE)
    objective = registry.load("pretraining", recipe["objective"])
    registry.check_keywords(recipe["objective"], objective, recipe["parameters"])
    from_json(recipe["parameters"])
    return {name: value for name, value in recipe.items() if name != "kizu_format"}


def check_given(folder: Path, recipe: dict[str, Any], given: dict[str, Any]) -> None:
    """Raise UsageError for a setting that is not the run's."""
    if "data" in given:
        given = {**given, "data": [absolute(source) for source in given["data"]]}
    if given.get("init"):
        given = {**given, "init": absolute(given["init"])}
    cls = registry.load("pretraining", recipe["objective"])
    signature = inspect.signature(cls).parameters.values()
    defaults = _as_read(to_json({parameter.name: parameter.default for parameter in signature}, cls))
    known = {**defaults, **recipe["parameters"], **recipe["run"], **recipe}
    for name, value in _as_read(to_json(given, cls)).items():
        if known.get(name) != value:
            raise UsageError(
                f"{folder} holds a run of other settings: {name} is {known.get(name)!r} there, not "
                f"{value!r}. Leave the setting out to go on with that run, or begin another one elsewhere."
            )


def to_json(parameters: dict[str, Any], objective: Any) -> dict[str, Any]:
    """Parameters of an objective (its class) as recipe.json holds them: SPDConfig becomes a dict, the path of
    a frozen representation absolute."""
    plain: dict[str, Any] = {
        name: asdict(v) if isinstance(v, SPDConfig) else v for name, v in parameters.items()
    }
    backbone = plain.get("backbone")
    if objective.writes == "projector" and isinstance(backbone, str):
        plain["backbone"] = _absolute_representation(backbone)
    return plain


def from_json(parameters: dict[str, Any]) -> dict[str, Any]:
    """Undoes `to_json`. Raises UnknownParameter for a field that SPDConfig does not have."""
    spd = parameters.get("spd")
    if not isinstance(spd, dict):
        return parameters
    registry.check_keywords("SPDConfig", SPDConfig, spd)
    return {**parameters, "spd": SPDConfig(**spd)}


def absolute(source: str | Path) -> str:
    """The absolute path of a folder, alone or behind the name of a data set (mvtec:data/mvtec), so that the
    run can be resumed from elsewhere; another source as it is."""
    if Path(source).is_dir():
        return str(Path(source).resolve())
    named = NAMED.fullmatch(str(source))
    if named is None or named["name"] not in registry.names("datasets"):
        return str(source)
    return f"{named['head']}:{Path(named['path']).resolve()}"


def place_of(source: str | Path) -> str:
    """Where a source lies: the path behind the name of a data set, else the source itself."""
    named = NAMED.fullmatch(str(source))
    return named["path"] if named else str(source)


def _absolute_representation(text: str) -> str:
    """The absolute path of a saved representation, whose levels may stand behind it: rep@2,3."""
    body, levels = split_levels(text)
    if not Path(body).exists():
        return text
    return str(Path(body).resolve()) + (f"@{','.join(map(str, levels))}" if levels else "")


def without_paths(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe for the card, which others read: folders of this machine by their last name only."""
    init, parameters = recipe["run"].get("init"), recipe["parameters"]
    run = {**recipe["run"], "init": init and _last_name(init)}
    if "backbone" in parameters:
        parameters = {**parameters, "backbone": _last_name(parameters["backbone"])}
    data = [_data_name(source) for source in recipe["data"]]
    return {**recipe, "data": data, "run": run, "parameters": parameters}


def _data_name(source: str) -> str:
    named = NAMED.fullmatch(source)
    return f"{named['head']}:{Path(named['path']).name}" if named else Path(source).name


def _as_read(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives them back: tuples are lists."""
    read: dict[str, Any] = json.loads(json.dumps(values))
    return read


def _last_name(source: str) -> str:
    return Path(source).name if Path(source).is_absolute() else source
