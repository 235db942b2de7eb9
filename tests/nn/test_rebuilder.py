"""The rebuilder's shapes on every kind of level, its seed, its folded twin."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from kizu.accel.batch_norm_folding import fold_batch_norms
from kizu.errors import UsageError
from kizu.nn.decoders import TwinProjections
from kizu.nn.mirror import DecoderSpec, decoder_spec
from kizu.nn.rebuilder import Rebuilder, smallest_grid
from kizu.nn.residual import ResidualBlock
from kizu.representations.sources import open_representation

BASIC = DecoderSpec((8, 12, 16), (4, 8, 16), (2, 2, 2))
DEEP = DecoderSpec((8, 12, 16), (4, 8, 16), (1, 2, 3), 0.5)


def features(shape: DecoderSpec, side: int = 64, batch: int = 2, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sides = [-(-side // stride) for stride in shape.strides]
    return [
        torch.randn(batch, width, n, n + 1, generator=generator)
        for width, n in zip(shape.channels, sides, strict=True)
    ]


def halving(side: int, levels: int) -> list[int]:
    """A grid's side on each level, halved by rounding up as padded convolutions do."""
    sides = [side]
    for _ in range(levels - 1):
        sides.append(-(-sides[-1] // 2))
    return sides


@pytest.mark.parametrize("side", [4, 7, 13, 16])
@pytest.mark.parametrize("shape", [BASIC, DEEP], ids=["basic", "bottleneck"])
def test_every_level_comes_back_at_its_size(shape: DecoderSpec, side: int) -> None:
    rows, columns = halving(side, 3), halving(side + 3, 3)
    given = [torch.rand(2, width, h, w) for width, h, w in zip(shape.channels, rows, columns, strict=True)]
    net = Rebuilder(shape, twin=True)
    assert [level.shape for level in net(given)] == [level.shape for level in given]
    first, second = net.cross_reconstruct(given, [level + 1 for level in given])
    assert (
        [level.shape for level in first]
        == [level.shape for level in second]
        == [level.shape for level in given]
    )


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("random/resnet10t@2,3", 64),
        ("random/resnet10t@1,3", 72),
        ("random/vit_tiny_patch16_224@2,4", 48),
        ("random/convnext_atto@1,2", 64),
        ("random/tf_efficientnet_lite0@1,2,3", 72),
        ("random/mobilenetv3_small_050@2,3", 64),
    ],
)
def test_any_representation_can_be_rebuilt(name: str, size: int) -> None:
    """Levels of equal stride, levels four times apart, networks that are no ResNets."""
    net = open_representation(name)
    given = net(torch.rand(2, 3, size, size))
    made = Rebuilder(decoder_spec(net.net, net.levels, net.channels, net.strides), twin=False, width=8)
    assert [level.shape for level in made(given)] == [level.shape for level in given]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("shape", [BASIC, DEEP], ids=["basic", "bottleneck"])
def test_features_of_both_signs_are_rebuilt_without_a_relu_at_the_end(
    shape: DecoderSpec, signed: bool
) -> None:
    """A decoder that ends in ReLU cannot rebuild linear bottlenecks: no cosine above that of the positive
    part."""
    net = Rebuilder(dataclasses.replace(shape, signed=signed), twin=False)
    for level in net(features(shape)):
        assert bool((level < 0).any()) is signed


def test_the_plan_of_a_resnet_is_read_off_it() -> None:
    with torch.device("meta"):
        import timm

        for name, blocks, share in (
            ("resnet34", (3, 4, 6), 0.0),
            ("resnet50", (3, 4, 6), 0.25),
            ("wide_resnet50_2", (3, 4, 6), 0.5),
        ):
            net = timm.create_model(name, features_only=True, out_indices=(1, 2, 3))
            found = decoder_spec(net, (1, 2, 3), (1, 2, 3), (4, 8, 16))
            assert (found.blocks, found.share) == (blocks, share), name
    with pytest.raises(UsageError, match="powers of two"):
        DecoderSpec((4, 4), (4, 12), (1, 1))
    with pytest.raises(UsageError, match="down or up"):
        ResidualBlock(4, 4, down=2, up=2)


def test_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(0)
    first = Rebuilder(DEEP, twin=True, seed=4).state_dict()
    torch.manual_seed(1)
    again, other = (
        Rebuilder(DEEP, twin=True, seed=4).state_dict(),
        Rebuilder(DEEP, twin=True, seed=5).state_dict(),
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(
        torch.equal(first[name], other[name])
        for name in first
        if name.endswith("0.weight") and first[name].ndim == 4
    )


@pytest.mark.parametrize("shape", [BASIC, DEEP], ids=["basic", "bottleneck"])
def test_the_folded_twin_is_the_same_function(shape: DecoderSpec) -> None:
    net, given = Rebuilder(shape, twin=True, width=10), features(shape)
    for _ in range(3):
        net(given)  # statistics away from rest
    net.eval()
    twin = fold_batch_norms(copy.deepcopy(net), lambda net: net.cross_reconstruct(given, given))
    for expected, got in zip(net(given), twin(given), strict=True):
        assert torch.allclose(got, expected, atol=1e-4)
    assert not [module for module in twin.modules() if isinstance(module, nn.BatchNorm2d)]


def test_twin_projections_take_a_half_each() -> None:
    heads = TwinProjections((3, 5))
    given = [torch.rand(4, 3, 2, 2), torch.rand(4, 5, 1, 1)]
    first, second = heads(given)
    for level in range(2):
        assert torch.equal(first[level], heads.first[level](given[level][:2]))
        assert torch.equal(second[level], heads.second[level](given[level][2:]))


def test_cross_rebuilds_each_from_the_other() -> None:
    """In evaluation no image sees another: frozen features come from the trained ones alone, and the other
    way round."""
    net = Rebuilder(BASIC, twin=True, width=10).eval()
    trained, frozen = features(BASIC), features(BASIC, seed=1)
    like_frozen, like_trained = net.cross_reconstruct(trained, frozen)
    other_frozen, _ = net.cross_reconstruct(trained, [level + 1 for level in frozen])
    _, other_trained = net.cross_reconstruct([level + 1 for level in trained], frozen)
    for level in range(3):
        assert torch.allclose(like_frozen[level], other_frozen[level], atol=1e-5)
        assert torch.allclose(like_trained[level], other_trained[level], atol=1e-5)
    with pytest.raises(RuntimeError, match="twin"):
        Rebuilder(BASIC, twin=False).cross_reconstruct(trained, frozen)


def test_smallest_grid() -> None:
    assert smallest_grid([torch.rand(1, 1, 5, 8)]) == 12
    assert smallest_grid([torch.rand(1, 1, 9, 9), torch.rand(1, 1, 2, 2)]) == 1
