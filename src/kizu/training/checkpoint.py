"""Checkpoints: all that a run needs to go on exactly, as safetensors and JSON in one file that is replaced
atomically."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kizu import cards, store
from kizu.errors import ModelFileError, UsageError
from kizu.precision import Choice

NAME = "checkpoint.kizu"


def has_checkpoint(folder: Path) -> bool:
    """Whether there is one in `folder`."""
    return (folder / NAME).exists()


def save(
    folder: Path,
    objective: nn.Module,
    optimiser: torch.optim.Optimizer,
    step: int,
    recipe: dict[str, Any],
    precision: Choice | None = None,
) -> Path:
    """Write folder/checkpoint.kizu: parameters and buffers, the optimiser's state, the step, the recipe and
    the precision of the run."""
    tensors = {f"objective.{name}": value for name, value in objective.state_dict().items()}
    state = optimiser.state_dict()
    plain: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{index}.{key}"] = value
            else:
                plain.setdefault(str(index), {})[key] = value
    card = {
        "kind": "checkpoint",
        "step": step,
        "recipe": recipe,
        "precision": precision.facts() if precision else None,
        "optimiser": {"groups": state["param_groups"], "plain": plain, "with_state": sorted(state["state"])},
    }
    return store.save(folder / NAME, tensors, card, overwrite=True)


def recipe_of(folder: Path | str) -> dict[str, Any]:
    """The recipe of the run whose checkpoint lies in `folder`; an empty one where there is none. Raises
    ModelFileError when it is damaged."""
    path = Path(folder) / NAME
    recipe = store.load_card(path).get("recipe") if path.exists() else {}
    return recipe if isinstance(recipe, dict) else {}


def precision_of(folder: Path | str) -> Choice | None:
    """The precision of the run whose checkpoint lies in `folder`; None where there is none or it does not
    say. Raises ModelFileError when it is damaged."""
    path = Path(folder) / NAME
    return Choice.of(store.load_card(path).get("precision")) if path.exists() else None


def step_of(folder: Path, recipe: dict[str, Any]) -> int:
    """The step of the checkpoint in `folder`.

    Raises UsageError when there is no checkpoint or it is of another recipe, ModelFileError when it is
    damaged.
    """
    if not has_checkpoint(folder):
        raise UsageError(f"{folder} holds no checkpoint to resume from. Start it without resume.")
    card = store.load_card(folder / NAME)
    cards.check(card, "checkpoint", folder / NAME)
    as_stored = json.loads(json.dumps(recipe))  # JSON turns a tuple into a list
    theirs, ours = card["recipe"].get("detector"), as_stored.get("detector")
    if theirs != ours:
        raise UsageError(
            f"{folder / NAME} is of another detector: {theirs} there, {ours} here. Take another folder."
        )
    for key, theirs, ours in _differences(card["recipe"], as_stored):
        raise UsageError(
            f"{folder / NAME} is of another recipe: {key} was {theirs!r} there and is {ours!r} here. "
            "Resume with the same settings, or start anew in another folder."
        )
    step, steps = int(card["step"]), recipe.get("steps")
    if steps is not None and step > steps:
        raise ModelFileError(f"{folder / NAME} is of step {step} of {steps}. Start the run anew.")
    return step


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key in sorted({*theirs, *ours}):
        one, other = theirs.get(key), ours.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other)
        elif one != other:
            yield key, one, other


def restore(folder: Path, objective: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Fill objective and optimiser in place from the checkpoint in `folder`. Raises ModelFileError.

    Of the optimiser only the state comes from the file: its rates and groups are those of this run, whose
    recipe is the same."""
    path = folder / NAME
    card = store.load_card(path)
    cards.check(card, "checkpoint", path)
    tensors = store.load_tensors(path)
    groups = optimiser.state_dict()["param_groups"]
    if [group.get("params") for group in card["optimiser"]["groups"]] != [one["params"] for one in groups]:
        raise ModelFileError(f"{path} does not fit this run: its optimiser has other parameters.")
    state: dict[int, dict[str, Any]] = {
        int(index): dict(values) for index, values in card["optimiser"]["plain"].items()
    }
    for name, value in store.without_prefix(tensors, "optimiser.").items():
        index, _, key = name.partition(".")
        if not index.isdecimal() or len(index) > 9:
            raise ModelFileError(f"{path}: tensor {name[:80]!r} belongs to no parameter.")
        state.setdefault(int(index), {})[key] = value
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    _check_state(path, card["step"], state, parameters)
    if sorted(state) != card["optimiser"]["with_state"]:
        raise ModelFileError(f"{path} is damaged: its optimiser lacks the state of a parameter.")
    try:
        objective.load_state_dict(store.without_prefix(tensors, "objective."))
        optimiser.load_state_dict({"state": state, "param_groups": groups})
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelFileError(f"{path} does not fit this run: {str(error).splitlines()[0]}") from error


def _check_state(path: Path, step: int, state: dict[int, dict[str, Any]], parameters: list[Tensor]) -> None:
    """Raise ModelFileError unless every tensor holds floating-point numbers, one or as many as its parameter,
    all parameters have the same names (an optimiser makes a whole state or none), and none counts more steps
    than the run has done."""
    names = {frozenset(values) for values in state.values()}
    for index, values in state.items():
        shapes = {(), (1,), tuple(parameters[index].shape)} if index < len(parameters) else set()
        for key, value in values.items():
            fits = not isinstance(value, Tensor) or (
                value.is_floating_point() and tuple(value.shape) in shapes
            )
            counted = key != "step" or _is_count(value, step)
            if len(names) > 1 or not (fits and counted):
                raise ModelFileError(
                    f"{path} does not fit this run: the optimiser's {key[:40]!r} of parameter {index} is not "
                    "as the others, or of another shape, type or step."
                )


def _is_count(value: Any, most: int) -> bool:
    """Whether it is one number from 0 to `most`."""
    number = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    return isinstance(number, int | float) and 0 <= number <= most
