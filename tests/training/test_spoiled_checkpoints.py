"""A checkpoint that was changed is refused, and says where; of its optimiser only the state counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_objectives import BATCH, Line, points

from kizu import pretraining, store
from kizu.errors import KizuError, ModelFileError, UsageError
from kizu.training import train

CHECKPOINT = "checkpoint.kizu"
SETTINGS: dict[str, Any] = {"batch_size": BATCH, "precision": "fp32", "device": "cpu", "show": False}
STATE = "optimiser.0.momentum_buffer"


@pytest.fixture
def half_done(tmp_path: Path) -> Path:
    """A checkpoint of step 2 of 4."""
    train(Line(), points, folder=tmp_path, steps=2, **SETTINGS)
    tensors, card = store.load(tmp_path / CHECKPOINT)
    card["recipe"]["steps"] = 4
    return store.save(tmp_path / CHECKPOINT, tensors, card, overwrite=True)


def resumed(path: Path) -> list[dict[str, Any]]:
    return train(Line(), points, folder=path.parent, resume=True, steps=4, **SETTINGS)


def spoil(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], Any]) -> None:
    tensors, card = store.load(path)
    change(tensors, card)
    store.save(path, tensors, card, overwrite=True)


def test_rates_of_the_file_do_not_count(half_done: Path) -> None:
    expected = [row["loss"] for row in train(Line(), points, steps=4, log_every=1, **SETTINGS)]
    spoil(half_done, lambda _, card: card["optimiser"]["groups"][0].update(lr=1e3, momentum=-5, nesterov="x"))
    assert resumed(half_done)[-1]["loss"] == pytest.approx(sum(expected[2:]) / 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors, card: card.update(step=5), "is of step 5 of 4"),
        (lambda tensors, card: card.update(step=-1), "card's step is -1"),
        (lambda tensors, card: card.update(step=2.0), "card's step is 2.0"),
        (lambda tensors, card: card.update(recipe=[1]), "card's recipe"),
        (lambda tensors, card: card.update(optimiser={}), "card's optimiser.groups is not there"),
        (lambda tensors, card: card["optimiser"].update(plain={"x": {}}), "card's optimiser.plain.x"),
        (lambda tensors, card: card["optimiser"].update(groups=[]), "has other parameters"),
        (
            lambda tensors, card: card["optimiser"].update(plain={"0": {"step": 3}}),
            "parameter [01] is not as",
        ),
        (lambda tensors, card: tensors.update({STATE: torch.zeros(3)}), "'momentum_buffer' of parameter 0"),
        (lambda tensors, card: tensors.pop(STATE), "lacks the state of a parameter"),
        (lambda tensors, card: tensors.update({STATE: tensors[STATE].bool()}), "shape, type or step"),
        (lambda tensors, card: tensors.update({"optimiser.9.x": torch.zeros(1)}), "of parameter 9|is not as"),
        (
            lambda tensors, card: tensors.update({f"optimiser.{'9' * 5000}.x": torch.zeros(1)}),
            "belongs to no",
        ),
        (lambda tensors, card: tensors.update({"optimiser.-1.x": torch.zeros(1)}), "belongs to no parameter"),
        (lambda tensors, card: tensors.update({"objective.more": torch.zeros(1)}), "does not fit this run"),
    ],
)
def test_what_was_changed_is_named(half_done: Path, change: Callable[..., Any], said: str) -> None:
    spoil(half_done, change)
    with pytest.raises(ModelFileError, match=f"{CHECKPOINT}.*({said})"):
        resumed(half_done)


@pytest.mark.parametrize("step", [-1.0, 3.0, float("nan")])
def test_steps_of_the_optimiser_that_the_run_has_not_done(half_done: Path, step: float) -> None:
    """Adam divides by what follows from them."""

    def counted(tensors: dict[str, torch.Tensor], card: dict[str, Any]) -> None:
        for name in [name for name in tensors if name.startswith("optimiser.")]:
            tensors[name.replace("momentum_buffer", "step")] = torch.tensor(step)

    spoil(half_done, counted)
    with pytest.raises(ModelFileError, match="'step' of parameter"):
        resumed(half_done)


RECIPE: dict[str, Any] = {
    "objective": "simsiam",
    "parameters": {"backbone": "resnet10t", "stages": 1, "size": 32, "batch_size": 4, "spd": None},
    "data": ["procedural"],
    "steps": 1,
    "run": {
        "init": None, "source_size": None, "accumulate": 1, "precision": "fp32", "device": "cpu",
        "devices": None, "nodes": None, "checkpoint_every": 200, "log_every": 10, "half": False,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("owner", "change", "said"),
    [
        ("", {"steps": 1.0}, "recipe's steps is 1.0"),
        ("", {"steps": 10**12}, "recipe's steps"),
        ("", {"objective": "../run"}, "recipe's objective"),
        ("", {"objective": "simsian"}, "simsiam"),
        ("", {"data": []}, "recipe's data"),
        ("", {"data": "procedural"}, "recipe's data"),
        ("run", {"accumulate": True}, "recipe's run.accumulate"),
        ("run", {"command": "x"}, "recipe's run.command"),
        ("parameters", {"size": 10**9}, "recipe's parameters.size"),
        ("parameters", {"backbone": "hf-hub:a/b"}, "recipe's parameters.backbone"),
        ("parameters", {"colour": 1}, "colour"),
        ("parameters", {"spd": [1]}, "spd"),
    ],
)
def test_a_recipe_that_no_run_wrote(tmp_path: Path, owner: str, change: dict[str, Any], said: str) -> None:
    recipe = json.loads(json.dumps(RECIPE))
    (recipe[owner] if owner else recipe).update(change)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises((ModelFileError, UsageError), match=said):
        pretraining.resume(tmp_path, show=False)


def test_a_recipe_of_odd_numbers(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE).replace('"steps": 1', '"steps": NaN'))
    with pytest.raises(KizuError, match=r"recipe\.json is not valid JSON"):
        pretraining.resume(tmp_path, show=False)
