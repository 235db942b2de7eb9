"""The plan of an experiment: a TOML file of names and keywords, checked, and the cells that it asks for.

    name = "magnetic_tile_few_shot"
    [[dataset]]
    name = "magnetic_tile"          # a file of kizu/datasets; path is looked for under the data folder
    path = "magnetic-tile"
    mask_rule = "half"              # may be left out: as the data set says (kizu.masks)
    [[representation]]
    name = "random/resnet18"
    [[adaptation]]                  # may be left out: none; name = "none" beside others compares with none
    name = "residual"
    parameters = { shots = 4 }
    [[detector]]
    name = "patchcore"
    parameters = { image_size = 224 }
    [[protocol]]
    name = "few_shot"
    seeds = [0, 1, 2, 3, 4]         # of the split, of the adaptation, and of a detector that draws or trains
    grid = { shots = [5, 10, 50], leak_safe = [false, true] }

A cell is one combination of what the file lists. A grid lists values for a keyword of the protocol or for a
parameter of the detector (`grid = { image_size = [224, 320] }`); every value is run. A protocol that trains
one model for all categories (its module says ONE_MODEL_FOR_ALL) makes one cell of a whole data set."""

from __future__ import annotations

import hashlib
import itertools
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from kizu import registry
from kizu.adaptation.base import Adaptation
from kizu.checks import whole_numbers
from kizu.detectors.runtime import parameter_names
from kizu.errors import LayoutError, UnknownParameter, UsageError
from kizu.masks import checked_rule
from kizu.protocols.base import one_model_for_all, seeds_adaptation_only

ALL = "all categories"
"""The category of a cell that covers all of them."""
KEYS = {"name", "description", "dataset", "representation", "adaptation", "detector", "protocol", "published"}
NONE = "none"
"""The adaptation that is none."""
PARTS: dict[str, set[str]] = {
    "dataset": {"name", "path", "filters", "categories", "mask_rule"},
    "representation": {"name"},
    "adaptation": {"name", "parameters"},
    "detector": {"name", "parameters", "grid"},
    "protocol": {"name", "seeds", "grid"},
    "published": {"paper", "table", "note", "where"},
}


@dataclass(frozen=True)
class Experiment:
    """A checked experiment file."""

    name: str
    description: str
    parts: dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Cell:
    """One combination; `key` names it in cells.jsonl."""

    dataset: dict[str, Any]
    category: str
    representation: str
    detector: str
    parameters: dict[str, Any]
    protocol: str
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    adaptation: dict[str, Any] | None = None

    @property
    def key(self) -> str:
        """A digest of all that decides the outcome."""
        facts = {name: value for name, value in vars(self).items() if name != "adaptation" or value}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def read_experiment(path: Path | str) -> Experiment:
    """Parse and check an experiment: every name exists, every keyword is in the signature it goes to.

    Raises LayoutError for a file that is missing or not TOML, UnknownName, UnknownParameter, UsageError.
    """
    path = Path(path)
    if not path.is_file():
        raise LayoutError(f"{path} is not a readable TOML file: there is no such file.")
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LayoutError(f"{path} is not a readable TOML file: {error}") from error
    for key in raw:
        if key not in KEYS:
            raise UnknownParameter(f"experiment {path.name}", key, KEYS)
    parts = {name: _tables(path, name, raw.get(name, [])) for name in PARTS}
    for name in ("dataset", "representation", "detector", "protocol"):
        if not parts[name]:
            raise UsageError(f"{path.name} lists no [[{name}]].")
    for name, entries in parts.items():
        for entry in entries:
            for key in entry:
                if key not in PARTS[name]:
                    raise UnknownParameter(f"[[{name}]] in {path.name}", key, PARTS[name])
    _check_signatures(parts)
    for entry in parts["published"]:
        published_rows(entry)
    return Experiment(_text(raw, "name", path.stem), _text(raw, "description", ""), parts)


