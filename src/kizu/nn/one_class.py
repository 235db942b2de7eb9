"""The one-class bottleneck: all levels on the coarsest grid, then residual blocks down to one compact
embedding.

Deng and Li, Anomaly Detection via Reverse Distillation, CVPR 2022, section 3.3: multi-scale feature fusion
(MFF) by strided 3x3 convolutions, one-class embedding (OCE) by a copy of the encoder's fourth stage that
takes all levels. The released code carries an unused 1x1 convolution with batch norm beside it (4 C_L to 2
C_L channels); it is not built here."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from kizu.nn.mirror import DecoderSpec
from kizu.nn.residual import ResidualBlock, conv_norm
from kizu.types import FeatureMaps


class OneClassEmbedding(nn.Module):
    """[(B, C_l, h_l, w_l)] -> (B, width, ceil(h_L / 2), ceil(w_L / 2)).

    width: 2 C_L unless given, as the encoder's fourth stage. Residual blocks of the encoder's kind, the first
    of stride 2; as many as the encoder's first stage has, which is what the fourth has in all ResNets of the
    literature (2 in ResNet-18, 3 in ResNet-50)."""

    def __init__(self, plan: DecoderSpec, width: int | None = None) -> None:
        super().__init__()
        self.fusion = nn.ModuleList(_descent(plan, level) for level in range(len(plan.channels)))
        self.width = width = width or 2 * plan.channels[-1]
        inner = plan.inner(width)
        entry = sum(_descent_width(plan, level) for level in range(len(plan.channels)))
        blocks = [ResidualBlock(entry, width, inner=inner, down=2)]
        blocks += [ResidualBlock(width, width, inner=inner) for _ in range(plan.blocks[0] - 1)]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, features: FeatureMaps) -> Tensor:
        """Fuse and embed; the levels' grids must halve by rounding up, as those of networks with padded
        convolutions do."""
        fused = torch.cat([down(level) for down, level in zip(self.fusion, features, strict=True)], dim=1)
        out: Tensor = self.blocks(fused)
        return out


def _descent(plan: DecoderSpec, level: int) -> nn.Sequential:
    """Strided 3x3 convolutions from a level's grid to the coarsest, widening as the encoder does."""
    steps: list[nn.Module] = []
    widths = _widths(plan, level)
    for source, target in itertools.pairwise(widths):
        steps += [
            *conv_norm(nn.Conv2d(source, target, 3, stride=2, padding=1, bias=False)),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*steps)


def _descent_width(plan: DecoderSpec, level: int) -> int:
    return _widths(plan, level)[-1]


def _widths(plan: DecoderSpec, level: int) -> list[int]:
    """Widths after each halving: the width of the level that has that stride, else the one before."""
    of_stride = dict(zip(plan.strides, plan.channels, strict=True))
    widths, stride = [plan.channels[level]], plan.strides[level]
    while stride < plan.strides[-1]:
        stride *= 2
        widths.append(of_stride.get(stride, widths[-1]))
    return widths
