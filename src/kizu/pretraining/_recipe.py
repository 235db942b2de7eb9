"""recipe.json of a pretraining run: all that resuming it needs."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kizu import cards, registry, store, untrusted
from kizu.errors import UsageError
from kizu.pretraining.spd import SPDConfig

RECIPE = "recipe.json"


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
    signature = inspect.signature(registry.load("pretraining", recipe["objective"])).parameters.values()
    defaults = {parameter.name: parameter.default for parameter in signature}
    known = {**defaults, **recipe["parameters"], **recipe["run"], **recipe}
    for name, value in json.loads(json.dumps(to_json(given))).items():
        if known.get(name) != value:
            raise UsageError(
                f"{folder} holds a run of other settings: {name} is {known.get(name)!r} there, not "
                f"{value!r}. Leave the setting out to go on with that run, or begin another one elsewhere."
            )


def to_json(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters as recipe.json holds them: SPDConfig becomes a dict."""
    return {name: asdict(v) if isinstance(v, SPDConfig) else v for name, v in parameters.items()}


def from_json(parameters: dict[str, Any]) -> dict[str, Any]:
    """Undoes `to_json`. Raises UnknownParameter for a field that SPDConfig does not have."""
    spd = parameters.get("spd")
    if not isinstance(spd, dict):
        return parameters
    registry.check_keywords("SPDConfig", SPDConfig, spd)
    return {**parameters, "spd": SPDConfig(**spd)}


def absolute(source: str | Path) -> str:
    """The absolute path of a folder, so that the run can be resumed from elsewhere; another source as it
    is."""
    return str(Path(source).resolve()) if Path(source).is_dir() else str(source)
