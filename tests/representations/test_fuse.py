"""Convolution + sum + ReLU in one pass: the same numbers, for networks of several kinds, and a way out where
torch lacks the operators."""

from __future__ import annotations

import copy
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from kizu.accel import inference
from kizu.accel.batch_norm_folding import fold_batch_norms
from kizu.accel.fused_conv import KINDS, FusedConv, MaxPoolAfterReLU, can_fuse, fuse_activations
from kizu.representations.sources import open_representation

NETS = (
    "random/resnet18d@1,2,3",
    "random/seresnet18@1,2",
    "random/res2net50_26w_4s@1,2",
    "random/regnetx_002@2,3",
    "random/resnet10t@1,2,3",
    "random/resnet50@1,2",
    "random/mobilenetv3_small_100@2,3",
    "random/convnext_atto@1,2",
    "random/vit_tiny_patch16_224@4",
)
needed = pytest.mark.skipif(
    not can_fuse(torch.device("cpu"), torch.float32), reason="this torch has no fused operators"
)


def fused(net: nn.Module, x: torch.Tensor) -> nn.Module:
    """A copy of it, folded and fused."""
    return fuse_activations(fold_batch_norms(copy.deepcopy(net), lambda net: net(x)), lambda net: net(x))


@needed
@pytest.mark.parametrize("name", NETS)
def test_the_same_features(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = open_representation(name)
    side = 224 if "vit" in name else 96
    images = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    fused = net.inference_copy("fp32", "cpu")
    found = [level.clone() for level in fused(images)]
    alone = fused(images[:1])  # one image has a packing of its own
    monkeypatch.setattr(inference, "can_fuse", lambda device, dtype: False)
    plain = net.inference_copy("fp32", "cpu")
    assert not any(isinstance(module, FusedConv) for module in plain.network.modules())
    for own, one, other in zip(found, alone, plain(images), strict=True):
        assert own.shape == other.shape
        scale = float(other.abs().max())
        assert torch.allclose(own, other, atol=2e-5 * scale)
        assert torch.allclose(one, own[:1], atol=2e-5 * scale)


@needed
def test_weights_are_packed_once_for_each_kind_of_input() -> None:
    """And no more than some packings are kept; those that are dropped come back the same."""
    conv = torch.nn.Conv2d(16, 48, 3, padding=1)
    fused = FusedConv(conv, "none")
    shapes = [(count, 16, side, side) for count in (1, 5) for side in (7, 14, 28)]
    with torch.inference_mode():
        for _ in range(2):
            for shape in shapes:
                x = torch.rand(shape, generator=torch.Generator().manual_seed(1))
                assert torch.allclose(fused(x), conv(x), atol=1e-4)
                packed = dict(fused.packed)
                fused(x[:1] if len(x) == 1 else x[:3])
                assert all(fused.packed[kind] is weights for kind, weights in packed.items())
    assert len(fused.packed) == KINDS
    assert fused.loose is None


@needed
@pytest.mark.usefixtures("accelerated")
def test_every_block_of_a_resnet_is_fused() -> None:
    twin = open_representation("random/resnet18@1,2,3").inference_copy("fp32", "cpu").network
    kinds = [type(module) for module in twin.modules()]
    assert kinds.count(FusedConv) == 1 + 3 * 4 + 2  # stem, six blocks of two, two shortcuts
    assert nn.ReLU not in kinds
    assert nn.Conv2d not in kinds
    assert kinds.count(MaxPoolAfterReLU) == 1
    assert nn.MaxPool2d not in kinds


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("sides", [(8, 6), (2, 2), (7, 8), (8, 5), (1, 1)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_pooling_by_bits_is_max_pooling(
    kind: torch.dtype, sides: tuple[int, int], layout: torch.memory_format
) -> None:
    values = (
        torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(0))
        .relu()
        .to(kind)
        .contiguous(memory_format=layout)
    )
    values[0, 0, 0, 0] = torch.inf
    assert torch.equal(MaxPoolAfterReLU()(values), nn.functional.max_pool2d(values, 3, 2, 1))
    leaf = values[1:].clone().requires_grad_()
    MaxPoolAfterReLU()(leaf).sum().backward()
    assert leaf.grad is not None


class Pools(nn.Module):
    """One pooling of positive values, one of another shape, one of values that may be negative."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.after = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)
        self.pool, self.narrow, self.signed = nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.act(self.conv(x))
        return self.signed(self.after(self.pool(first))) + self.narrow(self.narrow(first))


@needed
def test_only_poolings_of_what_a_relu_gave_go_by_bits() -> None:
    net, x = Pools().eval(), torch.randn(2, 3, 18, 18, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        made = fused(net, x)
        assert torch.allclose(made(x), net(x), atol=1e-5)
    kinds = [type(module) for module in made.modules()]
    assert kinds.count(MaxPoolAfterReLU) == 1
    assert kinds.count(nn.MaxPool2d) == 2


class Shared(nn.Module):
    """One convolution called twice, with a ReLU behind one of the calls; sums that broadcast either way, or
    weigh a summand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()
        self.squeezed, self.wide, self.weighed = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.offset = nn.Parameter(torch.tensor([0.3, -0.2, 0.1]).view(3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.act(self.conv(x)), self.conv(x)
        small = self.act(
            self.squeezed(second.mean((2, 3), keepdim=True)) + first
        )  # the convolution is the smaller summand
        large = self.act(self.wide(small) + self.offset)  # and here the larger one
        return second + self.act(torch.add(self.weighed(large), first, alpha=-2.0))


class Odd(nn.Module):
    """What may not be fused: a value used twice, other padding, a sum without ReLU, a ReLU that another reads
    too."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.round = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        )
        self.bare, self.last = nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 4, 3, padding="same")
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.twice(x)
        second = self.act(first) + first  # `first` is read twice
        third = self.bare(self.act(self.round(second))) + second  # a sum without ReLU
        return self.act(self.last(third) + 1.0)  # the other summand is no map


@needed
def test_what_may_not_be_fused_is_left_alone() -> None:
    net, x = Odd().eval(), torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = net(x)
        made = fused(net, x)
        assert torch.allclose(made(x), expected, atol=1e-5)
    assert sum(isinstance(module, FusedConv) for module in made.modules()) == 2


@needed
def test_calls_and_shapes_are_kept_apart() -> None:
    net, x = Shared().eval(), torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(fused(net, x)(x), net(x), atol=1e-5)


class ByWidth(nn.Module):
    """A ReLU behind the convolution for wide images, none for others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 4, 3), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, 4, H - 2, W - 2)."""
        y: torch.Tensor = self.conv(x)
        return self.act(y) if x.shape[3] > 16 else y


@needed
def test_a_network_with_two_ways_is_left_alone() -> None:
    net = ByWidth().eval()
    runs = [lambda net, side=side: net(torch.rand(1, 3, 8, side)) for side in (32, 8)]
    fuse_activations(net, *runs)
    assert not any(isinstance(module, FusedConv) for module in net.modules())
    assert any(isinstance(module, FusedConv) for module in fuse_activations(net, runs[0]).modules())


def test_without_the_operators_nothing_changes() -> None:
    assert not can_fuse(torch.device("cuda"), torch.float32)
    plain = Odd()
    assert (
        fuse_activations(plain, lambda net: net(torch.rand(1, 5, 9, 9))) is plain
    )  # does not bear the example
    assert not any(isinstance(module, FusedConv) for module in plain.modules())


def test_broken_weights_stay_visible() -> None:
    net = open_representation("random/resnet10t@1,2")
    with torch.no_grad():
        next(net.parameters()).view(-1)[0] = float("nan")
    assert all(level.isnan().any() for level in net.inference_copy("auto", "cpu")(torch.rand(1, 3, 64, 64)))


class Turning(nn.Module):
    """Takes another way for wide images: there the batch norm is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.bias, 1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.conv(x)
        return made if x.shape[3] > 12 else self.norm(made)


class Between(nn.Module):
    """Values that another reads between convolution and batch norm, or that are changed in place there."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
        self.third, self.last = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(4))
        for norm in self.norms:
            nn.init.uniform_(norm.running_mean)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        first = self.first(x)
        one = self.norms[0](first) + first  # read twice
        second = self.second(one)
        second += one  # changed before it is normalised
        third = self.third(self.norms[1](second))
        return [third, self.last(self.norms[2](third))]  # given back as well, and a norm that nobody calls


def norms(net: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())


def test_a_batch_norm_that_does_not_follow_alone_stays() -> None:
    torch.manual_seed(0)
    net, x = Between().eval(), torch.rand(2, 3, 9, 9)
    made = fold_batch_norms(copy.deepcopy(net), lambda net: net(x))
    assert norms(made) == 4
    for own, other in zip(made(x), net(x), strict=True):
        assert torch.equal(own, other)


def test_a_network_that_turns_off_at_another_size_is_not_folded() -> None:
    net, small, wide = Turning().eval(), torch.rand(1, 3, 9, 9), torch.rand(1, 3, 9, 16)
    assert norms(fold_batch_norms(copy.deepcopy(net), lambda net: net(small))) == 0
    made = fold_batch_norms(copy.deepcopy(net), lambda net: net(small), lambda net: net(wide))
    assert norms(made) == 1
    assert torch.equal(made(small), net(small))
    assert torch.equal(made(wide), net(wide))


@pytest.mark.usefixtures("accelerated")
def test_every_batch_norm_of_networks_of_several_kinds_is_folded() -> None:
    """In whatever order their modules are listed; timm's that has an activation within is one of them."""
    for name in NETS[:-2]:
        assert norms(open_representation(name).inference_copy("fp32", "cpu").network) == 0, name


def test_networks_in_other_threads_go_on_undisturbed() -> None:
    """Eight first requests at once, beside a network that computes all the time: torch's modules are the
    same classes before, meanwhile and afterwards, and every result is that of one thread."""
    call, getattribute = nn.Module.__call__, nn.Module.__getattr__
    net = open_representation("random/resnet10t@1,2")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    alone = net.inference_copy("fp32", "cpu")(images)
    foreign = nn.Sequential(*(nn.Linear(8, 8) for _ in range(20)))
    x, stop, errors, calls = torch.rand(4, 8), threading.Event(), [], [0]
    due = foreign(x)

    def bystander() -> None:
        while not stop.is_set():
            try:
                calls[0] += 1
                assert nn.Module.__call__ is call, "torch is patched"
                assert torch.equal(foreign(x), due)
            except Exception as error:
                errors.append(error)

    thread, interval = threading.Thread(target=bystander), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        thread.start()
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda _: net.inference_copy("fp32", "cpu")(images), range(8)))
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert calls[0] > 0
    assert not errors
    assert (nn.Module.__call__, nn.Module.__getattr__) == (call, getattribute)
    for levels in made:
        assert all(torch.equal(own, other) for own, other in zip(levels, alone, strict=True))


def test_no_images_give_no_pooled_maps() -> None:
    empty = torch.rand(0, 3, 8, 8)
    assert MaxPoolAfterReLU()(empty).shape == (0, 3, 4, 4)
