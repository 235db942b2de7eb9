"""Neighbour-masked transformer layers: against loops in float64, torch's own layers, and what cannot reach
what."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from kizu.errors import UsageError
from kizu.nn.neighbour_attention import (
    EncoderLayer,
    GridPositions,
    MaskedAttention,
    NeighbourTransformer,
    QueryDecoderLayer,
    neighbour_mask,
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stirred(module: nn.Module, seed: int = 5) -> nn.Module:
    """In float64, for evaluation, every parameter drawn anew: no bias is zero, no scale one."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.double().parameters():
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module.eval()


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([0, 1, 3, 5, 7]))
def test_the_mask_by_its_definition(h: int, w: int, side: int) -> None:
    reach = side // 2
    cells = [(y, x) for y in range(h) for x in range(w)]
    expected = [
        [not (side and abs(y - v) <= reach and abs(x - u) <= reach) for v, u in cells] for y, x in cells
    ]
    if not all(any(row) for row in expected):
        with pytest.raises(UsageError, match=f"hides a grid of {h} x {w} "):
            neighbour_mask((h, w), side)
    else:
        assert neighbour_mask((h, w), side).tolist() == expected


def test_how_many_cells_seven_by_seven_hides() -> None:
    hidden = (~neighbour_mask((14, 14), 7)).sum(1)
    assert hidden[0] == 16, "a corner"
    assert hidden[7 * 14 + 7] == 49
    assert (hidden.min(), hidden.max()) == (16, 49)


@pytest.mark.parametrize("side", [-1, 2, 8])
def test_windows_without_a_middle_are_refused(side: int) -> None:
    with pytest.raises(UsageError, match="neighbourhood"):
        neighbour_mask((9, 9), side)


def test_positions_say_row_and_column() -> None:
    made = GridPositions((2, 3), 4)
    code = made().reshape(2, 3, 4)
    for y in range(2):
        for x in range(3):
            assert torch.equal(code[y, x], torch.cat([made.rows[y], made.columns[x]]))


