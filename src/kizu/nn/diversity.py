"""Feature diversity: how much an encoder's features differ from place to place and image to image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


@torch.no_grad()
def feature_diversity(level: Tensor) -> Tensor:
    """(B, C, h, w) -> (): standard deviation of the features scaled to length one, over all positions of the
    batch, mean over channels.

    ReContrast (NeurIPS 2023) section 2.3 and figure 5b, there for the encoder's second level. 0: all
    positions are alike, the encoder has collapsed; 1 / sqrt(C): directions are spread evenly."""
    unit = functional.normalize(level.float(), dim=1)
    return torch.var(unit, dim=(0, 2, 3), correction=0).sqrt().mean()
