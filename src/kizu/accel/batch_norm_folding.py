"""Batch norms folded into the convolutions before them: the same function, fewer passes over the maps."""

from __future__ import annotations

import copy

from torch import fx, nn
from torch.nn.utils import fuse_conv_bn_eval


def fold_batch_norms(net: nn.Module, *, in_place: bool = False) -> nn.Module:
    """A copy of `net` (in evaluation mode) whose convolution + batch norm pairs are one convolution each.

    Exact up to rounding. A network that symbolic tracing cannot follow (its forward branches on values) comes
    back unfolded. in_place: made of `net` itself, which is of no other use then."""
    net = (net if in_place else copy.deepcopy(net)).eval()
    try:
        graph = fx.Tracer().trace(net)
    except (fx.proxy.TraceError, TypeError, RuntimeError, NameError, AttributeError, KeyError, ValueError):
        return net
    modules = dict(net.named_modules())
    for node in list(graph.nodes):
        before = node.args[0] if node.args else None
        if not (
            node.op == "call_module"
            and type(modules[node.target]) is nn.BatchNorm2d
            and isinstance(before, fx.Node)
        ):
            continue
        if (
            before.op != "call_module"
            or type(modules[before.target]) is not nn.Conv2d
            or len(before.users) > 1
        ):
            continue
        _put(net, str(before.target), fuse_conv_bn_eval(modules[before.target], modules[node.target]))
        node.replace_all_uses_with(before)
        graph.erase_node(node)
    return fx.GraphModule(net, graph)


def _put(net: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(net.get_submodule(parent), name, module)