def by_hand(made: MaskedAttention, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
    """Cell by cell and head by head: softmax over those that are allowed, of one image."""
    q, k, v = made.query(query), made.key(key), made.value(value)
    size = q.shape[1] // made.heads
    out = torch.zeros_like(q)
    for head in range(made.heads):
        part = slice(head * size, (head + 1) * size)
        for cell in range(len(q)):
            seen = allowed[cell].nonzero()[:, 0]
            weights = [math.exp(float(q[cell, part] @ k[other, part]) / math.sqrt(size)) for other in seen]
            for weight, other in zip(weights, seen, strict=True):
                out[cell, part] += weight / sum(weights) * v[other, part]
    return made.out(out)


@torch.no_grad()
def test_attention_by_loops_and_by_torch() -> None:
    allowed = neighbour_mask((3, 4), 3)
    made = stirred(MaskedAttention(6, 3, 0.5))
    query, key, value = drawn(2, 12, 6), drawn(2, 12, 6, seed=1), drawn(2, 12, 6, seed=2)
    got = made(query, key, value, allowed)
    for image in range(2):
        assert torch.allclose(got[image], by_hand(made, query[image], key[image], value[image], allowed))
    peer = nn.MultiheadAttention(6, 3, batch_first=True, dtype=torch.float64).eval()
    parts = (made.query, made.key, made.value)
    peer.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
    peer.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    peer.out_proj.load_state_dict(made.out.state_dict())
    assert torch.allclose(got, peer(query, key, value, attn_mask=~allowed)[0])


@torch.no_grad()
def test_an_encoder_layer_is_that_of_torch() -> None:
    """Without positions; with them queries and keys move, values do not."""
    allowed = neighbour_mask((3, 4), 3)
    made = stirred(EncoderLayer(6, heads=2, feedforward=10, dropout=0.3))
    peer = nn.TransformerEncoderLayer(6, 2, 10, 0.3, batch_first=True, dtype=torch.float64).eval()
    parts = (made.attention.query, made.attention.key, made.attention.value)
    peer.self_attn.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
    peer.self_attn.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    peer.self_attn.out_proj.load_state_dict(made.attention.out.state_dict())
    for mine, its in ((made.feedforward[0], peer.linear1), (made.feedforward[3], peer.linear2)):
        its.load_state_dict(mine.state_dict())
    for mine, its in zip(made.norms, (peer.norm1, peer.norm2), strict=True):
        its.load_state_dict(mine.state_dict())
    tokens, positions = drawn(2, 12, 6), drawn(12, 6, seed=3)
    assert torch.allclose(made(tokens, 0 * positions, allowed), peer(tokens, src_mask=~allowed))
    placed = tokens + positions
    attended = torch.stack(
        [by_hand(made.attention, at, at, what, allowed) for at, what in zip(placed, tokens, strict=True)]
    )
    middle = made.norms[0](tokens + attended)
    assert torch.allclose(made(tokens, positions, allowed), made.norms[1](middle + made.feedforward(middle)))


@torch.no_grad()
def test_a_decoder_layer_by_its_steps() -> None:
    """Own queries on the encoder's output, then on the layer before, then the feed-forward network."""
    allowed, positions = neighbour_mask((3, 4), 3), drawn(12, 6, seed=3)
    made = stirred(QueryDecoderLayer(12, 6, heads=2, feedforward=10, dropout=0.3))
    previous, memory = drawn(1, 12, 6), drawn(1, 12, 6, seed=4)
    first = by_hand(made.on_memory, made.queries + positions, memory[0] + positions, memory[0], allowed)
    tokens = made.norms[0](made.queries + first)
    second = by_hand(made.on_previous, tokens + positions, previous[0] + positions, previous[0], allowed)
    tokens = made.norms[1](tokens + second)
    expected = made.norms[2](tokens + made.feedforward(tokens))
    assert torch.allclose(made(previous, memory, positions, allowed)[0], expected)


def test_what_cannot_reach_what() -> None:
    """The gradient of a cell is zero exactly where the mask hides; an encoder's cell still has itself."""
    allowed, positions = neighbour_mask((3, 4), 3), drawn(12, 6, seed=3)
    encoder = stirred(EncoderLayer(6, heads=2, feedforward=10, dropout=0.0))
    decoder = stirred(QueryDecoderLayer(12, 6, heads=2, feedforward=10, dropout=0.0))
    other = drawn(1, 12, 6, seed=4)
    cases = {
        "encoder": (lambda x: encoder(x, positions, allowed), allowed | torch.eye(12, dtype=torch.bool)),
        "memory": (lambda x: decoder(other, x, positions, allowed), allowed),
        "previous": (lambda x: decoder(x, other, positions, allowed), allowed),
    }
    for name, (function, reached) in cases.items():
        gradient = torch.autograd.functional.jacobian(lambda x, f=function: f(x)[0], drawn(1, 12, 6))
        assert torch.equal(gradient[:, :, 0].abs().amax((1, 3)) > 0, reached), name


@torch.no_grad()
def test_the_layers_one_after_another() -> None:
    made = NeighbourTransformer(
        (3, 4), 6, neighbourhood=3, heads=2, feedforward=10, layers=(2, 3), dropout=0.0
    )
    stirred(made)
    memory, positions = drawn(1, 12, 6), made.positions()
    for layer in made.encoder:
        memory = layer(memory, positions, made.allowed)
    out = memory
    for layer in made.decoder:
        out = layer(out, memory, positions, made.allowed)
    assert torch.allclose(made(drawn(1, 12, 6)), made.norm(out))
    assert (len(made.encoder), len(made.decoder)) == (2, 3)
    assert not torch.equal(made.decoder[0].queries, made.decoder[1].queries)


def test_dropout_is_for_training() -> None:
    made = NeighbourTransformer(
        (3, 4), 6, neighbourhood=3, heads=2, feedforward=10, layers=(1, 1), dropout=0.5
    )
    tokens = drawn(1, 12, 6).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert not torch.equal(made(tokens), made(tokens))
        attention = MaskedAttention(6, 2, 0.5)  # of the weights as well
        assert not torch.equal(
            attention(tokens, tokens, tokens, made.allowed), attention(tokens, tokens, tokens, made.allowed)
        )
    made.eval()
    assert torch.equal(made(tokens), made(tokens))
    assert "allowed" not in made.state_dict(), "the mask follows from the parameters"
