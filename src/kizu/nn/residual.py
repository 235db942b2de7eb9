"""The residual blocks of ResNets, going down or up: the bricks of bottlenecks and decoders.

He et al., Deep Residual Learning, CVPR 2016, figure 5: basic (3x3, 3x3) and bottleneck (1x1, 3x3, 1x1). Going
up, a transposed convolution whose kernel is its stride takes the place of the strided 3x3 convolution (Deng
and Li, CVPR 2022, section 3.3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kizu.errors import UsageError


class ResidualBlock(nn.Module):
    """(B, source, h, w) -> (B, target, h', w').

    inner: width of the 3x3 convolution of a bottleneck block; 0 makes a basic block. down: h' = ceil(h /
    down); up: h' = h * up; one of the two is 1. The skip is a 1x1 convolution (down) or a transposed one (up)
    with batch norm, nothing when shapes agree. linear: without the last ReLU, for
    features of both signs."""

    def __init__(
        self,
        source: int,
        target: int,
        *,
        inner: int = 0,
        down: int = 1,
        up: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        if min(down, up) != 1:
            raise UsageError(f"A block goes down or up, got down={down} and up={up}.")
        if inner:
            steps = [
                *conv_norm(nn.Conv2d(source, inner, 1, bias=False)),
                nn.ReLU(inplace=True),
                *conv_norm(resampling(inner, inner, down, up)),
                nn.ReLU(inplace=True),
                *conv_norm(nn.Conv2d(inner, target, 1, bias=False)),
            ]
        else:
            steps = [
                *conv_norm(resampling(source, target, down, up)),
                nn.ReLU(inplace=True),
                *conv_norm(nn.Conv2d(target, target, 3, padding=1, bias=False)),
            ]
        self.body = nn.Sequential(*steps)
        self.skip = _skip(source, target, down, up)
        self.act = nn.Identity() if linear else nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """ReLU(body(x) + skip(x)), or the sum itself."""
        out: Tensor = self.act(self.body(x) + self.skip(x))
        return out


def resampling(source: int, target: int, down: int = 1, up: int = 1) -> nn.Module:
    """A 3x3 convolution of stride `down`, or a transposed convolution of kernel and stride `up`; no bias, a
    norm follows."""
    if up > 1:
        return nn.ConvTranspose2d(source, target, up, stride=up, bias=False)
    return nn.Conv2d(source, target, 3, stride=down, padding=1, bias=False)


def conv_norm(conv: nn.Module) -> tuple[nn.Module, nn.Module]:
    """A convolution and the batch norm of its output."""
    return conv, nn.BatchNorm2d(int(conv.out_channels))  # type: ignore[arg-type]


def initialise_like_resnet(net: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights again, in place, from `generator` alone.

    3x3 and 1x1 convolutions without bias: He, normal, fan-out, as torchvision's ResNets; those with bias and
    transposed ones: torch's default (uniform, 1/sqrt(fan-in)); norms at rest. This is how the released code
    of both papers begins."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            if isinstance(module, nn.Conv2d) and module.bias is None:
                nn.init.kaiming_normal_(
                    module.weight, mode="fan_out", nonlinearity="relu", generator=generator
                )
                continue
            bound = 1 / math.sqrt(nn.init._calculate_fan_in_and_fan_out(module.weight)[0])
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            if module.bias is not None:
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def _skip(source: int, target: int, down: int, up: int) -> nn.Module:
    if source == target and down == up == 1:
        return nn.Identity()
    conv = (
        resampling(source, target, 1, up) if up > 1 else nn.Conv2d(source, target, 1, stride=down, bias=False)
    )
    return nn.Sequential(*conv_norm(conv))
