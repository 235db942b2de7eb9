"""The feature projector of ADPretrain: one small network a level, features -> features of the same shapes.

Card. Paper: ADPretrain, NeurIPS 2025, section 3.3 (learnable key/value attention), table 2b (the other
kinds), app. E tables 11 and 12 (depth, number of references). Official code: xcyao00/ADPretrain (MIT);
nothing of it is used, facts of it are: 16 heads at widths of 768 to 1280, an MLP of 4 C hidden units, no
layer norm anywhere, references from N(0, 1) mapped by a linear layer with Kaiming weights, and the usual
initial weights of multi-head attention. Paper and code disagree: the code has a squeeze-excitation gate in
the MLP, the paper none: `gate`. Ours, where the paper is silent: the other kinds have no layer norm either;
"linear" and "mlp" have no skip connection; widths that 16 heads do not fit get fewer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kizu import checks
from kizu.errors import ShapeError, UnknownName, UsageError
from kizu.nn.attention import MLP, Attention
from kizu.types import FeatureMaps

KINDS = ("learnable_key_value", "linear", "mlp", "self_attention", "cross_attention", "self_cross")
ATTENTIONS = {
    "learnable_key_value": ("learned",),
    "self_attention": ("self",),
    "cross_attention": ("cross",),
    "self_cross": ("self", "cross"),
}
"""Which attentions a layer of each kind has, in their order."""
WITH_CONTEXT = ("cross_attention", "self_cross")
"""Kinds that attend to residual features of the reference images, and so need them."""
HEADS, HEAD_WIDTH = 16, 16
"""Most heads where none are named, and the fewest channels a head then has."""
REFERENCES = 2048


class Layer(nn.Module):
    """Attentions and an MLP, each around a skip connection. names: some of "learned", "self" and "cross";
    what is learned is subtracted (section 3.3), the others are added as in every transformer."""

    def __init__(self, channels: int, names: Sequence[str], heads: int, *, gate: bool) -> None:
        super().__init__()
        self.attentions = nn.ModuleDict({name: Attention(channels, heads) for name in names})
        self.mlp = MLP(channels, gate=gate)

    def forward(self, tokens: Tensor, context: Tensor | None) -> Tensor:
        """tokens (B, P, C), context (B or 1, N, C): the mapped references, or other features."""
        for name, attention in self.attentions.items():
            attended = attention(tokens, tokens if name == "self" else context)
            tokens = tokens - attended if name == "learned" else tokens + attended
        outputs: Tensor = tokens + self.mlp(tokens)
        return outputs


class LevelProjector(nn.Module):
    """The projector of one level of C channels, on tokens; `Projector` has one a level."""

    references: nn.Parameter | None

    def __init__(self, channels: int, kind: str, references: int, heads: int, gate: bool, depth: int) -> None:
        super().__init__()
        self.references = None
        if kind == "learnable_key_value":
            self.references = nn.Parameter(torch.randn(1, references, channels))
            self.map = nn.Linear(channels, channels)
            nn.init.kaiming_normal_(self.map.weight)
            nn.init.zeros_(self.map.bias)
        names = ATTENTIONS.get(kind, ())
        self.layers = nn.ModuleList(
            Layer(channels, names, heads, gate=gate) for _ in range(depth if names else 0)
        )
        self.alone: nn.Module | None = None
        if not names:
            linear = kind == "linear"
            self.alone = nn.Linear(channels, channels) if linear else MLP(channels, gate=gate)

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """tokens (B, P, C), context (B or 1, N, C) -> (B, P, C), in the type of the tokens."""
        if self.alone is not None:
            dtype = next(self.alone.parameters()).dtype
            projected: Tensor = self.alone(tokens.to(dtype))
            return projected.to(tokens.dtype)
        if self.references is not None:
            context = self.map(self.references)
        for layer in self.layers:
            tokens = layer(tokens, context)
        return tokens

    def keep_keys_and_values(self) -> None:
        """Compute what does not depend on the input, once, and drop what it was made of."""
        if self.references is None:
            return
        mapped = self.map(self.references)
        for module in self.layers.modules():
            if isinstance(module, Attention):
                module.keep(mapped)
        self.references = None
        del self.map


class Projector(nn.Module):
    """[(B, C_l, h_l, w_l)] -> the same shapes, an independent module for each level (section 3.3).

    Weights are drawn from torch's generator (`kizu.engine.seeded`) and are float32.

    channels: C_l of each level. kind: "learnable_key_value" is y = x - MHA(x, R, R), y + MLP(y), where R are
    `references` learned vectors, mapped linearly; or one of table 2b: "linear" (W x + b), "mlp",
    "self_attention", "cross_attention" and "self_cross", with additions for the subtraction; the last two
    attend to residual features of the reference images. heads: of each attention, a divisor of every C_l;
    None takes the most, up to 16, that divide C_l and have at least 16 channels each. gate:
    squeeze-excitation in the MLP. depth: layers of attention and MLP; all of a level share one R.

    Raises UsageError, UnknownName for values out of range.

    >>> projector = Projector((8, 16), references=4)
    >>> [tuple(level.shape) for level in projector([torch.zeros(1, 8, 4, 4), torch.zeros(1, 16, 2, 2)])]
    [(1, 8, 4, 4), (1, 16, 2, 2)]
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        kind: str = "learnable_key_value",
        references: int = REFERENCES,
        heads: int | None = None,
        gate: bool = False,
        depth: int = 1,
    ) -> None:
        super().__init__()
        widths = tuple(channels)
        check_parameters(widths, kind=kind, references=references, heads=heads, gate=gate, depth=depth)
        self.channels, self.kind, self.gate, self.depth = widths, kind, gate, depth
        self.reference_vectors, self.heads = references, heads
        self.levels = nn.ModuleList(
            LevelProjector(width, kind, references, heads or heads_for(width), gate, depth)
            for width in widths
        )

    def each(self) -> list[LevelProjector]:
        """The networks of the levels."""
        return [level for level in self.levels if isinstance(level, LevelProjector)]

    @property
    def needs_context(self) -> bool:
        """Whether it attends to residual features of the reference images."""
        return self.kind in WITH_CONTEXT

    def forward(self, features: FeatureMaps, context: Sequence[Tensor] | None = None) -> FeatureMaps:
        """[(B, C_l, h_l, w_l)] -> the same shapes and types. context: residual features of the reference
        images, (N_l, C_l) a level or (B, N_l, C_l) with its own for each image; where `needs_context`, and
        nowhere else. Raises ShapeError, UsageError."""
        widths = tuple(level.shape[1] if level.ndim == 4 else 0 for level in features)
        if widths != self.channels:
            shapes = [tuple(level.shape) for level in features]
            raise ShapeError(f"The projector is for levels (B, C, h, w) of C {self.channels}, got {shapes}.")
        if (context is not None) != self.needs_context:
            say = "needs" if self.needs_context else "takes no"
            raise UsageError(f"A projector of kind {self.kind!r} {say} context (features of the references).")
        contexts = [None] * len(features) if context is None else list(context)
        return [
            _on_map(network, level, rows)
            for network, level, rows in zip(self.each(), features, contexts, strict=True)
        ]

    def settings(self) -> dict[str, Any]:
        """Plain JSON values: `Projector(**settings)` builds it again."""
        return {
            "channels": list(self.channels),
            "kind": self.kind,
            "references": self.reference_vectors,
            "heads": self.heads,
            "gate": self.gate,
            "depth": self.depth,
        }

    def for_inference(self, dtype: torch.dtype, device: torch.device) -> Projector:
        """A copy in evaluation mode there; keys and values of the learned references are computed once, in
        float32. Layers compute in `dtype`; what is carried from layer to layer has the features' type."""
        twin = copy.deepcopy(self).eval().requires_grad_(False)
        for level in twin.each():
            level.keep_keys_and_values()
        return twin.to(device, dtype)


