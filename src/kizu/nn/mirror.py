"""What a reconstruction network must know of the network whose features it rebuilds: widths, strides, kind
and number of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from kizu.errors import UsageError

PLAIN_BLOCKS = 2
"""Basic blocks a stage for networks that are no ResNets, as ResNet-18 has."""


@dataclass(frozen=True)
class DecoderSpec:
    """channels, strides: one number a level, finest first. blocks: residual blocks of each level's stage in
    the encoder. share: width of a bottleneck's 3x3 convolution over the stage's width (1/4 ResNet-50, 1/2
    Wide ResNet-50-2); 0: basic blocks. signed: the features have both signs, as those of linear bottlenecks
    (MobileNetV2, EfficientNet) and transformers; a ReLU at the end could not rebuild them."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    blocks: tuple[int, ...]
    share: float = 0.0
    signed: bool = False

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.strides) == len(self.blocks) > 0:
            raise UsageError(f"A plan has one width, stride and block count a level, got {self}.")
        for fine, coarse in zip(self.strides, self.strides[1:], strict=False):
            ratio, rest = divmod(coarse, fine)
            if rest or ratio & (ratio - 1) or ratio < 1:
                raise UsageError(
                    f"Levels are rebuilt by doubling the grid: strides {self.strides} are not powers of two "
                    "apart."
                )

    def inner(self, width: int) -> int:
        """Width of the 3x3 convolution in a block of `width`; 0 for basic blocks."""
        return round(width * self.share)


def decoder_spec(
    net: Any,
    levels: Sequence[int],
    channels: Sequence[int],
    strides: Sequence[int],
    *,
    signed: bool = False,
) -> DecoderSpec:
    """The plan of a ResNet's stages `layer1` ... `layer4`; any other network gets PLAIN_BLOCKS basic blocks a
    level. signed: whether its features have both signs."""
    stages = [getattr(net, f"layer{level}", None) for level in levels]
    widths, steps = tuple(int(width) for width in channels), tuple(int(stride) for stride in strides)
    if not all(isinstance(stage, nn.Sequential) and hasattr(stage[0], "conv2") for stage in stages):
        return DecoderSpec(widths, steps, (PLAIN_BLOCKS,) * len(widths), signed=signed)
    first: Any = stages[-1][0]  # type: ignore[index]
    deep = getattr(first, "conv3", None)
    share = first.conv2.out_channels / deep.out_channels if deep is not None else 0.0
    blocks = tuple(len(stage) for stage in stages)  # type: ignore[arg-type]
    return DecoderSpec(widths, steps, blocks, share, signed)