def _text(raw: dict[str, Any], key: str, default: str) -> str:
    value = raw.get(key, default)
    if not isinstance(value, str):
        raise UsageError(f"The {key} of an experiment is a text, got {value!r}.")
    return value


KINDS: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("name", "path", "paper", "table", "note", "mask_rule"), (str, "a text")),
    **dict.fromkeys(("filters", "parameters", "grid", "where"), (dict, "a table, { name = value }")),
    **dict.fromkeys(("categories", "seeds"), (list, "a list")),
}
"""What the values of an entry are."""


def _tables(path: Path, part: str, entries: Any) -> list[dict[str, Any]]:
    """The entries of one part. Raises UsageError for values of another type than KINDS says, or without a
    name."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError(f"{path.name}: {part} is written as [[{part}]], got {entries!r}.")
    for entry in entries:
        for key, value in entry.items():
            wanted, words = KINDS.get(key, (object, ""))
            if not isinstance(value, wanted):
                raise UsageError(f"[[{part}]] in {path.name}: {key} is {words}, got {value!r}.")
        needed = {"dataset": ("name", "path"), "published": ("paper",)}.get(part, ("name",))
        missing = [
            key for key in needed if key not in entry and not (part == "published" and "note" in entry)
        ]
        if missing:
            raise UsageError(f"[[{part}]] in {path.name} has no {missing[0]}.")
        _check_lists(f"[[{part}]] in {path.name}", entry)
        try:
            json.dumps(entry, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(
                f"[[{part}]] in {path.name} holds a value that is no text, finite number, true or false, or "
                f"list of these ({error})."
            ) from error
    return list(entries)


def _check_lists(owner: str, entry: dict[str, Any]) -> None:
    """Seeds are whole numbers and categories texts, one at least and each once."""
    for key in ("seeds", "categories"):
        values = entry.get(key, [None])
        if not values or len(set(map(str, values))) < len(values):
            raise UsageError(f"{owner}: {key} holds one value at least, and each once; got {values!r}.")
    for seed in entry.get("seeds", []):
        whole_numbers(least=0, seed=seed)
    for category in entry.get("categories", []):
        if not isinstance(category, str):
            raise UsageError(f"{owner}: a category is a text, got {category!r}.")


def _check_signatures(parts: dict[str, list[dict[str, Any]]]) -> None:
    for entry in parts["dataset"]:
        registry.check_keywords(
            f"dataset {entry['name']}", registry.load("datasets", entry["name"]), entry.get("filters", {})
        )
        if "mask_rule" in entry:
            checked_rule(entry["mask_rule"])
            if "mask_rule" in entry.get("filters", {}):
                raise UsageError(f"[[dataset]] {entry['name']} has mask_rule twice; keep it out of filters.")
    for entry in parts["adaptation"]:
        _adaptation(entry)
    for entry in parts["detector"]:
        kind = registry.load("detectors", entry["name"])
        parameters, grid = entry.get("parameters", {}), entry.get("grid", {})
        known = parameter_names(kind)
        for name in (*parameters, *grid):
            if name not in known:
                raise UnknownParameter(kind.__name__, name, known)
        _check_grid(f"[[detector]] {entry['name']}", grid)
        twice = sorted(set(parameters) & set(grid))
        if twice:
            raise UsageError(
                f"[[detector]] {entry['name']} has {twice[0]} in parameters and in grid; keep one of them."
            )
    for entry in parts["protocol"]:
        if "seed" in entry.get("grid", {}):
            raise UsageError(
                f"[[protocol]] {entry['name']}: seeds are named beside its grid, seeds = [0, 1]."
            )
        registry.check_keywords(
            f"protocol {entry['name']}", registry.load("protocols", entry["name"]), entry.get("grid", {})
        )
        _check_grid(f"[[protocol]] {entry['name']}", entry.get("grid", {}))
        adapted = any(one["name"] != NONE for one in parts["adaptation"])
        if seeds_adaptation_only(entry["name"]) and not adapted:
            raise UsageError(
                f"The seeds of {entry['name']} are those of the adaptation, and there is none. Add an "
                '[[adaptation]] that draws, such as name = "residual".'
            )


def _check_grid(owner: str, grid: dict[str, Any]) -> None:
    empty = [name for name, values in grid.items() if values == []]
    if empty:
        raise UsageError(f"{owner} has no value for {empty[0]} in its grid, so nothing of it would be run.")


def published_rows(entry: dict[str, Any]) -> pl.DataFrame | None:
    """The rows that a [[published]] entry selects; None for one that is a note only.

    Raises UnknownName for a paper or table, UnknownParameter for a column, UsageError where nothing is
    left."""
    if "paper" not in entry:
        return None
    frame: pl.DataFrame = registry.load("papers", entry["paper"])(entry.get("table"))
    for column, value in entry.get("where", {}).items():
        if column not in frame.columns:
            raise UnknownParameter(f"where of [[published]] {entry['paper']}", column, frame.columns)
        wanted = [str(item) for item in (value if isinstance(value, list) else [value])]
        frame = frame.filter(pl.col(column).cast(pl.String).is_in(wanted))
        if frame.is_empty():
            raise UsageError(f"[[published]] {entry['paper']}: no row has {column} = {value!r}.")
    return frame


def refuse_repeated(listed: list[Cell]) -> None:
    """Raise UsageError when two cells are one and the same."""
    keys = [cell.key for cell in listed]
    for number, key in enumerate(keys):
        if key in keys[:number]:
            cell = listed[number]
            raise UsageError(
                f"{cell.dataset['name']}/{cell.category}, {cell.representation}, {cell.detector}, "
                f"{cell.protocol}, seed {cell.seed} is listed twice with the same parameters. Write it once."
            )


def cells(experiment: Experiment, categories: dict[int, list[str]]) -> Iterator[Cell]:
    """Every combination; `categories` lists those of each [[dataset]] by its position.

    The order keeps together the cells that give the same images to the same representation and detector, so
    that their features are computed once."""
    parts = experiment.parts
    detectors = [
        (entry["name"], parameters)
        for entry in parts["detector"]
        for parameters in _each(entry.get("grid", {}), entry.get("parameters", {}))
    ]
    for at, dataset in enumerate(parts["dataset"]):
        combinations = itertools.product(
            [*categories[at], ALL],
            parts["representation"],
            parts["adaptation"] or [{"name": NONE}],
            detectors,
            parts["protocol"],
        )
        for category, representation, adaptation, (detector, parameters), protocol in combinations:
            if (category == ALL) != one_model_for_all(protocol["name"]):
                continue
            names = (dataset, category, representation["name"], detector, parameters, protocol["name"])
            draws = itertools.product(_each(protocol.get("grid", {})), protocol.get("seeds", [0]))
            adapted = _adaptation(adaptation)
            yield from (Cell(*names, settings, seed, adapted) for settings, seed in draws)


def _adaptation(entry: dict[str, Any]) -> dict[str, Any] | None:
    """Name and parameters, checked; None for none. Raises what `kizu.Adaptation` raises, UsageError for
    parameters of none."""
    parameters = entry.get("parameters", {})
    if entry["name"] == NONE:
        if parameters:
            raise UsageError(f'[[adaptation]] "{NONE}" has no parameters, got {", ".join(parameters)}.')
        return None
    return {"name": Adaptation(entry["name"], parameters).name, "parameters": parameters}


def _each(grid: dict[str, Any], fixed: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Every combination of the grid's values, each with what is fixed."""
    lists = [value if isinstance(value, list) else [value] for value in grid.values()]
    return [{**(fixed or {}), **dict(zip(grid, values, strict=True))} for values in itertools.product(*lists)]
