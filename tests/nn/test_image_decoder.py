"""The bricks of auto-encoders: layer by layer those of the paper, and any grid, stride and size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kizu.errors import ShapeError
from kizu.nn.global_contrast import global_contrast
from kizu.nn.image_decoder import NARROW, Bottleneck, ImageDecoder
from kizu.nn.small_networks import drawn

TABLE_1 = [
    (3, 32, 4, 2), (32, 32, 4, 2), (32, 32, 3, 1), (32, 64, 4, 2), (64, 64, 3, 1), (64, 128, 4, 2),
    (128, 64, 3, 1), (64, 32, 3, 1), (32, 100, 8, 1),
]  # fmt: skip
"""(channels in, out, side of the kernel, stride) of Bergmann et al. 2019, table 1; 100 latent numbers."""


def layers(net: nn.Module) -> list[tuple[int, int, int, int]]:
    found = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    return [(m.in_channels, m.out_channels, int(m.kernel_size[0]), int(m.stride[0])) for m in found]


def test_behind_the_papers_encoder_both_sides_are_table_1() -> None:
    encoder, bottleneck = drawn("ssim_ae", 0), Bottleneck(32, (8, 8), 100)
    assert layers(encoder) + layers(bottleneck) == TABLE_1
    mirrored = [(target, source, side, stride) for source, target, side, stride in reversed(TABLE_1)]
    decoder = ImageDecoder(100, (8, 8), 16)
    assert layers(decoder) == mirrored
    images = torch.rand(2, 3, 128, 128)
    assert decoder(bottleneck(encoder(images)[-1]), (128, 128)).shape == images.shape


@pytest.mark.parametrize("channels", [5, 300])
@pytest.mark.parametrize(
    ("stride", "size"),
    [(1, (9, 8)), (2, (10, 7)), (4, (32, 48)), (8, (61, 64)), (14, (56, 70)), (16, (64, 64)), (32, (96, 65))],
)
def test_any_stride_and_size(channels: int, stride: int, size: tuple[int, int]) -> None:
    grid = (-(-size[0] // stride), -(-size[1] // stride))
    bottleneck = Bottleneck(channels, grid, 6)
    decoder = ImageDecoder(6, grid, stride, channels=channels, outputs=2)
    latent = bottleneck(torch.rand(3, channels, *grid))
    assert latent.shape == (3, 6)
    image = decoder(latent, size)
    assert image.shape == (3, 2, *size)
    image.square().sum().backward()
    everything = [*bottleneck.parameters(), *decoder.parameters()]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in everything)
    widest = max(p.shape[1] for p in decoder.unfold.parameters() if p.ndim == 4)
    assert widest <= NARROW


def test_the_bottleneck_is_a_linear_map_of_the_whole_grid() -> None:
    net = Bottleneck(4, (3, 2), 5).double()
    feature = torch.rand(2, 4, 3, 2, dtype=torch.float64)
    weight, bias = net.whole.weight, net.whole.bias
    assert torch.allclose(net(feature), feature.flatten(1) @ weight.flatten(1).T + bias)
    with pytest.raises(ShapeError, match=r"3 x 2 positions, these images give 3 x 3"):
        net(torch.rand(2, 4, 3, 3, dtype=torch.float64))


def test_global_contrast_by_hand() -> None:
    images = torch.rand(3, 3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = global_contrast(images)
    for image, normalised in zip(images.numpy(), got.numpy(), strict=True):
        centred = image - image.mean()
        assert torch.allclose(torch.from_numpy(normalised), torch.from_numpy(centred / abs(centred).mean()))
    brighter = global_contrast(images * 0.5 + 0.2)
    assert torch.allclose(brighter, got)
    assert torch.equal(global_contrast(torch.full((1, 3, 4, 4), 0.25)), torch.zeros(1, 3, 4, 4))
