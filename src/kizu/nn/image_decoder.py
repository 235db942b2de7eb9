"""From a level of features to a latent vector, and from there back to an image: the bricks of auto-encoders.

Source: Bergmann et al., Improving Unsupervised Defect Segmentation by Applying Structural Similarity to
Autoencoders, VISAPP 2019, table 1. There the encoder ends with a convolution over its whole 8 x 8 grid, and
the decoder is its mirror image. Here the grid may be any, and the number of doublings follows from the
encoder's stride: behind small/ssim_ae (stride 16, 32 channels) both are the paper's, layer by layer. Leaky
ReLU of slope 0.2 after each layer but the last of either side, no norms.

The paper does not say how weights begin. Here as He et al. (ICCV 2015) have it for this slope: with torch's
own beginning what an image has of its own is lost on the way through so many layers, and for thousands of
steps every image is rebuilt as their mean."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from kizu.errors import ShapeError

NARROW = 128
"""Most channels before the convolution over the whole grid, which else would be nearly all of the network
(the paper has 32)."""
SLOPE = 0.2


class Bottleneck(nn.Module):
    """(B, C, h, w) -> (B, outputs): a convolution over the whole grid.

    grid: (h, w). More than NARROW channels are narrowed first, by a 1 x 1 convolution. Raises ShapeError for
    another grid.

    >>> import torch
    >>> Bottleneck(32, (8, 8), 100)(torch.zeros(2, 32, 8, 8)).shape
    torch.Size([2, 100])
    """

    def __init__(self, channels: int, grid: tuple[int, int], outputs: int) -> None:
        super().__init__()
        self.grid, width = grid, min(channels, NARROW)
        narrow = [nn.Conv2d(channels, width, 1), nn.LeakyReLU(SLOPE)] if width < channels else []
        self.narrow, self.whole = nn.Sequential(*narrow), nn.Conv2d(width, outputs, grid)
        self.apply(_begin)

    def begin_near_zero(self) -> None:
        """A hundredth of the weights of the last layer: all outputs begin near 0."""
        with torch.no_grad():
            self.whole.weight.mul_(0.01)

    def forward(self, feature: Tensor) -> Tensor:
        """The latent vectors, linear."""
        require_grid(feature, self.grid)
        latent: Tensor = self.whole(self.narrow(feature))
        return latent.flatten(1)


class ImageDecoder(nn.Module):
    """(B, latent) -> (B, outputs, H, W), linear: the mirror image of an encoder of this stride.

    grid: (h, w) of the encoder's last level. stride: of that level in pixels. channels: of that level, at
    most NARROW of them count. Each doubling is a transposed 4 x 4 convolution of stride 2; widths are 8 times
    the stride, at least 32, and a 3 x 3 convolution follows down to stride 4. Where doubling does not lead to
    the size (a stride that is no power of two, an odd side), the map is resized, bilinear."""

    def __init__(
        self, latent: int, grid: tuple[int, int], stride: int, *, channels: int = 32, outputs: int = 3
    ) -> None:
        super().__init__()
        entry, doublings = min(channels, NARROW), math.ceil(math.log2(stride))
        width = _width(2**doublings)
        self.unfold = nn.ConvTranspose2d(latent, entry, grid)
        self.entry = nn.Sequential(_conv(entry, width // 2), _conv(width // 2, width))
        self.strides = [2**power for power in reversed(range(doublings))]
        self.stages = nn.ModuleList()
        for finer in self.strides[:-1]:
            up = [nn.ConvTranspose2d(width, _width(finer), 4, 2, padding=1), nn.LeakyReLU(SLOPE)]
            width = _width(finer)
            self.stages.append(nn.Sequential(*up, *([_conv(width, width)] if finer >= 4 else [])))
        last = nn.ConvTranspose2d(width, outputs, 4, 2, padding=1) if doublings else None
        self.stages.append(last or nn.Conv2d(width, outputs, 3, padding=1))
        self.apply(_begin)

    def forward(self, latent: Tensor, size: tuple[int, int]) -> Tensor:
        """size: (H, W) of the images."""
        x = self.entry(functional.leaky_relu(self.unfold(latent[:, :, None, None]), SLOPE))
        for stage, stride in zip(self.stages, self.strides or [1], strict=True):
            x = _sized(stage(x), (-(-size[0] // stride), -(-size[1] // stride)))
        return x


def require_grid(feature: Tensor, grid: tuple[int, int]) -> None:
    """Raise ShapeError unless a level (B, C, h, w) has this grid."""
    found = (int(feature.shape[2]), int(feature.shape[3]))
    if found != grid:
        raise ShapeError(
            f"The network was built for a grid of {grid[0]} x {grid[1]} positions, these images give "
            f"{found[0]} x {found[1]}: use images of the size that it was trained on."
        )


def _begin(layer: nn.Module) -> None:
    """Weights that keep the variance of what passes, for leaky ReLUs; biases 0."""
    if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        return
    taps = math.prod(layer.kernel_size)
    if isinstance(layer, nn.ConvTranspose2d):  # taps that meet in one pixel
        taps = taps // math.prod(layer.stride) if math.prod(layer.stride) > 1 else 1
    nn.init.normal_(layer.weight, std=math.sqrt(2 / (1 + SLOPE**2) / (layer.in_channels * taps)))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _width(stride: int) -> int:
    return max(32, min(8 * stride, 256))


def _conv(source: int, target: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(source, target, 3, padding=1), nn.LeakyReLU(SLOPE))


def _sized(x: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(x.shape[2:]) == size:
        return x
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