def check_parameters(
    channels: tuple[int, ...], *, kind: str, references: int, heads: int | None, gate: bool, depth: int
) -> None:
    """Raise UsageError, UnknownName for what no projector has, and for what has no effect in that kind."""
    if kind not in KINDS:
        raise UnknownName("kind", str(kind), KINDS)
    if not channels:
        raise UsageError("A projector has at least one level; channels is empty.")
    for width in channels:
        checks.whole_numbers(channels=width)
    checks.whole_numbers(references=references, depth=depth)
    checks.whole_numbers(none=True, heads=heads)
    checks.switches(gate=gate)
    mode = f"with kind={kind!r}"
    if kind != "learnable_key_value":
        checks.without_effect(mode, references=(references, REFERENCES))
    if kind not in ATTENTIONS:
        checks.without_effect(mode, heads=(heads, None), depth=(depth, 1))
    if kind == "linear":
        checks.without_effect(mode, gate=(gate, False))
    odd = [width for width in channels if width % (heads or 1)]
    if odd:
        raise UsageError(
            f"heads={heads} does not divide the widths {odd} of the levels: take a divisor of all, or None."
        )


def heads_for(channels: int) -> int:
    """How many heads a level of that width gets where none are named.

    >>> [heads_for(width) for width in (24, 40, 112, 768, 1280)]
    [1, 2, 7, 16, 16]
    """
    fitting = [heads for heads in range(1, HEADS + 1) if channels % heads == 0]
    return max(heads for heads in fitting if heads == 1 or channels // heads >= HEAD_WIDTH)


def _on_map(network: nn.Module, level: Tensor, context: Tensor | None) -> Tensor:
    """A level's network on its map (B, C, h, w)."""
    if context is not None and context.ndim == 2:
        context = context.unsqueeze(0)
    tokens = network(level.flatten(2).transpose(1, 2), context)
    projected: Tensor = tokens.transpose(1, 2).reshape(level.shape)
    return projected
