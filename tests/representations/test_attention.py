"""Grad-CAM of the cosine distance against finite differences, a closed form, and images in which the answer
is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import kizu
from kizu.errors import ShapeError, UsageError
from kizu.representations.base import Representation
from kizu.representations.grad_cam import attention, grad_cam, pooled, share_inside, similarities


class Linear(Representation):
    """A convolution of stride 4, and another of stride 2 on it: linear, so that what a map must be can be
    written down."""

    def __init__(self, *, torn: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 5, 4, 4, bias=False), nn.Conv2d(5, 6, 2, 2, bias=False)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator)
        self.channels, self.strides, self.card, self.torn = (5, 6), (4, 8), {"name": "linear"}, torn

    def forward(self, images: Tensor) -> list[Tensor]:
        low = self.first(images)
        return [low.clone() if self.torn else low, self.second(low)]


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))


def distance(z: Tensor, u: Tensor) -> Tensor:
    return -(z * u).sum() / (z.norm() * u.norm())


def by_hand(net: Linear, image: Tensor, normal: Tensor, level: int) -> Tensor:
    """One map at the level's own size in float64, its gradient by central differences on every value of the
    level."""
    first, second = net.first.weight.detach().double(), net.second.weight.detach().double()
    target = nn.functional.conv2d(
        nn.functional.conv2d(normal[None].double(), first, stride=4), second, stride=2
    )[0].mean((1, 2))
    low = nn.functional.conv2d(image[None].double(), first, stride=4)
    start = low if level == 0 else nn.functional.conv2d(low, second, stride=2)

    def value(level_map: Tensor) -> float:
        last = nn.functional.conv2d(level_map, second, stride=2) if level == 0 else level_map
        return float(distance(last[0].mean((1, 2)), target))

    gradient = torch.zeros_like(start)
    for index in range(start.numel()):
        step = torch.zeros_like(start).view(-1)
        step[index] = 1e-5
        gradient.view(-1)[index] = (
            value(start + step.view_as(start)) - value(start - step.view_as(start))
        ) / 2e-5
    weights = gradient[0].mean((1, 2))
    return sum(weight * channel for weight, channel in zip(weights, start[0], strict=True)).clamp_min(0)


@pytest.mark.parametrize("level", [0, 1, -1])
def test_against_finite_differences(images: Tensor, level: int) -> None:
    net = Linear()
    normals = images.flip(0).roll(3, dims=2)
    maps, distances = attention(net, images, normals, level=level)
    for row in range(2):
        small = by_hand(net, images[row], normals[row], level % 2)
        wide = nn.functional.interpolate(
            small[None, None], size=(16, 24), mode="bilinear", align_corners=False
        )[0, 0]
        assert torch.allclose(maps[row].double(), wide, rtol=1e-3, atol=1e-6)
        expected = distance(pooled(net(images)[-1])[row], pooled(net(normals)[-1])[row])
        assert torch.isclose(distances[row], expected)
    assert maps.shape == (2, 16, 24)
    assert bool((maps >= 0).all())
    assert bool(maps.any())


def test_closed_form_at_the_pooled_level(images: Tensor) -> None:
    """d(-cos)/dz = -(u / |u| - cos z / |z|) / |z|, shared evenly by the positions; before the positive part
    it sums to 0."""
    net = Linear()
    features, z = net(images)[-1].detach().double(), pooled(net(images)[-1]).detach().double()
    u = pooled(net(images.flip(0))[-1]).detach().double()
    cosine = (z * u).sum(1) / (z.norm(dim=1) * u.norm(dim=1))
    slope = -(u / u.norm(dim=1, keepdim=True) - cosine[:, None] * z / z.norm(dim=1, keepdim=True)) / z.norm(
        dim=1, keepdim=True
    )
    positions = features.shape[2] * features.shape[3]
    whole = (slope[:, :, None, None] / positions * features).sum(1)
    assert torch.allclose(whole.sum((1, 2)), torch.zeros(2, dtype=torch.float64), atol=1e-7)
    maps, _ = attention(net, images, images.flip(0))
    wide = nn.functional.interpolate(
        whole.clamp_min(0)[:, None], size=(16, 24), mode="bilinear", align_corners=False
    )[:, 0]
    assert torch.allclose(maps.double(), wide, rtol=1e-3, atol=1e-7)


def test_the_changed_place_is_seen(images: Tensor) -> None:
    """Grey images, one with a bright corner: the corner is what sets them apart."""
    normal = torch.full((1, 3, 64, 64), 0.5)
    flawed = normal.clone()
    flawed[:, 0, :16, :16] = 1.0
    net = kizu.representation("random/resnet10t@1,2")
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, :16, :16] = True
    maps, distances = attention(net, flawed, normal)
    near = torch.zeros_like(mask)
    near[:, :32, :32] = True  # what the network's fields of view reach
    assert float(share_inside(maps, near)) > 0.5
    assert float(distances) > -1.0
    assert float(share_inside(mask.float(), mask)) == 1.0


def test_the_representation_is_left_as_it_was(images: Tensor) -> None:
    net = kizu.representation("random/resnet10t@1,2").train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    attention(net, images, images.flip(0), level=0)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_one_image_or_many(images: Tensor) -> None:
    net = kizu.representation("random/resnet10t@1,2")
    maps, distances = attention(net, images, images.flip(0))
    single = [attention(net, images[row : row + 1], images.flip(0)[row : row + 1]) for row in range(2)]
    assert torch.allclose(maps, torch.cat([m for m, _ in single]), rtol=1e-3, atol=1e-7)
    assert torch.allclose(distances, torch.cat([d for _, d in single]), atol=1e-5)


def test_similarities_are_cosines() -> None:
    a, b = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[6.0, 8.0], [-4.0, 3.0], [0.0, 2.0]])
    assert torch.allclose(similarities(a, b), torch.tensor([[1.0, 0.0, 0.8], [0.6, -0.8, 0.0]]), atol=1e-6)


def test_what_cannot_be_meant(images: Tensor) -> None:
    with pytest.raises(UsageError, match="among the representation's 2 levels"):
        attention(Linear(), images, images, level=2)
    with pytest.raises(UsageError, match="not made from level 0"):
        attention(Linear(torn=True), images, images, level=0)
    with pytest.raises(ShapeError):
        attention(Linear(), images, images[:1])
    with pytest.raises(ShapeError):
        grad_cam(torch.rand(1, 2, 3, 3), torch.rand(1, 2, 3, 4))
