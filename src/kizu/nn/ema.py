"""The exponential moving average of a network's parameters."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def ema_update(average: nn.Module, current: nn.Module, rate: float) -> None:
    """average += rate * (current - average), parameter by parameter, in place; buffers stay as they are.

    The exponential moving average of MoCo (Eq. 2) and BYOL, with rate = 1 - momentum.

    >>> average, current = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.zeros_(average.weight), nn.init.ones_(current.weight)
    >>> ema_update(average, current, rate=0.25)
    >>> average.weight.item()
    0.25
    """
    for slow, fast in zip(average.parameters(), current.parameters(), strict=True):
        slow.lerp_(fast, rate)
