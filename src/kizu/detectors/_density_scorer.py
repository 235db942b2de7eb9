"""The Gaussian density of pooled features as a scorer: Mahalanobis distance, and each position's share of
it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kizu import maps, store
from kizu.errors import ShapeError
from kizu.nn.density import density, pool
from kizu.nn.patches import align_levels, finest_centre
from kizu.types import Centres, FeatureMaps


class DensityScorer(nn.Module):
    """Features [(B, C_l, h_l, w_l)], size (H, W) -> map (B, H, W), score (B,).

    mean: (D,), from which distances are. whitening: W (D, D) with W S W^T = 1. sigma: of the map's
    smoothing, in pixels. normalise: whether pooled features have length one.
    """

    mean: Tensor
    whitening: Tensor

    def __init__(
        self,
        mean: Tensor,
        whitening: Tensor,
        *,
        sigma: float,
        normalise: bool = True,
        centres: Centres | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("whitening", whitening)
        self.sigma, self.normalise, self.centres = sigma, normalise, centres

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Higher is more anomalous. Raises ShapeError for features of other channels than it was fitted
        on."""
        score, gradient, length = self.distance(features)
        position = align_levels(features) / length[:, :, None, None]  # (B, D, h, w): x_p / |mean x|
        share = torch.einsum("bd,bdhw->bhw", gradient, position) - (gradient @ self.mean)[:, None, None]
        centre = finest_centre(features, self.centres)
        return maps.upsample(share, size, sigma=self.sigma, centre=centre), score

    def distance(self, features: FeatureMaps) -> tuple[Tensor, Tensor, Tensor]:
        """Score s (B,), its gradient by the feature (B, D), and what features are divided by (B, 1)."""
        channels = sum(level.shape[1] for level in features)
        if channels != len(self.mean):
            raise ShapeError(
                f"The representation gives {channels} channels, the model was fitted on {len(self.mean)}."
            )
        pooled, length = pool(features)
        length = length if self.normalise else torch.ones_like(length)
        white = (pooled / length - self.mean) @ self.whitening.T  # (B, D): W (f - mu)
        score = white.norm(dim=1)
        gradient = (white / score.clamp_min(1e-12)[:, None]) @ self.whitening  # S^-1 (f - mu) / s
        return score, gradient, length


def unit_density(rows: Tensor, covariance: str) -> tuple[Tensor, Tensor]:
    """Pooled features (n, D) float64 -> mean (D,) and whitening (D, D) of the rows at length one, float32."""
    mean, matrix, _ = density(rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12), covariance)
    return mean.float(), matrix.float().contiguous()


def opened_density(detector: str, tensors: dict[str, Tensor], D: int) -> tuple[Tensor, Tensor]:
    """Mean and whitening of a model file. Raises ModelFileError for other shapes than those of D features."""
    store.expect(detector, tensors, {"mean": f"{D}", "whitening": f"{D} {D}"})
    return tensors["mean"].float(), tensors["whitening"].float()
