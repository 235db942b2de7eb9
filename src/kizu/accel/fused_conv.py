"""Convolution, addition and ReLU as one pass over the maps, with packed weights: oneDNN's fused operators on
CPUs; and a max pooling of what comes out of a ReLU that compares bits.

These operators are the ones that torch's own compiler emits; they have no public name, so a torch that lacks
them, another device or a network that was not traced keeps the plain modules. The sums are the same; in
bfloat16 one rounding between them falls away. The fused ReLU makes 0 of NaN, so a network whose weights are
not finite is left as it is: NaN must come out of it to be noticed."""

from __future__ import annotations

import operator
import threading
from typing import Any

import torch
from torch import Tensor, fx, nn

KINDS = 4
"""Packings of a convolution's weights that are kept: for one image or several, and for each size of its
input."""
_PACKING = threading.Lock()
_ADDS = (operator.add, operator.iadd, torch.add)


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

    def _weight(self, x: Tensor) -> Tensor:
        """The weights as they are wanted for inputs like `x`: otherwise they would be packed anew at every
        call."""
        kind = (len(x) > 1, *x.shape[2:])
        packed = self.packed.get(kind)
        if packed is None:
            with _PACKING:
                dense = self.loose if self.loose is not None else next(iter(self.packed.values())).to_dense()
                packed = torch.ops.mkldnn._reorder_convolution_weight(dense, *self.shape, list(x.shape))
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
        if x.dtype not in _BITS or x.shape[2] % 2 or x.shape[3] % 2 or x.requires_grad:
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


def fuse_activations(net: nn.Module) -> nn.Module:
    """`net`, a traced network in its final type, with convolutions fused in place; another network comes back
    as it is."""
    if not isinstance(net, fx.GraphModule) or not all(
        bool(weight.isfinite().all()) for weight in net.parameters()
    ):
        return net
    modules: dict[str, Any] = dict(net.named_modules())
    for node in _calls(net, modules, nn.Identity):
        node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
        net.graph.erase_node(node)
    for node in _calls(net, modules, nn.Conv2d):
        conv = modules[str(node.target)]
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            continue
        relu = _only_user(node, modules)
        # of this call: a convolution may be called twice, with a ReLU behind it once
        name = f"{node.name}_fused"
        net.add_submodule(name, FusedConv(conv, "relu" if relu else "none"))
        node.target = name
        if relu:
            relu.replace_all_uses_with(node)
            net.graph.erase_node(relu)
    _fuse_sums(net, dict(net.named_modules()))
    _replace_pooling(net, dict(net.named_modules()))
    net.graph.lint()
    net.recompile()
    net.delete_all_unused_submodules()
    return net


def _fuse_sums(net: fx.GraphModule, modules: dict[str, Any]) -> None:
    """relu(convolution + other) where the convolution has no other use."""
    for node in list(net.graph.nodes):
        relu = _only_user(node, modules)
        if node.op != "call_function" or node.target not in _ADDS or node.kwargs or relu is None:
            continue
        for conv, other in (node.args[:2], node.args[1::-1]):
            if _is_plain(conv, modules) and isinstance(other, fx.Node):
                with net.graph.inserting_before(node):
                    made = net.graph.call_module(conv.target, (conv.args[0], other))
                relu.replace_all_uses_with(made)
                for done in (relu, node, conv):
                    net.graph.erase_node(done)
                break


def _replace_pooling(net: fx.GraphModule, modules: dict[str, Any]) -> None:
    """Max pooling behind a fused ReLU."""
    for node in _calls(net, modules, nn.MaxPool2d):
        pool, before = modules[str(node.target)], node.args[0]
        settings = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        pair = [value if isinstance(value, tuple) else (value, value) for value in settings]
        plain = pair == [(3, 3), (2, 2), (1, 1), (1, 1)] and not pool.ceil_mode and not pool.return_indices
        if plain and _ends_in_relu(before, modules):
            name = f"{node.name}_bits"
            net.add_submodule(name, MaxPoolAfterReLU())
            node.target = name


def _ends_in_relu(node: Any, modules: dict[str, Any]) -> bool:
    """Whether it is a fused convolution, or sum, whose last step is the ReLU."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return False
    module = modules[str(node.target)]
    return isinstance(module, FusedConv) and (module.then == "relu" or len(node.args) > 1)


def _calls(net: fx.GraphModule, modules: dict[str, Any], kind: type) -> list[fx.Node]:
    return [
        node
        for node in net.graph.nodes
        if node.op == "call_module" and type(modules[str(node.target)]) is kind
    ]


def _only_user(node: fx.Node, modules: dict[str, Any]) -> fx.Node | None:
    """The ReLU that alone uses the node's value."""
    users = list(node.users)
    if len(users) != 1 or users[0].op != "call_module" or type(modules[str(users[0].target)]) is not nn.ReLU:
        return None
    return users[0]


def _is_plain(node: Any, modules: dict[str, Any]) -> bool:
    """Whether it is a fused convolution without activation whose value has one use."""
    if not isinstance(node, fx.Node) or node.op != "call_module" or len(node.users) != 1:
        return False
    module = modules[str(node.target)]
    return isinstance(module, FusedConv) and module.then == "none"
