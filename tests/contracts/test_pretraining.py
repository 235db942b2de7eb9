"""What every pretraining objective owes its users, with SPD and without; a new file in pretraining/ is picked
up by itself."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import typing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import kizu
from kizu import registry, store
from kizu.errors import UnknownName, UnknownParameter, UsageError
from kizu.pretraining import pretrain
from kizu.pretraining.spd import SPDConfig
from kizu.training import Position

SPD_NAMES = ("loss_spd", "cos_positive", "cos_negative", "spd_accuracy")
"""What SPD adds to the log."""
ALL = registry.names("pretraining")
NAMES = [name for name in ALL if registry.load("pretraining", name).writes == "representation"]
APART = {"adpretrain": "trains a projector, its encoder is frozen: tests/pretraining/test_adpretrain.py"}
"""Objectives that do not train an encoder, which most of this file is about."""
TINY: dict[str, Any] = {"backbone": "resnet10t", "stages": 1, "size": 32, "batch_size": 4}
TINY_APART: dict[str, Any] = {"backbone": "random/resnet10t@1", "size": 32, "batch_size": 2, "references": 4}
WIDTHS: dict[str, Any] = {"hidden": 32, "predictor_hidden": 16, "dimensions": 16, "queue": 8, "classes": 3}
"""Small values for parameters that a member may have."""

RATES = {"byol": 400.0, "moco": 12.0, "simclr": 400.0, "simsiam": 6.0, "supervised": 3.0}
"""Learning rate for a batch of 256 at which a batch of 4 is learned by heart in a few steps."""

SHARED = ("backbone", "stages", "size", "batch_size", "seed", "spd", "learning_rate", "weight_decay")
MAY_BE_ZERO = {"seed", "weight_decay", "momentum", "smoothing", "warmup", "eta"}
MAY_BE_ZERO |= {"token_share", "angle_weight"}
MAY_BE_SEVERAL = {"shots"}
"""Numeric parameters for which 0 has a meaning."""


def known(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Those of the settings that the member has."""
    parameters = inspect.signature(registry.load("pretraining", name)).parameters
    return {key: value for key, value in settings.items() if key in parameters}


def tiny(name: str, **parameters: Any) -> Any:
    fixed = TINY_APART if name in APART else TINY
    return registry.load("pretraining", name)(**{**fixed, **known(name, WIDTHS), **parameters})


@functools.cache
def _kept(name: str, items: tuple[tuple[str, Any], ...]) -> Any:
    return tiny(name, **dict(items))


def copy_of(name: str, **parameters: Any) -> Any:
    """As `tiny`, in training mode; built once only."""
    return copy.deepcopy(_kept(name, tuple(parameters.items()))).train()


def batch(objective: Any, step: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    coarse = torch.randint(256, (4, 3, 5, 5), generator=generator).float()
    images = (
        torch.nn.functional.interpolate(coarse, (40, 40), mode="bilinear").to(torch.uint8).permute(0, 2, 3, 1)
    )
    return objective.prepare((images, torch.tensor([0, 1, 2, 0])), Position(step, 4 * step, 4))


both = pytest.mark.parametrize("spd", [False, True], ids=["plain", "spd"])
each = pytest.mark.parametrize("name", NAMES)


def test_every_objective_is_tested_here_or_elsewhere() -> None:
    assert {*NAMES, *APART} == {*ALL}
    for reason in APART.values():
        assert Path(__file__).parents[2].joinpath(reason.rpartition(" ")[2]).exists()


@each
def test_signature_and_words(name: str) -> None:
    cls = registry.load("pretraining", name)
    parameters = inspect.signature(cls).parameters
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values()), (
        "no **parameters, no positions"
    )
    assert tuple(parameters)[: len(SHARED)] == SHARED
    assert parameters["spd"].default is False
    assert SPDConfig().eta == 0.1
    assert registry.summary("pretraining", name)
    assert "Card." in inspect.getdoc(inspect.getmodule(cls))


@both
@each
def test_loss_log_and_gradients(name: str, spd: bool) -> None:
    objective = copy_of(name, spd=spd)
    prepared = batch(objective)
    assert ("positive" in prepared) == ("negative" in prepared) == spd
    terms = objective(prepared)
    assert {key for key in terms if key in (*SPD_NAMES, "loss_method")} <= (
        {*SPD_NAMES, "loss_method"} if spd else set()
    )
    for key, value in terms.items():
        assert value.shape == (), key
        assert torch.isfinite(value), key
    assert [
        key for key, value in terms.items() if value.requires_grad and key not in ("loss", "loss_spd")
    ] == []
    terms["loss"].backward()
    still = [key for key, value in objective.named_parameters() if value.requires_grad and value.grad is None]
    assert not still, f"no gradient for {still}"
    assert all(torch.isfinite(value.grad).all() for value in objective.parameters() if value.grad is not None)
    heads = {
        key.partition(".")[0]
        for key, value in objective.named_parameters()
        if value.grad is not None and value.grad.abs().sum() > 0
    }
    assert {
        child for child, net in objective.named_children() if any(p.requires_grad for p in net.parameters())
    } == heads
    first = next(objective.encoder.parameters())
    assert first.grad is not None
    assert first.grad.abs().sum() > 0
    for moving in ("key_encoder", "key_projector", "target_encoder", "target_projector"):
        for value in getattr(objective, moving, torch.nn.Identity()).parameters():
            assert not value.requires_grad
            assert value.grad is None


