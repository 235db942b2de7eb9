"""The small networks that papers on one-class learning train from nothing, mostly for images of 32 pixels.

    lenet       Deep SVDD, CIFAR-10: three 5 x 5 convolutions and max-pooling, no bias, norms without affine
    wrn_10_4    wide ResNet of depth 10 and width 4 (geometric transformations; wrn_16_8 for larger images)
    resnet18    ResNet-18 with a 3 x 3 stem and no pooling, as CSI and others have it for CIFAR
    ssim_ae     the encoder of the auto-encoder with SSIM loss, down to its 8 x 8 grid

Sources: Ruff et al., Deep One-Class Classification, ICML 2018, and its code (lukasruff/Deep-SVDD-PyTorch,
MIT); Zagoruyko and Komodakis, Wide Residual Networks, BMVC 2016; He et al., CVPR 2016; Bergmann et al.,
Improving Unsupervised Defect Segmentation by Applying Structural Similarity to Autoencoders, VISAPP 2019,
table 1. Nothing of any code is used."""

from __future__ import annotations

import itertools
import re

from torch import Tensor, nn
from torch.nn import functional

from kizu import engine
from kizu.errors import UnknownName

NAMES = ("lenet", "wrn_10_4", "wrn_16_4", "wrn_16_8", "resnet18", "ssim_ae")


class SmallNetwork(nn.Module):
    """Stages one after the other: normalised images (B, 3, H, W) -> the output of every stage, finest first.

    channels, strides: one a stage."""

    def __init__(self, stages: list[nn.Module], channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.channels, self.strides = channels, strides

    def forward(self, x: Tensor) -> list[Tensor]:
        """One (B, C_l, h_l, w_l) a stage."""
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels


def small_network(name: str) -> SmallNetwork:
    """One of NAMES, its weights drawn from torch's generator. Raises UnknownName.

    >>> small_network("lenet").channels
    (32, 64, 128)
    """
    if name not in NAMES:
        raise UnknownName("small network", name, NAMES)
    wide = re.fullmatch(r"wrn_(\d+)_(\d+)", name)
    if wide:
        return _wide_resnet(int(wide[1]), int(wide[2]))
    return {"lenet": _lenet, "resnet18": _resnet18, "ssim_ae": _ssim_ae}[name]()


def _lenet() -> SmallNetwork:
    """A bias or an affine norm would let Deep SVDD map everything to its centre (its propositions 2 and
    3)."""
    widths = (3, 32, 64, 128)
    stages: list[nn.Module] = [
        nn.Sequential(
            nn.Conv2d(before, after, 5, padding=2, bias=False),
            nn.BatchNorm2d(after, eps=1e-4, affine=False),
            nn.LeakyReLU(),
            nn.MaxPool2d(2),
        )
        for before, after in itertools.pairwise(widths)
    ]
    return SmallNetwork(stages, widths[1:], (2, 4, 8))


def _wide_resnet(depth: int, width: int) -> SmallNetwork:
    blocks = (depth - 4) // 6
    widths = (16 * width, 32 * width, 64 * width)
    stages, before = [], 16
    for number, after in enumerate(widths):
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)] if number == 0 else []
        for block in range(blocks):
            stride = 2 if number and block == 0 else 1
            layers.append(_PreActivation(before, after, stride))
            before = after
        if number == len(widths) - 1:
            layers += [nn.BatchNorm2d(after), nn.ReLU()]
        stages.append(nn.Sequential(*layers))
    return SmallNetwork(list(stages), widths, (1, 2, 4))


def _resnet18() -> SmallNetwork:
    widths = (64, 128, 256, 512)
    stages, before = [], 64
    for number, after in enumerate(widths):
        layers: list[nn.Module] = []
        if number == 0:
            layers += [nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        layers += [_Basic(before, after, 2 if number else 1), _Basic(after, after, 1)]
        stages.append(nn.Sequential(*layers))
        before = after
    return SmallNetwork(list(stages), widths, (1, 2, 4, 8))


def _ssim_ae() -> SmallNetwork:
    def conv(before: int, after: int, kernel: int, stride: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(before, after, kernel, stride, padding=1), nn.LeakyReLU(0.2))

    stages: list[nn.Module] = [
        conv(3, 32, 4, 2),
        nn.Sequential(conv(32, 32, 4, 2), conv(32, 32, 3, 1)),
        nn.Sequential(conv(32, 64, 4, 2), conv(64, 64, 3, 1)),
        nn.Sequential(conv(64, 128, 4, 2), conv(128, 64, 3, 1), conv(64, 32, 3, 1)),
    ]
    return SmallNetwork(stages, (32, 32, 64, 32), (2, 4, 8, 16))


class _PreActivation(nn.Module):
    """Norm, ReLU, convolution, twice, and the way around them (He et al., ECCV 2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        same = before == after and stride == 1
        self.shortcut = None if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = functional.relu(self.norm1(x))
        around = x if self.shortcut is None else self.shortcut(active)
        return around + self.conv2(functional.relu(self.norm2(self.conv1(active))))


class _Basic(nn.Module):
    """Two convolutions and the way around them (He et al., CVPR 2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        same = before == after and stride == 1
        self.shortcut = (
            None
            if same
            else nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        )

    def forward(self, x: Tensor) -> Tensor:
        around = x if self.shortcut is None else self.shortcut(x)
        inner = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(inner)) + around)


def drawn(name: str, seed: int) -> SmallNetwork:
    """`small_network` with weights from `seed` alone; torch's generator is left as it was."""
    with engine.seeded(seed):
        return small_network(name)
