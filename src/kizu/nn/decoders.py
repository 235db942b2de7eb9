"""The mirrored decoder: from the one-class embedding back up to every level's features, and the twin
projections on top."""

from __future__ import annotations

from torch import Tensor, nn

from kizu.nn.mirror import DecoderSpec
from kizu.nn.residual import ResidualBlock
from kizu.types import FeatureMaps


class MirroredDecoder(nn.Module):
    """(B, width, h, w) -> [(B, C_l, h_l, w_l)], finest first, at the sizes of `like`.

    Stages of residual blocks of the encoder's kind; each stage's first block goes up by a transposed
    convolution (Deng and Li, CVPR 2022, section 3.3). width: channels of the embedding, 2 C_L unless given.
    blocks "code": the coarsest level gets as many blocks as the encoder's finest (3, 4, 6 from the top of
    Wide ResNet-50), as in the released code, with which the published sizes agree; "mirrored": 6, 4, 3, each
    level as many as in the encoder. The last block of each level is linear where features are signed.
    What doubling overshoots, where a grid's side is odd, is cut off."""

    def __init__(self, plan: DecoderSpec, *, blocks: str = "code", width: int | None = None) -> None:
        super().__init__()
        counts = plan.blocks if blocks == "code" else plan.blocks[::-1]
        self.entries, self.rests = nn.ModuleList(), nn.ModuleList()
        source, stride = width or 2 * plan.channels[-1], 2 * plan.strides[-1]
        for level, count in zip(reversed(range(len(plan.channels))), counts, strict=True):
            width, inner = plan.channels[level], plan.inner(plan.channels[level])
            linear = [plan.signed and block == count - 1 for block in range(count)]
            up = stride // plan.strides[level]
            self.entries.append(ResidualBlock(source, width, inner=inner, up=up, linear=linear[0]))
            rest = (ResidualBlock(width, width, inner=inner, linear=last) for last in linear[1:])
            self.rests.append(nn.Sequential(*rest))
            source, stride = width, plan.strides[level]

    def forward(self, embedding: Tensor, like: FeatureMaps) -> FeatureMaps:
        """Of `like` only the grids' sizes count."""
        found, x = [], embedding
        for entry, rest, level in zip(self.entries, self.rests, reversed(like), strict=True):
            x = rest(entry(x)[:, :, : level.shape[2], : level.shape[3]])
            found.append(x)
        return found[::-1]


class TwinProjections(nn.Module):
    """Two sets of 1x1 convolutions with bias, one convolution a level each (Guo et al., NeurIPS 2023,
    appendix C).

    first: rebuilds the frozen encoder's features; second: the trained encoder's.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Conv2d(width, width, 1) for width in channels)
        self.second = nn.ModuleList(nn.Conv2d(width, width, 1) for width in channels)

    def forward(self, decoded: FeatureMaps) -> tuple[FeatureMaps, FeatureMaps]:
        """[(2B, C_l, h_l, w_l)] -> first half of the batch through `first`, second half through `second`; B
        each."""
        halves = [level.chunk(2) for level in decoded]
        return (
            [project(half[0]) for project, half in zip(self.first, halves, strict=True)],
            [project(half[1]) for project, half in zip(self.second, halves, strict=True)],
        )
