"""A pyramid of small generators and discriminators of patches, from coarse to fine: SinGAN's, whose
discriminators here tell several classes apart.

Sources: Rott Shaham, Dekel and Michaeli, SinGAN, ICCV 2019 (tamarott/SinGAN); Sheynin, Benaim and Wolf, ICCV
2021. No code of theirs is used. Every network has 5 convolutions 3 x 3 without padding, so that a patch of 11
pixels decides; what a generator is to fill is padded by 5 zeros on each side before it. Batch norm and leaky
ReLU 0.2 after all but the last; weights N(0, 0.02^2), of the norms N(1, 0.02^2). Widths double every four
scales, to 128 at most."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYERS = 5
REACH = LAYERS
"""Pixels on each side of a patch's middle that its network looks at."""
FIELD = 2 * REACH + 1
_WIDEST = 128
_EVERY = 4


def pyramid_sizes(
    size: tuple[int, int], *, coarsest: int, finest: int, factor: float
) -> list[tuple[int, int]]:
    """Sizes of the scales of images of `size` (H, W), coarsest first.

    finest: longer side of the last scale (images are not enlarged). coarsest: shorter side of the first.
    factor: between two scales; as many as keep the step at or above it, which is then made equal.

    >>> [h for h, w in pyramid_sizes((128, 128), coarsest=25, finest=64, factor=0.75)]
    [25, 32, 40, 51, 64]
    """
    shrink = min(1.0, finest / max(size))
    top = (max(round(size[0] * shrink), 1), max(round(size[1] * shrink), 1))
    ratio = coarsest / min(top)
    steps = math.ceil(math.log(ratio) / math.log(factor) - 1e-9) if ratio < 1 else 0
    scales = [ratio ** ((steps - n) / steps) for n in range(steps)] + [1.0]
    return [(math.ceil(top[0] * s - 1e-6), math.ceil(top[1] * s - 1e-6)) for s in scales]


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, C, H, W) at `size`: bicubic, smoothed first where they become smaller."""
    if images.shape[2:] == size:
        return images
    return functional.interpolate(images, size, mode="bicubic", antialias=True)


class Scale(nn.Module):
    """One scale: `generator`, `discriminator`, and `fixed` (1, 1, h, w), the noise that stands for the
    training images themselves."""

    fixed: Tensor

    def __init__(self, size: tuple[int, int], *, width: int, classes: int) -> None:
        super().__init__()
        self.size = size
        self.generator = patch_network(4, width, 3)
        self.discriminator = patch_network(3, width, classes)
        self.register_buffer("fixed", torch.randn(1, 1, *size))

    def generate(self, noise: Tensor, previous: Tensor, numbers: Tensor) -> Tensor:
        """Noise (B, 1 or 3, h, w), the image of the scale below enlarged (B, 3, h, w), and which training
        image is meant (B,) -> images (B, 3, h, w) about [-1, 1]: what the generator adds to the latter."""
        seen = functional.pad(noise + previous, (REACH,) * 4)
        plane = numbers.to(seen.dtype)[:, None, None, None].expand(-1, 1, *seen.shape[2:])
        added: Tensor = torch.tanh(self.generator(torch.cat([seen, plane], 1)))
        return previous + added

    def continue_from(self, below: Scale) -> None:
        """Take over the weights of the scale below, where it is as wide."""
        if self.generator[0].weight.shape == below.generator[0].weight.shape:
            self.generator.load_state_dict(below.generator.state_dict())
            self.discriminator.load_state_dict(below.discriminator.state_dict())


class PatchPyramid(nn.Module):
    """Scales from coarse to fine; images are in [-1, 1].

    sizes: of `pyramid_sizes`. width: channels of the first four scales. classes: of the discriminators."""

    def __init__(self, sizes: list[tuple[int, int]], *, width: int, classes: int) -> None:
        super().__init__()
        self.sizes = list(sizes)
        widest = max(_WIDEST, width)
        self.scales = nn.ModuleList(
            Scale(size, width=min(width * 2 ** (n // _EVERY), widest), classes=classes)
            for n, size in enumerate(sizes)
        )

    def __getitem__(self, n: int) -> Scale:
        scale = self.scales[n]
        assert isinstance(scale, Scale)
        return scale

    def reconstruct(
        self, reals: list[Tensor], numbers: Tensor, n: int, noise: float
    ) -> tuple[Tensor, list[Tensor]]:
        """(what the scales below `n` make of the fixed noise, at the size of `n`; how strong the noise is in
        the scales 0 to n, (B, 1, 1, 1) each).

        reals: the training images at every scale. The strength is 1 in the first scale, else `noise` times
        the root mean square of what is still missing of each image."""
        previous = torch.zeros_like(reals[0])
        strengths = [previous.new_ones(len(previous), 1, 1, 1)]
        for scale in range(n):
            made = self[scale].generate(strengths[scale] * self[scale].fixed, previous, numbers)
            previous = resized(made, self.sizes[scale + 1])
            missing = (reals[scale + 1] - previous).square().mean((1, 2, 3), keepdim=True).sqrt()
            strengths.append(noise * missing)
        return previous, strengths

    def draw(
        self, strengths: list[Tensor], numbers: Tensor, n: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """(what the scales below `n` make of random noise, at the size of `n`; random noise for scale n)."""
        previous = strengths[0].new_zeros(len(numbers), 3, *self.sizes[0])
        for scale in range(n):
            made = self[scale].generate(self._noise(strengths[scale], scale, generator), previous, numbers)
            previous = resized(made, self.sizes[scale + 1])
        return previous, self._noise(strengths[n], n, generator)

    def _noise(self, strength: Tensor, scale: int, generator: torch.Generator) -> Tensor:
        """The same in all channels in the first scale, as SinGAN has it."""
        shape = (len(strength), 1 if scale == 0 else 3, *self.sizes[scale])
        return strength * torch.randn(shape, generator=generator).to(strength)


def patch_network(channels: int, width: int, out: int) -> nn.Sequential:
    """Images (B, channels, H, W) -> (B, out, H - 10, W - 10)."""
    layers: list[nn.Module] = []
    for before in (channels, *[width] * (LAYERS - 2)):
        layers += [nn.Conv2d(before, width, 3), nn.BatchNorm2d(width), nn.LeakyReLU(0.2, inplace=True)]
    layers.append(nn.Conv2d(width, out, 3))
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
    return nn.Sequential(*layers)
