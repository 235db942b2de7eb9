"""Batch norms folded into the convolutions before them: the same function, fewer passes over the maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from kizu.accel.dataflow import observed, tensors

ROUNDING = 1e-3
"""Of the largest value: what folding may change in float32, with room for deep networks."""


def fold_batch_norms(net: nn.Module, *runs: Callable[[Any], Any]) -> nn.Module:
    """`net`, which nobody else uses, in evaluation mode; its batch norms become part of the convolution
    before them, where no other module reads what that gives.

    runs: each passes an example through a network and gives its result. What follows what is seen in the
    first; the results of all of them must stay the same, up to rounding, else nothing is folded (a network
    that takes another way at another size is no chain of modules)."""
    net.eval().requires_grad_(False)
    flow = observed(net, runs[0])
    if flow is None:
        return net
    modules: dict[str, Any] = dict(net.named_modules())
    readers = {name: flow.only_reader(name) for name, module in modules.items() if _is_conv(module)}
    pairs = [(name, norm) for name, norm in readers.items() if norm and _folds(modules[name], modules[norm])]
    before = _results(net, runs) if pairs else None
    for name, norm in pairs:
        folded = fuse_conv_bn_eval(modules[name], modules[norm], transpose=_is_transposed(modules[name]))
        put(net, name, folded)
        put(net, norm, _rest(modules[norm]))
    if pairs and not _agree(before, _results(net, runs)):
        for name in [name for pair in pairs for name in pair]:
            put(net, name, modules[name])
    return net


def put(net: nn.Module, path: str, module: nn.Module) -> None:
    """`module` in the place of the one of that name."""
    parent, _, name = path.rpartition(".")
    setattr(net.get_submodule(parent), name, module)


def _is_conv(module: nn.Module) -> bool:
    return type(module) in (nn.Conv2d, nn.ConvTranspose2d)


def _is_transposed(module: nn.Module) -> bool:
    return isinstance(module, nn.ConvTranspose2d)


def _folds(conv: Any, norm: Any) -> bool:
    """Whether the second is a batch norm with the statistics of its training (timm's may have an activation
    behind it), and torch folds it."""
    from timm.layers.norm_act import BatchNormAct2d

    grouped = _is_transposed(conv) and conv.groups != 1
    return type(norm) in (nn.BatchNorm2d, BatchNormAct2d) and norm.running_mean is not None and not grouped


def _rest(norm: Any) -> nn.Module:
    """What follows the batch norm in its module."""
    return nn.Identity() if type(norm) is nn.BatchNorm2d else nn.Sequential(norm.drop, norm.act)


@torch.no_grad()
def _results(net: nn.Module, runs: tuple[Callable[[Any], Any], ...]) -> list[Tensor] | None:
    """None where the network does not bear one of the examples."""
    try:
        return [value.clone() for run in runs for value in tensors(run(net))]
    except Exception:  # whatever a network of another size, kind or type raises
        return None


def _agree(before: list[Tensor] | None, after: list[Tensor] | None) -> bool:
    if before is None or after is None or len(before) != len(after):
        return False
    return all(
        own.shape == other.shape and bool(((own - other).abs() <= ROUNDING * other.abs().max()).all())
        for own, other in zip(after, before, strict=True)
        if other.numel()
    )