@each
def test_what_spd_adds(name: str) -> None:
    objective, plain = copy_of(name, spd=True), copy_of(name, spd=False)
    objective.spd = dataclasses.replace(objective.spd, eta=0.7)
    with torch.no_grad():
        terms, ordinary = (
            {key: float(value) for key, value in one(batch(one)).items()} for one in (objective, plain)
        )
    assert set(terms) > {"loss_spd", "loss_method"}
    assert terms["loss"] == pytest.approx(terms["loss_method"] + 0.7 * terms["loss_spd"], abs=1e-6)
    assert ordinary["loss"] == pytest.approx(terms["loss_method"], abs=1e-6), (
        "the method's own loss stays as it is"
    )
    assert "loss_spd" not in ordinary


@pytest.mark.parametrize("loss", ["cosine", "cross_entropy"])
@each
def test_spd_reaches_the_encoder_from_its_views(name: str, loss: str) -> None:
    objective = copy_of(name, spd=SPDConfig(loss=loss))
    prepared = {
        key: value.clone().requires_grad_() if value.is_floating_point() else value
        for key, value in batch(objective).items()
    }
    terms = objective(prepared)
    given = [prepared[key] for key in ("positive", "negative", "view1")]
    positive, negative, anchor = torch.autograd.grad(terms["loss_spd"], given, allow_unused=True)
    assert positive.abs().sum() > 0
    assert negative.abs().sum() > 0
    assert (anchor is not None and bool(anchor.abs().sum() > 0)) == (loss == "cosine"), (
        "a classifier of x+ and x- has no anchor"
    )
    assert ("spd_accuracy" in terms) == (loss == "cross_entropy")
    if loss == "cosine":
        assert terms["loss_spd"].item() == pytest.approx(
            float(terms["cos_negative"] - terms["cos_positive"]), abs=1e-6
        )


