"""The trained encoder within a scorer, for detectors that look at an image more than once: turned, shifted,
window by window."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kizu.errors import ShapeError
from kizu.representations.base import Representation
from kizu.types import FeatureMaps


class ImageEncoder(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> FeatureMaps in float32; on `device`, in `dtype`, for inference only.

    A scorer that holds one is built on its device: fused kernels are a device's own."""

    def __init__(self, encoder: Representation, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.network = encoder.for_inference(dtype, device)
        self.coarsest = max(encoder.strides)

    def forward(self, images: Tensor) -> FeatureMaps:
        """Raises ShapeError for images smaller than a cell of the coarsest level."""
        if min(images.shape[2:]) < self.coarsest:
            raise ShapeError(
                f"Images of {images.shape[2]} x {images.shape[3]} pixels are smaller than one cell of the "
                f"coarsest level, {self.coarsest} pixels: take larger images or finer levels."
            )
        return [level.float() for level in self.network(images)]
