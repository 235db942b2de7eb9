"""The two halves of a transformer layer on tokens (B, P, C): attention whose keys and values may be kept, and
an MLP that may have a gate. No layer norm: who builds a layer decides. `attend` is the attention itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

EXPANSION, REDUCTION = 4, 4
"""Hidden units of the MLP, of C; those of its gate, C by this number."""


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    heads: int,
    *,
    allowed: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """softmax(q k^T / sqrt(C / heads)) v in each head: queries (B, P, C), keys and values (B, N, C) -> (B, P,
    C). allowed: (P, N) bool, who may attend to whom; None: all to all. dropout: share of the weights that is
    left out.

    Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.2.2.

    >>> attend(torch.zeros(1, 1, 2), torch.zeros(1, 3, 2), torch.eye(3, 2)[None], heads=1)
    tensor([[[0.3333, 0.3333]]])
    """
    q, k, v = (rows.unflatten(2, (heads, -1)).transpose(1, 2) for rows in (queries, keys, values))
    attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)
    return attended.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al., NeurIPS 2017, section 3.2.2) with biases, without dropout.

    channels: C, a multiple of heads. Computes in the type of its weights and gives the type of the tokens."""

    kept_keys: Tensor | None
    kept_values: Tensor | None

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.out = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.key: nn.Module = nn.Linear(channels, channels)
        self.value: nn.Module = nn.Linear(channels, channels)
        for layer in (self.query, self.key, self.value):  # as torch draws the three: one (3 C, C) matrix
            nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(1 / 2))
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.zeros_(layer.bias)
        self.register_buffer("kept_keys", None, persistent=False)
        self.register_buffer("kept_values", None, persistent=False)

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """tokens (B, P, C) attend to context (B or 1, N, C), or to what was kept -> (B, P, C).

        A context that all images share is attended to by the tokens of all images at once."""
        dtype = self.out.weight.dtype
        if self.kept_keys is not None and self.kept_values is not None:
            keys, values = self.kept_keys, self.kept_values
        elif context is not None:
            keys, values = self._keys_values(context.to(dtype))
        else:
            raise RuntimeError("Attention needs a context, or one that was kept.")
        rows = tokens.reshape(1, -1, tokens.shape[2]) if len(keys) == 1 else tokens
        attended = attend(self.query(rows.to(dtype)), keys, values, self.heads)
        return self.out(attended.reshape(tokens.shape)).to(tokens.dtype)

    @torch.no_grad()
    def keep(self, context: Tensor) -> None:
        """Attend to this context (1, N, C) from now on: its keys and values are computed once, and the layers
        that made them are dropped."""
        self.kept_keys, self.kept_values = self._keys_values(context)
        self.key = self.value = nn.Identity()

    def _keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Both (B or 1, N, C)."""
        return self.key(context), self.value(context)


class MLP(nn.Module):
    """(B, P, C) -> 4 C hidden units, GELU -> (B, P, C). gate: with squeeze-excitation (Hu et al., CVPR 2018)
    of the hidden units before GELU: each is scaled by what its mean over the P tokens of the image says."""

    def __init__(self, channels: int, *, gate: bool) -> None:
        super().__init__()
        hidden, squeezed = EXPANSION * channels, max(channels // REDUCTION, 1)
        self.expand, self.reduce = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.gate: nn.Module | None = None
        if gate:
            self.gate = nn.Sequential(
                nn.Linear(hidden, squeezed), nn.ReLU(), nn.Linear(squeezed, hidden), nn.Sigmoid()
            )

    def forward(self, tokens: Tensor) -> Tensor:
        """Token by token, but for the gate. Computes in the type of its weights and gives that of the
        tokens."""
        hidden = self.expand(tokens.to(self.expand.weight.dtype))
        if self.gate is not None:
            hidden = hidden * self.gate(hidden.mean(dim=1, keepdim=True))
        return self.reduce(functional.gelu(hidden)).to(tokens.dtype)
