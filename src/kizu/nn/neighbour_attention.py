"""Transformer layers in which a cell of a grid attends to all cells but its neighbours, so that it cannot be
copied.

Source: You et al., "A Unified Model for Multi-class Anomaly Detection", NeurIPS 2022 (neighbour masked
attention, layer-wise query decoder); the layers themselves are those of Vaswani et al., 2017, with the
normalisation after each sum. Tokens are (B, P, D), the P = h w cells of a grid row by row."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kizu.errors import UsageError
from kizu.nn.attention import attend


def neighbour_mask(grid: tuple[int, int], neighbourhood: int) -> Tensor:
    """(P, P) bool, P = h w: whether the cell of a row may attend to the cell of a column; it may not where
    that lies in the neighbourhood x neighbourhood window around it, itself in the middle.

    neighbourhood: odd side in cells; 0 hides nothing. Raises UsageError for an even side, and where the
    window around some cell covers the whole grid.

    >>> neighbour_mask((1, 4), 3).int().tolist()
    [[0, 0, 1, 1], [0, 0, 0, 1], [1, 0, 0, 0], [1, 1, 0, 0]]
    """
    if neighbourhood < 0 or (neighbourhood and neighbourhood % 2 == 0):
        raise UsageError(f"neighbourhood is an odd number of cells, or 0 for none; got {neighbourhood}.")
    reach = neighbourhood // 2 if neighbourhood else -1
    near = [(torch.arange(side)[:, None] - torch.arange(side)).abs() <= reach for side in grid]
    rows, columns = near  # (h, h), (w, w)
    both = rows[:, None, :, None] & columns[None, :, None, :]  # (h, w, h, w)
    allowed = ~both.reshape(grid[0] * grid[1], -1)
    if not bool(allowed.any(1).all()):
        raise UsageError(
            f"A neighbourhood of {neighbourhood} cells hides a grid of {grid[0]} x {grid[1]} from the cell "
            "in its middle: take larger images, a smaller stride or a smaller neighbourhood."
        )
    return allowed


class GridPositions(nn.Module):
    """Learned position code of each cell, (P, D): D/2 values of its row, then D/2 of its column.

    grid: (h, w). D: even. Drawn uniformly from [0, 1)."""

    def __init__(self, grid: tuple[int, int], D: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.rand(grid[0], D // 2))
        self.columns = nn.Parameter(torch.rand(grid[1], D // 2))

    def forward(self) -> Tensor:
        """(P, D)."""
        h, w = len(self.rows), len(self.columns)
        of_rows = self.rows[:, None].expand(h, w, -1)
        of_columns = self.columns[None].expand(h, w, -1)
        return torch.cat([of_rows, of_columns], dim=2).flatten(0, 1)


class MaskedAttention(nn.Module):
    """Attention with several heads (Vaswani et al., section 3.2.2): queries (B, P, D), keys and values
    (B, N, D) -> (B, P, D).

    D: a multiple of heads. dropout: share of the attention weights that a training step leaves out."""

    def __init__(self, D: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(D, D) for _ in range(4))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
        """allowed: (P, N) bool, who may attend to whom."""
        q, k, v = self.query(query), self.key(key), self.value(value)
        dropout = self.dropout if self.training else 0.0
        merged: Tensor = self.out(attend(q, k, v, self.heads, allowed=allowed, dropout=dropout))
        return merged


class FeedForward(nn.Sequential):
    """(B, P, D) -> same: linear, ReLU, dropout, linear; `hidden` values between."""

    def __init__(self, D: int, hidden: int, dropout: float) -> None:
        super().__init__(nn.Linear(D, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, D))


class EncoderLayer(nn.Module):
    """Tokens (B, P, D) -> same: attention among the tokens, then a feed-forward network, each added to its
    input and normalised."""

    def __init__(self, D: int, *, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.attention = MaskedAttention(D, heads, dropout)
        self.feedforward = FeedForward(D, feedforward, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(D) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, positions: Tensor, allowed: Tensor) -> Tensor:
        """positions: (P, D), added to queries and keys. allowed: (P, P) bool."""
        placed = tokens + positions
        tokens = self.norms[0](tokens + self.dropout(self.attention(placed, placed, tokens, allowed)))
        out: Tensor = self.norms[1](tokens + self.dropout(self.feedforward(tokens)))
        return out


class QueryDecoderLayer(nn.Module):
    """A decoder layer with learned queries of its own (UniAD's layer-wise query decoder).

    Its queries attend to the encoder's output, what comes of it attends to the previous layer's output, then
    a feed-forward network; each is added to its input and normalised. Queries do not attend to each other."""

    def __init__(self, P: int, D: int, *, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(P, D))
        self.on_memory = MaskedAttention(D, heads, dropout)
        self.on_previous = MaskedAttention(D, heads, dropout)
        self.feedforward = FeedForward(D, feedforward, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(D) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, previous: Tensor, memory: Tensor, positions: Tensor, allowed: Tensor) -> Tensor:
        """previous: output (B, P, D) of the layer before. memory: of the encoder, (B, P, D)."""
        tokens = self.queries.expand(len(memory), -1, -1)
        for norm, attention, seen in (
            (self.norms[0], self.on_memory, memory),
            (self.norms[1], self.on_previous, previous),
        ):
            attended = attention(tokens + positions, seen + positions, seen, allowed)
            tokens = norm(tokens + self.dropout(attended))
        out: Tensor = self.norms[2](tokens + self.dropout(self.feedforward(tokens)))
        return out


class NeighbourTransformer(nn.Module):
    """Tokens (B, P, D) of a grid -> same, rebuilt: encoder layers, then decoder layers with their own
    queries, no cell seeing its neighbours in any attention.

    The first decoder layer takes the encoder's output for that of the layer before. Linear layers are drawn
    uniformly (Xavier), their biases zero; queries from N(0, 1).

    grid: (h, w). layers: (of the encoder, of the decoder). Raises UsageError for a neighbourhood that hides
    everything."""

    def __init__(
        self,
        grid: tuple[int, int],
        D: int,
        *,
        neighbourhood: int,
        heads: int,
        feedforward: int,
        layers: tuple[int, int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.positions, P = GridPositions(grid, D), grid[0] * grid[1]
        self.encoder = nn.ModuleList(
            EncoderLayer(D, heads=heads, feedforward=feedforward, dropout=dropout) for _ in range(layers[0])
        )
        self.decoder = nn.ModuleList(
            QueryDecoderLayer(P, D, heads=heads, feedforward=feedforward, dropout=dropout)
            for _ in range(layers[1])
        )
        self.norm = nn.LayerNorm(D)
        self.allowed: Tensor
        with torch.device("cpu"):  # also where the network is built on "meta", for its shapes alone
            self.register_buffer("allowed", neighbour_mask(grid, neighbourhood), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Normalised at the end."""
        positions = self.positions()
        for layer in self.encoder:
            tokens = layer(tokens, positions, self.allowed)
        memory = tokens
        for layer in self.decoder:
            tokens = layer(tokens, memory, positions, self.allowed)
        out: Tensor = self.norm(tokens)
        return out
