"""The projector: attention by hand in float64, the paper's and the released code's numbers of parameters."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kizu import engine
from kizu.errors import ShapeError, UnknownName, UsageError
from kizu.nn.attention import MLP
from kizu.nn.projector import KINDS, LevelProjector, Projector, heads_for

WIDTHS = (12, 8)
CPU = torch.device("cpu")


def drawn(kind: str = "learnable_key_value", *, seed: int = 0, **given: Any) -> Projector:
    small = {"references": 7} if kind == "learnable_key_value" else {}
    with engine.seeded(seed):
        projector = Projector(WIDTHS, kind=kind, **small, **given)
        for parameter in projector.parameters():  # biases begin at zero
            nn.init.normal_(parameter, std=0.3)
    return projector.requires_grad_(False)


def features(batch: int = 3, seed: int = 1) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, C, side, 5, generator=draw) for C, side in zip(WIDTHS, (4, 2), strict=True)]


def context(seed: int = 2, *batch: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(*batch, 6, C, generator=draw) for C in WIDTHS]


def context_of(projector: Projector) -> list[Tensor] | None:
    return context() if projector.needs_context else None


def weights_of(projector: Projector, level: int) -> dict[str, Tensor]:
    start = f"levels.{level}."
    state = projector.state_dict().items()
    return {name.removeprefix(start): value.double() for name, value in state if name.startswith(start)}


def linear(w: dict[str, Tensor], name: str, rows: Tensor) -> Tensor:
    return torch.stack([w[f"{name}.weight"] @ row + w[f"{name}.bias"] for row in rows])


def attended(w: dict[str, Tensor], name: str, rows: Tensor, others: Tensor, heads: int) -> Tensor:
    """softmax(q k / sqrt d) v, head by head and token by token."""
    queries, keys, values = (
        linear(w, f"{name}.{part}", source)
        for part, source in (("query", rows), ("key", others), ("value", others))
    )
    width = rows.shape[1] // heads
    joined = torch.zeros_like(queries)
    for token in range(len(rows)):
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            products = [float(queries[token, own] @ key[own]) / math.sqrt(width) for key in keys]
            shares = [math.exp(product) for product in products]
            for share, value in zip(shares, values, strict=True):
                joined[token, own] += share / sum(shares) * value[own]
    return linear(w, f"{name}.out", joined)


def mlp(w: dict[str, Tensor], name: str, rows: Tensor) -> Tensor:
    hidden = linear(w, f"{name}.expand", rows)
    if f"{name}.gate.0.weight" in w:
        squeezed = linear(w, f"{name}.gate.0", hidden.mean(0)[None]).clamp_min(0)
        hidden = hidden / (1 + torch.exp(-linear(w, f"{name}.gate.2", squeezed)))
    gelu = hidden / 2 * (1 + torch.erf(hidden / math.sqrt(2)))
    return linear(w, f"{name}.reduce", gelu)


def by_hand(projector: Projector, level: int, image: Tensor, others: Tensor | None) -> Tensor:
    """One image's level (C, h, w), as the paper writes it, in float64."""
    w, heads = weights_of(projector, level), projector.heads or heads_for(image.shape[0])
    rows = image.double().flatten(1).T
    if projector.kind == "linear":
        return linear(w, "alone", rows).T.view(image.shape)
    if projector.kind == "mlp":
        return mlp(w, "alone", rows).T.view(image.shape)
    learned = linear(w, "map", w["references"][0]) if projector.kind == "learnable_key_value" else None
    for number in range(projector.depth):
        layer = f"layers.{number}"
        if learned is not None:
            rows = rows - attended(w, f"{layer}.attentions.learned", rows, learned, heads)
        if projector.kind in ("self_attention", "self_cross"):
            rows = rows + attended(w, f"{layer}.attentions.self", rows, rows, heads)
        if projector.kind in ("cross_attention", "self_cross"):
            assert others is not None
            rows = rows + attended(w, f"{layer}.attentions.cross", rows, others.double(), heads)
        rows = rows + mlp(w, f"{layer}.mlp", rows)
    return rows.T.view(image.shape)


