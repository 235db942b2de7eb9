"""Projected features and projectors on disk: over every base, saved and opened, tied to the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import kizu
from kizu import engine, store
from kizu.errors import ModelFileError, OutputExists, ShapeError, UsageError
from kizu.evaluation.seen import seen_digests
from kizu.neighbours.matching import leave_one_out
from kizu.nn.projector import KINDS, Projector
from kizu.representations.base import Representation
from kizu.representations.projected import (
    Projected,
    check_base,
    describe_base,
    open_projector,
    save_projector,
)
from kizu.representations.residual import Residual
from kizu.representations.sources import open_representation, save_representation
from kizu.representations.stacked import Stacked

SEEN = ["0" * 31 + "a", "0" * 31 + "b"]


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def residual_of(base: Representation, shots: int = 2) -> Residual:
    levels = base.inference_copy("fp32", "cpu")(images(shots, 4))
    banks = [level.permute(0, 2, 3, 1).flatten(0, 2) for level in levels]
    return Residual(base, banks, card={"shots": shots})


@pytest.fixture(scope="module")
def bases() -> dict[str, Representation]:
    """Random weights, weights that are stored, residuals of each, and several at once."""
    nets = [open_representation(name).eval() for name in ("random/test_resnet@1,2", "kizu/starter@2,3")]
    return {
        "random": nets[0],
        "starter": nets[1],
        "residual": residual_of(nets[0]),
        "starter residual": residual_of(nets[1]),
        "stacked": Stacked([nets[0], residual_of(nets[1])]),
    }


def projector_for(base: Representation, kind: str = "learnable_key_value") -> Projector:
    given = {"references": 9} if kind == "learnable_key_value" else {}
    with engine.seeded(1):
        return Projector(base.channels, kind=kind, **given)


def card_of(base: Representation) -> dict[str, Any]:
    return {"base": describe_base(base), "images_seen": SEEN, "data": ["made up"]}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["random", "starter", "residual", "starter residual", "stacked"])
def test_saved_and_opened_over_every_base(
    name: str, precision: str, bases: dict[str, Representation], tmp_path: Path
) -> None:
    net = Projected(bases[name], projector_for(bases[name]), card=card_of(bases[name]))
    again = kizu.representation(save_representation(net, tmp_path / "net.kizu"))
    assert isinstance(again, Projected)
    assert again.card["projector"] == net.card["projector"]
    expected, got = (one.inference_copy(precision, "cpu")(images(2, 7)) for one in (net, again))
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    assert all(level.dtype == torch.float32 and bool(level.isfinite().all()) for level in got)
    assert (again.channels, again.strides) == (net.channels, net.strides)
    assert again.reference_images == net.reference_images == bases[name].reference_images
    if name == "residual":
        assert again.offsets == net.offsets == bases["random"].offsets
        assert net.reference_images == 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_projector_after_the_base(kind: str, bases: dict[str, Representation], tmp_path: Path) -> None:
    base = bases["residual"]
    assert isinstance(base, Residual)
    projector = projector_for(base, kind)
    net = Projected(base, projector)
    levels = base.inference_copy("fp32", "cpu")(images(3))
    context = base.reference_residuals() if projector.needs_context else None
    with torch.no_grad():
        expected = projector(levels, context)
    for one in (net, kizu.representation(save_representation(net, tmp_path / "net"))):
        for a, b in zip(one.inference_copy("fp32", "cpu")(images(3)), expected, strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_with_one_thread_and_with_two(bases: dict[str, Representation]) -> None:
    net = Projected(bases["residual"], projector_for(bases["residual"])).inference_copy("fp32", "cpu")
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(net(images(8)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("matching", ["l2", "cosine"])
def test_residuals_of_the_references_by_brute_force(matching: str) -> None:
    bank = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    got = leave_one_out(bank, 3, matching)
    for row in range(12):
        others = [other for other in range(12) if other // 4 != row // 4]
        if matching == "l2":
            nearest = min(others, key=lambda other: float((bank[row] - bank[other]).norm()))
        else:
            unit = bank / bank.norm(dim=1, keepdim=True)
            nearest = max(others, key=lambda other: float(unit[row] @ unit[other]))
        assert torch.equal(got[row], bank[row] - bank[nearest])
    for count in (1, 5):
        with pytest.raises(UsageError, match="Take more shots"):
            leave_one_out(bank, count)


def test_a_projector_on_disk(bases: dict[str, Representation], tmp_path: Path) -> None:
    base = bases["random"]
    projector = projector_for(base)
    path = save_projector(tmp_path / "projector", projector, card_of(base))
    assert sorted(file.name for file in path.iterdir()) == [store.CARD, store.WEIGHTS]
    again, card = open_projector(path)
    assert card == {**card_of(base), "settings": projector.settings()}
    assert again.settings() == projector.settings()
    pairs = zip(projector.state_dict().items(), again.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
    check_base(card, base, path)
    net = Projected(residual_of(base), again, card=card)
    assert seen_digests(net.card) == set(SEEN)
    saved = kizu.representation(save_representation(net, tmp_path / "net.kizu"))
    check_base(saved.card["projector"], saved.unadapted, path)
    with pytest.raises(OutputExists):
        save_projector(path, projector, card_of(base))
    with pytest.raises(UsageError, match="base"):
        save_projector(tmp_path / "other", projector, {})
    with pytest.raises(ModelFileError, match="holds a projector"):
        kizu.representation(path)
    with pytest.raises(ModelFileError, match="not a projector"):
        open_projector(tmp_path / "net.kizu")


def test_it_is_tied_to_its_network(bases: dict[str, Representation]) -> None:
    card = card_of(bases["random"])
    others = {
        "random/test_resnet@2": "channels",
        "kizu/starter@2,3": "channels",
    }
    for name, field in others.items():
        with pytest.raises(
            UsageError, match=rf"in HERE was trained on random/test_resnet@1,2, .*{field}.*here is"
        ):
            check_base(card, open_representation(name), "HERE")
    other = open_representation("random/test_resnet@1,2", seed=1)
    with pytest.raises(UsageError, match=r"weights .* weights "):
        check_base(card, other, "HERE")
    with pytest.raises(UsageError, match=r"levels \[1, 3\]; here"):
        check_base({"base": {**card["base"], "levels": [1, 3]}}, bases["random"], "HERE")


SPOILT: list[tuple[str, Any]] = [
    ("references", 8),
    ("references", 2**40),
    ("channels", [16, 16]),
    ("channels", []),
    ("kind", "mlp"),
    ("heads", 5),
    ("depth", 2),
    ("depth", 10**6),
    ("gate", True),
    ("gate", 1),
    ("more", 1),
]


@pytest.mark.parametrize(("field", "value"), SPOILT)
def test_spoilt_settings_are_refused(
    field: str, value: Any, bases: dict[str, Representation], tmp_path: Path
) -> None:
    base = bases["random"]
    path = save_projector(tmp_path / "projector", projector_for(base), card_of(base))
    net = save_representation(Projected(base, projector_for(base)), tmp_path / "net")
    for where, opened in ((path, open_projector), (net, kizu.representation)):
        whole = json.loads((where / store.CARD).read_text("utf-8"))
        card = whole["projector"] if where == path else whole["representation"]["projector"]
        card["settings"][field] = value
        (where / store.CARD).write_text(json.dumps(whole), "utf-8")
        with pytest.raises(ModelFileError):
            opened(where)


def test_misuse_teaches(bases: dict[str, Representation]) -> None:
    base = bases["random"]
    with pytest.raises(ShapeError, match="The projector is for levels"):
        Projected(base, projector_for(bases["starter"]))
    with pytest.raises(UsageError, match="no fixed references"):
        Projected(base, projector_for(base, "cross_attention"))
    with pytest.raises(UsageError, match="Take more shots"):
        Projected(residual_of(base, shots=1), projector_for(base, "cross_attention"))
