"""Batch norm over the batch of all processes: then several processes compute what one would.

Card. Idea: each process of a run sees its share of a batch; plain batch norm takes mean and variance of that
share, so that the result depends on the number of processes. Here both are taken over all shares. Formula:
mean = sum of x / N and variance = sum of (x - mean)^2 / N, both sums over all processes, of which each has
the same number of values; gradients flow through both sums. Source: Ioffe and Szegedy, Batch
Normalization, ICML 2015, for the norm; torch.nn.SyncBatchNorm does the same on accelerators, and only
there. Example: `torchrun --nproc-per-node 2 -m kizu pretrain simsiam ...`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kizu.training.distributed import rank_and_world, summed


def synchronise_batch_norms(net: nn.Module, device: torch.device) -> nn.Module:
    """`net` with every batch norm taking its statistics from all processes: torch's own on an accelerator,
    `SyncBatchNorm` on a CPU. Parameters are shared with `net`, and names of the state stay.

    On a CPU only torch's batch norms and timm's with an activation are known; others stay as they are."""
    from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm

    if device.type != "cpu":
        made: nn.Module = convert_sync_batchnorm(net)
        return made
    if type(net) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d):
        return SyncBatchNorm(net)
    for name, child in net.named_children():
        setattr(net, name, synchronise_batch_norms(child, device))
    return net


class SyncBatchNorm(_BatchNorm):
    """A batch norm of any number of axes whose statistics are those of all processes, each of which has
    inputs of the same shape. In evaluation, and in a single process, it is the plain one.

    norm: the one it stands for, whose parameters and buffers it shares; timm's norms apply an activation of
    their own, which is kept."""

    def __init__(self, norm: Any) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        for name, after in norm.named_children():
            self.add_module(name, after)
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape."""
        alone = rank_and_world()[1] == 1 or not self.training
        normalised = super().forward(x) if alone else self._normalise(x)
        for after in self.children():
            normalised = after(normalised)
        return normalised

    def _normalise(self, x: Tensor) -> Tensor:
        """By mean and variance over all processes, which move the running ones."""
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        values = x.float()
        count = rank_and_world()[1] * values.numel() // values.shape[1]
        mean = summed(values.sum(axes)) / count
        apart = values - mean.view(shape)
        variance = summed(apart.square().sum(axes)) / count
        self._note(mean.detach(), variance.detach() * count / max(count - 1, 1))
        normalised = apart * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(x.dtype)

    def _note(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of a batch; without momentum, to their average."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        rate = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), rate)
        self.running_var.lerp_(variance.to(self.running_var), rate)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"batch norm takes (B, C, ...), got {tuple(input.shape)}")