CASES: list[tuple[str, dict[str, Any]]] = [
    *[(kind, {}) for kind in KINDS],
    ("learnable_key_value", {"gate": True}),
    ("learnable_key_value", {"depth": 2, "heads": 4}),
    ("self_cross", {"heads": 2, "gate": True}),
]


@pytest.mark.parametrize(("kind", "given"), CASES)
def test_as_written_out_by_hand(kind: str, given: dict[str, Any]) -> None:
    projector, maps = drawn(kind, **given), features(2)
    others = context_of(projector)
    for level, projected in enumerate(projector(maps, others)):
        assert projected.shape == maps[level].shape
        for image in range(2):
            rows = None if others is None else others[level]
            expected = by_hand(projector, level, maps[level][image], rows)
            assert torch.allclose(projected[image].double(), expected, rtol=1e-4, atol=1e-4)


def test_each_image_may_have_its_own_context() -> None:
    projector, maps, others = drawn("cross_attention"), features(3), context(5, 3)
    together = projector(maps, others)
    for image in range(3):
        alone = projector([level[image : image + 1] for level in maps], [rows[image] for rows in others])
        assert all(torch.allclose(a[image], b[0], atol=1e-5) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("gate", [False, True])
def test_tokens_depend_on_each_other_through_the_gate_only(gate: bool) -> None:
    projector, maps = drawn(gate=gate), features(1)
    changed = [level.clone() for level in maps]
    for level in changed:
        level[..., 1:] += 1
    for before, after in zip(projector(maps), projector(changed), strict=True):
        assert torch.allclose(before[..., 0], after[..., 0], atol=1e-6) == (not gate)


@pytest.mark.parametrize("kind", KINDS)
def test_images_do_not_depend_on_each_other(kind: str) -> None:
    projector, maps = drawn(kind, **({} if kind == "linear" else {"gate": True})), features(3)
    others = context_of(projector)
    together = projector(maps, others)
    for image in range(3):
        alone = projector([level[image : image + 1] for level in maps], others)
        assert all(torch.allclose(a[image], b[0], atol=1e-5) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_inference_copy(kind: str) -> None:
    """Keys and values computed once change nothing; bf16 moves features by its rounding."""
    projector, maps = drawn(kind), features()
    others = context_of(projector)
    exact = projector(maps, others)
    same = projector.for_inference(torch.float32, CPU)
    rounded = projector.for_inference(torch.bfloat16, CPU)(maps, others)
    for a, b, c in zip(exact, same(maps, others), rounded, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)
        assert c.dtype == torch.float32
        assert 0 < float((a - c).norm() / a.norm()) < 0.02
    kept = {name for name, _ in same.named_parameters()}
    assert not any("key" in name or "references" in name for name in kept) or kind != KINDS[0]
    assert all(torch.equal(a, b) for a, b in zip(exact, projector(maps, others), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_settings_and_weights_build_it_again(kind: str) -> None:
    given: dict[str, Any] = {"heads": 4, "depth": 2} if kind not in ("linear", "mlp") else {}
    projector, maps = drawn(kind, **given), features()
    again = Projector(**json.loads(json.dumps(projector.settings())))
    again.load_state_dict(projector.state_dict())
    others = context_of(projector)
    expected, got = projector(maps, others), again(maps, others)
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


def test_drawn_from_the_seed_and_near_the_identity_at_first() -> None:
    with engine.seeded(3):
        first = Projector((64,), references=256)
    with engine.seeded(3):
        same = Projector((64,), references=256)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    (level,) = first.levels
    assert isinstance(level, LevelProjector)
    assert level.references is not None
    assert float(level.references.detach().std()) == pytest.approx(1, abs=0.02)
    assert float(level.map.weight.detach().std()) == pytest.approx(math.sqrt(2 / 64), rel=0.05)
    features = torch.randn(2, 64, 4, 4, generator=torch.Generator().manual_seed(0))
    assert float((first([features])[0] - features).detach().norm() / features.norm()) < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_everything_gets_a_gradient(kind: str) -> None:
    projector = drawn(kind, gate=kind == "learnable_key_value").requires_grad_(True)
    sum(level.square().sum() for level in projector(features(), context_of(projector))).backward()
    still = [
        name
        for name, value in projector.named_parameters()
        if value.grad is None or float(value.grad.abs().max()) == 0
    ]
    assert all(name.endswith("key.bias") for name in still)  # shifts all products of a query alike


def four_levels(width: int, **given: Any) -> Projector:
    with torch.device("meta"):
        return Projector((width,) * 4, **given)


@pytest.mark.parametrize(
    ("width", "gated", "plain"),
    [
        (768, 41_724_672, 36_993_024),
        (1024, 71_361_536, 62_955_520),
        (1280, 108_862_720, 95_733_760),
    ],
)
def test_as_many_parameters_as_the_released_projectors(width: int, gated: int, plain: int) -> None:
    counts = [
        sum(value.numel() for value in four_levels(width, gate=gate).parameters()) for gate in (True, False)
    ]
    assert counts == [gated, plain]


def table_7(width: int, tokens: int) -> tuple[int, float]:
    """(parameters, 1e9 multiplications) as the paper counts: linear layers outside of the attention, for a
    batch of 32 and 256 references that are mapped anew for each image."""
    projector = four_levels(width, references=256)
    counted = {
        id(layer) for module in projector.modules() if isinstance(module, MLP) for layer in module.modules()
    } | {id(level.map) for level in projector.levels if isinstance(level, LevelProjector)}
    layers = [layer for layer in projector.modules() if isinstance(layer, nn.Linear) and id(layer) in counted]
    products = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        nonlocal products
        assert isinstance(layer, nn.Linear)
        repeated = 32 if inputs[0].shape[1] == 256 and len(inputs[0]) == 1 else 1
        products += repeated * outputs.numel() * layer.in_features

    for layer in layers:
        layer.register_forward_hook(count)
    with torch.device("meta"):
        projector([torch.empty(32, width, tokens, 1)] * 4)
    return sum(value.numel() for layer in layers for value in layer.parameters()), products / 1e9


@pytest.mark.parametrize(
    ("width", "tokens", "parameters", "published", "billions"),
    [
        (768, 196, 21_252_096, 21.3, 137.7),
        (1024, 256, 37_773_312, 37.8, 309.2),
        (1280, 256, 59_013_120, 59.0, 483.2),
    ],
)
def test_table_7_by_its_own_way_of_counting(
    width: int, tokens: int, parameters: int, published: float, billions: float
) -> None:
    found, products = table_7(width, tokens)
    assert found == parameters
    assert round(found / 1e6, 1) == published
    assert round(products, 1) == billions


def test_heads() -> None:
    assert [heads_for(width) for width in (768, 1024, 1280, 112, 40, 24, 16, 7)] == [
        16,
        16,
        16,
        7,
        2,
        1,
        1,
        1,
    ]
    for width in range(1, 200):
        heads = heads_for(width)
        assert width % heads == 0
        assert heads == 1 or width // heads >= 16


def test_misuse_teaches() -> None:
    with pytest.raises(UnknownName, match="learnable_key_value"):
        Projector(WIDTHS, kind="learned")
    with pytest.raises(UsageError, match="divisor of all"):
        Projector(WIDTHS, heads=3)
    with pytest.raises(UsageError, match="references has no effect with kind='mlp'"):
        Projector(WIDTHS, kind="mlp", references=5)
    with pytest.raises(UsageError, match="heads has no effect"):
        Projector(WIDTHS, kind="linear", heads=2)
    with pytest.raises(UsageError, match="depth has no effect"):
        Projector(WIDTHS, kind="mlp", depth=2)
    with pytest.raises(UsageError, match="gate has no effect"):
        Projector(WIDTHS, kind="linear", gate=True)
    with pytest.raises(UsageError, match="at least one level"):
        Projector(())
    for bad in ({"depth": 0}, {"references": 0}, {"heads": 0}, {"heads": True}, {"gate": 1}):
        with pytest.raises(UsageError, match=next(iter(bad))):
            Projector(WIDTHS, **bad)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"\(12, 8\)"):
        drawn()(features()[:1])
    with pytest.raises(UsageError, match="takes no context"):
        drawn()(features(), context())
    with pytest.raises(UsageError, match="needs context"):
        drawn("self_cross")(features())