@each
def test_same_seed_same_weights_and_views(name: str) -> None:
    before = torch.random.get_rng_state()
    first, second, other = tiny(name, spd=True), copy_of(name, spd=True), tiny(name, spd=True, seed=2)
    assert torch.equal(torch.random.get_rng_state(), before), "torch's own generator is left alone"
    states = [objective.state_dict() for objective in (first, second, other)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert not torch.equal(*(next(iter(objective.encoder.parameters())) for objective in (first, other)))
    views = [batch(objective) for objective in (first, second, other)]
    for key, value in views[0].items():
        assert torch.equal(value, views[1][key])
        assert key == "labels" or not torch.equal(value, views[2][key]), key
    assert not torch.equal(batch(first)["view1"], batch(first, step=1)["view1"])


@each
def test_views_are_normalised_and_of_the_asked_size(name: str) -> None:
    objective = copy_of(name, spd=True)
    objective.size = 48
    for key, value in batch(objective).items():
        if key != "labels":
            assert value.shape == (4, 3, 48, 48)
            assert value.is_contiguous(memory_format=torch.channels_last)
            assert value.min() < 0 < value.max()
            assert value.abs().max() < 2.7


@both
@each
def test_a_batch_is_learned_by_heart(name: str, spd: bool) -> None:
    objective = copy_of(name, spd=spd)
    objective.learning_rate = RATES.get(name, 3.0)
    prepared, optimiser, losses = batch(objective), objective.optimiser(), []
    for _ in range(8):
        terms = objective(prepared)
        losses.append({key: float(value.detach()) for key, value in terms.items()})
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
    first, last = losses[0], losses[-1]
    assert last["loss"] < first["loss"] - 0.1 * abs(first["loss"]), [round(row["loss"], 3) for row in losses]


@each
def test_state_dict_round_trip(name: str) -> None:
    one, other = copy_of(name, spd=True), copy_of(name, spd=True)
    with torch.no_grad():
        for value in other.parameters():
            value.zero_()
    other.load_state_dict(one.state_dict())
    prepared = batch(one)
    with torch.no_grad():
        assert float(one(prepared)["loss"]) == float(other(prepared)["loss"])


@both
@each
@pytest.mark.slow
def test_it_writes_a_representation(name: str, spd: bool, tmp_path: Path) -> None:
    parameters = {**TINY, **known(name, WIDTHS), "stages": 3}
    out = pretrain(
        name,
        "procedural:3",
        tmp_path / "rep",
        steps=2,
        spd=spd,
        half=spd,
        device="cpu",
        precision="fp32",
        show=False,
        **parameters,
    )
    assert sorted(file.name for file in out.iterdir()) == sorted(
        [store.CARD, "log.jsonl", "recipe.json", store.WEIGHTS]
    )
    card = store.load_card(out)["representation"]
    assert [row["step"] for row in card["curve"]] == [2]
    assert card["recipe"]["parameters"]["spd"] is spd
    assert card["name"] == f"{name}{'+spd' if spd else ''}/resnet10t"
    if not spd:
        return
    net = kizu.representation(out)
    assert net.card["trained_on"] == ["procedural"]
    assert net.levels == (1, 2, 3)
    detector = kizu.detector("patchcore", str(out), image_size=64, coreset=0.2)
    assert detector.representation.levels == (2, 3), "its own choice"
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert torch.isfinite(detector.fit(images).predict(images).score).all()


@each
def test_misuse(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="size is a whole number from 32 on, got 16"):
        tiny(name, size=16)
    with pytest.raises(UsageError, match="batch_size is a whole number from 2 on, got 1"):
        tiny(name, batch_size=1)
    for spd in (1, "cosine", None, {"eta": 0.1}):
        with pytest.raises(UsageError, match=r"spd is True, False or SPDConfig"):
            tiny(name, spd=spd)
    with pytest.raises(UnknownParameter, match="Did you mean 'backbone'"):
        pretrain(name, "procedural", tmp_path / "rep", steps=1, backbon="resnet18")
    objective = copy_of(name, spd=False)
    with pytest.raises(UsageError, match="There are 3 images, a batch has 4"):
        objective.check_data(3, 3)
    with pytest.raises(UsageError, match="2 images at a time"):
        objective.prepare(
            (torch.zeros(1, 40, 40, 3, dtype=torch.uint8), torch.tensor([0])), Position(0, 0, 1)
        )


def numeric(cls: type) -> list[tuple[str, bool]]:
    """(name, whole) of the constructor's numeric parameters, from its type hints."""
    hints = typing.get_type_hints(cls)
    kinds = {key: (hints[key], *typing.get_args(hints[key])) for key in inspect.signature(cls).parameters}
    return [(key, int in kind) for key, kind in kinds.items() if int in kind or float in kind]


NUMERIC = [
    pytest.param(name, key, whole, id=f"{name}-{key}")
    for name in ALL
    for key, whole in numeric(registry.load("pretraining", name))
]


@pytest.mark.parametrize(("name", "key", "whole"), NUMERIC)
def test_nonsense_numbers_are_refused_by_name(name: str, key: str, whole: bool) -> None:
    nonsense: list[Any] = [float("nan"), float("inf"), -1, True, "3"]
    nonsense += [] if key in MAY_BE_SEVERAL else [[3]]
    nonsense += [2.5] if whole else []
    nonsense += [] if key in MAY_BE_ZERO else [0]
    for value in nonsense:
        with pytest.raises(UsageError, match=rf"\b{key}\b|two classes") as said:
            tiny(name, **{key: value})
        assert "got" in str(said.value)


def test_every_objective_has_numbers_to_check() -> None:
    assert len(NUMERIC) > 7 * len(NAMES)
    assert {"size", "learning_rate"} <= {param.values[1] for param in NUMERIC}


@pytest.mark.parametrize(("key", "whole"), numeric(SPDConfig))
def test_nonsense_numbers_of_spd(key: str, whole: bool) -> None:
    for value in (float("nan"), float("inf"), -0.1, True, "1", *([] if key in MAY_BE_ZERO else [0.0])):
        with pytest.raises(UsageError, match=f"SPD's {key} is a finite number"):
            SPDConfig(**{key: value})
    with pytest.raises(UsageError, match=r"SPD's share is a finite number, above 0 and at most 1; got 1\.5"):
        SPDConfig(share=1.5)


@pytest.mark.parametrize(
    ("key", "near"),
    [("perturbation", "cutpaste"), ("loss", "cosine"), ("anchor", "view"), ("forward", "joint")],
)
def test_unknown_words_of_spd(key: str, near: str) -> None:
    with pytest.raises(UnknownName, match=f"Did you mean '{near}'"):
        SPDConfig(**{key: f"{near}x"})
    with pytest.raises(UnknownName):
        SPDConfig(**{key: 3})


def test_the_default_spd_loss_is_the_objectives() -> None:
    for name in NAMES:
        due = "cross_entropy" if name == "supervised" else "cosine"
        assert copy_of(name, spd=True).spd == SPDConfig(loss=due)
        assert copy_of(name, spd=SPDConfig(eta=0.3)).spd == SPDConfig(eta=0.3, loss=due)
        assert copy_of(name, spd=SPDConfig(loss="cosine")).spd.loss == "cosine"
