"""Batch norm that does not fall over where a channel of one product hardly varies.

Guo et al., ReContrast, NeurIPS 2023, appendix E: a batch variance below min(5e-4, pretrained variance) is
replaced by the pretrained one. Images of one product leave some channels of an ImageNet network dead;
dividing by their batch deviation blows up noise. The released "stable" script does the same with eps 1e-6;
here the norm keeps its own eps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

FLOOR = 5e-4
"""Batch variances below this, and below the pretrained one, are replaced; appendix E."""


class StableBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d whose batch variance has a floor in training; in evaluation the very same. Keeps names
    of state."""

    reference: Tensor

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> StableBatchNorm2d:
        """The same norm, its present running variance taken as the pretrained one. Parameters are shared, not
        copied."""
        twin = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        twin.weight, twin.bias = norm.weight, norm.bias
        twin.running_mean, twin.running_var = norm.running_mean, norm.running_var
        twin.num_batches_tracked = norm.num_batches_tracked
        reference = norm.running_var.detach().clone()  # type: ignore[union-attr]
        twin.register_buffer("reference", reference, persistent=False)
        return twin.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape. Running statistics take the variance that was used."""
        if not self.training:
            return super().forward(x)
        variance, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
        used = floored(variance, self.reference)
        with torch.no_grad():
            rate = self.momentum if self.momentum is not None else 0.1
            count = x.numel() / x.shape[1]
            self.running_mean.lerp_(mean.to(self.running_mean), rate)  # type: ignore[union-attr]
            unbiased = used * count / max(count - 1, 1)
            self.running_var.lerp_(unbiased.to(self.running_var), rate)  # type: ignore[union-attr]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        scale = self.weight * torch.rsqrt(used + self.eps)
        shift = self.bias - mean * scale
        return (x * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


def floored(variance: Tensor, reference: Tensor, floor: float = FLOOR) -> Tensor:
    """Variances (C,), those below min(floor, reference) replaced by `reference`, which sends no gradient."""
    return torch.where(variance < reference.clamp(max=floor), reference, variance)


def stabilise(net: nn.Module) -> None:
    """Put a StableBatchNorm2d in the place of every nn.BatchNorm2d with running statistics, in place;
    subclasses are left alone."""
    _exchange(
        net, lambda norm: StableBatchNorm2d.of(norm) if norm.affine and norm.track_running_stats else norm
    )


def unstabilise(net: nn.Module) -> None:
    """Put plain batch norms back, in place: statistics and parameters stay."""
    _exchange(net, _plain)


def _plain(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    if not isinstance(norm, StableBatchNorm2d):
        return norm
    twin = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    twin.weight, twin.bias = norm.weight, norm.bias
    twin.running_mean, twin.running_var = norm.running_mean, norm.running_var
    twin.num_batches_tracked = norm.num_batches_tracked
    return twin.train(norm.training)


def _exchange(net: nn.Module, replace: Callable[[nn.BatchNorm2d], nn.Module]) -> None:
    for name, child in list(net.named_children()):
        if isinstance(child, nn.BatchNorm2d) and type(child) in (nn.BatchNorm2d, StableBatchNorm2d):
            setattr(net, name, replace(child))
        else:
            _exchange(child, replace)
