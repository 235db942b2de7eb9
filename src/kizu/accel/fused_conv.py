"""Convolution, addition and ReLU as one pass over the maps, with packed weights: oneDNN's fused operators on
CPUs; and a max pooling of what comes out of a ReLU that compares bits.

These operators are the ones that torch's own compiler emits; they have no public name, so a torch that lacks
them or another device keeps the plain modules. The sums are the same; in bfloat16 one rounding between them
falls away. The fused ReLU makes 0 of NaN, so a network whose weights are not finite is left as it is: NaN
must come out of it to be noticed. Which ReLU follows which convolution is seen in a pass of an example;
sums are fused in the residual blocks of timm's ResNets, whose code is known."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kizu.accel.batch_norm_folding import put
from kizu.accel.dataflow import Dataflow, observed

KINDS = 4
"""Packings of a convolution's weights that are kept: for one image or several, and for each size of its
input."""
_PACKING = threading.Lock()


class FusedConv(nn.Module):
    """A convolution, then what `then` says ("none" or "relu"); or, given `other`, relu(convolution + other).
    For inference."""

    def __init__(self, conv: nn.Conv2d, then: str) -> None:
        super().__init__()
        self.then = then
        self.bias, self.channels, self.kernel = conv.bias, conv.out_channels, conv.kernel_size
        self.shape = ([*conv.padding], [*conv.stride], [*conv.dilation], conv.groups)
        weight = conv.weight.detach().contiguous()
        self.loose: Tensor | None = weight
        self.packed: dict[tuple[int, ...], Tensor] = {}
        self.weight = nn.Parameter(
            weight.new_empty(0), requires_grad=False
        )  # says the type; the numbers are loose until the first call

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """(B, C, h, w) -> (B, C', h', w'); the fused sum wants `other` of that shape, one that must be
        broadcast is added plainly."""
        ops = torch.ops.mkldnn
        made: Tensor
        if other is not None and other.shape == self._size(x):
            made = ops._convolution_pointwise.binary(
                x, other, self._weight(x), self.bias, *self.shape, "add", 1.0, "relu", [], ""
            )
            return made
        made = ops._convolution_pointwise(x, self._weight(x), self.bias, *self.shape, self.then, [], "")
        return made if other is None else torch.relu(made + other)

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copies: packed weights are known to oneDNN alone, so they are unpacked."""
        with _PACKING:
            return {**self.__dict__, "loose": self._dense(), "packed": {}}

    def _dense(self) -> Tensor:
        """The weights, not packed."""
        dense: Tensor = self.loose if self.loose is not None else next(iter(self.packed.values())).to_dense()
        return dense

    def _weight(self, x: Tensor) -> Tensor:
        """The weights as they are wanted for inputs like `x`: otherwise they would be packed anew at every
        call."""
        kind = (len(x) > 1, *x.shape[2:])
        packed = self.packed.get(kind)
        if packed is None:
            with _PACKING:
                reorder = torch.ops.mkldnn._reorder_convolution_weight
                packed = reorder(self._dense(), *self.shape, list(x.shape))
                self.packed = dict([*self.packed.items(), (kind, packed)][-KINDS:])
                self.loose = None
        return packed

    def _size(self, x: Tensor) -> tuple[int, ...]:
        """Shape of the convolution of `x`."""
        padding, stride, dilation, _ = self.shape
        steps = zip(x.shape[2:], self.kernel, padding, stride, dilation, strict=True)
        return (
            len(x),
            self.channels,
            *((side + 2 * pad - d * (k - 1) - 1) // s + 1 for side, k, pad, s, d in steps),
        )


_BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}


class MaxPoolAfterReLU(nn.Module):
    """Max pooling by windows of 3 and steps of 2, of values that are not negative: their bits, read as whole
    numbers, have the same order.

    Rows first, then columns, three values by two comparisons; torch's own pooling also finds out where each
    maximum was, and takes 3 times as long. Sides that are odd go through that."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h / 2, w / 2)."""
        if not len(x) or x.dtype not in _BITS or x.shape[2] % 2 or x.shape[3] % 2 or x.requires_grad:
            return nn.functional.max_pool2d(x, 3, 2, 1)
        bits, (_, C, h, w) = x.view(_BITS[x.dtype]), x.shape
        layout = (
            torch.channels_last
            if x.is_contiguous(memory_format=torch.channels_last)
            else torch.contiguous_format
        )
        high = torch.empty((1, C, h // 2, w), dtype=bits.dtype, device=x.device, memory_format=layout)
        made = torch.empty(
            (len(x), C, h // 2, w // 2), dtype=bits.dtype, device=x.device, memory_format=layout
        )
        for one, out in zip(bits.split(1), made.split(1), strict=True):  # an image stays in a core's cache
            even, odd = one[:, :, 0::2], one[:, :, 1::2]
            torch.maximum(even, odd, out=high)
            torch.maximum(high[:, :, 1:], odd[:, :, :-1], out=high[:, :, 1:])
            even, odd = high[..., 0::2], high[..., 1::2]
            torch.maximum(even, odd, out=out)
            torch.maximum(out[..., 1:], odd[..., :-1], out=out[..., 1:])
        return made.view(x.dtype)


def can_fuse(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch has the operators for this device, and the processor their arithmetic in `dtype`."""
    names = ("_reorder_convolution_weight", "_convolution_pointwise", "_is_mkldnn_bf16_supported")
    operators = torch.ops.mkldnn
    there = torch.backends.mkldnn.is_available() and all(hasattr(operators, name) for name in names)
    if device.type != "cpu" or not there:
        return False
    return dtype != torch.bfloat16 or bool(operators._is_mkldnn_bf16_supported())


class ResidualSum(nn.Module):
    """relu(last(steps(x)) + skip(x)): a residual block whose last convolution does its sum and ReLU."""

    def __init__(self, steps: nn.Sequential, last: FusedConv, skip: nn.Module) -> None:
        super().__init__()
        self.steps, self.last, self.skip = steps, last, skip

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h', w')."""
        made: Tensor = self.last(self.steps(x), self.skip(x))
        return made


def fuse_activations(net: nn.Module, *runs: Callable[[Any], Any]) -> nn.Module:
    """`net`, in evaluation mode and in its final type, with convolutions fused in place.

    runs: each passes an example through it. A network that takes another way for one of them (its modules
    read each other otherwise) is left as it is."""
    finite = all(bool(weight.isfinite().all()) for weight in net.parameters())
    flows = [observed(net, run) for run in runs] if finite else []
    flow = flows[0] if flows else None
    if flow is None or any(other is None or other.links() != flow.links() for other in flows[1:]):
        return net
    modules: dict[str, Any] = dict(net.named_modules())
    positive = {flow.gives[name] for name, module in modules.items() if _is_relu(module, flow, name)}
    for name, module in modules.items():
        if type(module) is nn.Conv2d and _fusible(module, name, flow):
            relu = flow.only_reader(name)
            follows = relu is not None and type(modules[relu]) is nn.ReLU
            put(net, name, FusedConv(module, "relu" if follows else "none"))
            if follows:
                put(net, str(relu), nn.Identity())
        elif type(module) is nn.MaxPool2d and _by_bits(module, name, flow, positive):
            put(net, name, MaxPoolAfterReLU())
    _fuse_sums(net)
    return net


def _is_relu(module: nn.Module, flow: Dataflow, name: str) -> bool:
    """Whether what it gives cannot be negative."""
    return type(module) is nn.ReLU and flow.once(name)


def _fusible(conv: nn.Conv2d, name: str, flow: Dataflow) -> bool:
    """Whether it pads by zeros, and its weights are read by itself alone."""
    plain = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return plain and flow.calls[name] > 0 and flow.readers[flow.key(conv.weight)] <= {name}


def _by_bits(pool: nn.MaxPool2d, name: str, flow: Dataflow, positive: set[Any]) -> bool:
    """Whether it is the pooling of MaxPoolAfterReLU, of what a ReLU gave."""
    settings = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    pair = [value if isinstance(value, tuple) else (value, value) for value in settings]
    plain = pair == [(3, 3), (2, 2), (1, 1), (1, 1)] and not pool.ceil_mode and not pool.return_indices
    return plain and flow.once(name) and flow.takes[name] in positive


def _fuse_sums(net: nn.Module) -> None:
    """The residual blocks of timm's ResNets, where nothing lies between the last convolution and the sum."""
    from timm.models.resnet import BasicBlock, Bottleneck

    for name, block in list(net.named_modules()):
        if name and type(block) in (BasicBlock, Bottleneck):
            skip: Any = block.downsample
            inner = [module for module in block.children() if module is not skip]
            steps: list[Any] = [module for module in inner if type(module) is not nn.Identity]
            if _ends_in_sum(block, steps):
                skip = nn.Identity() if skip is None else skip
                put(net, name, ResidualSum(nn.Sequential(*steps[:-2]), steps[-2], skip))


def _ends_in_sum(block: nn.Module, steps: list[Any]) -> bool:
    """Whether of the block's steps the last two are its last convolution, without ReLU, and the ReLU of the
    sum: no attention lies between them."""
    names = {id(module): name for name, module in block.named_children()}
    last, act = ("conv2", "act2") if not hasattr(block, "conv3") else ("conv3", "act3")
    if len(steps) < 2 or (names[id(steps[-2])], names[id(steps[-1])]) != (last, act):
        return False
    return isinstance(steps[-2], FusedConv) and steps[-2].then == "none" and type(steps[-1]) is nn.ReLU
