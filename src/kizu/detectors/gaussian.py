"""Gaussian: one global density on pooled, L2-normalised features.

Card. Papers: Rippel, Mertens and Merhof, "Modeling the Distribution of Normal Data in Pre-Trained Deep
Features for Anomaly Detection", ICPR 2020; few-shot contrastive fine-tuning, section 3.5, Eq. 4-5, whose
density this is. Differences: Eq. 5 as printed leaves out the mean that Eq. 4 defines; the distance here is of
f - mu. With few images the covariance is singular: Ledoit-Wolf shrinkage (J. Multivariate Analysis 88, 2004),
computed in one streaming pass. The paper gives no map; here it is the score taken apart: with x_p the feature
at position p, f = mean_p x_p / |mean_p x_p| and s the score, the share of p is (x_p / |mean x| - mu)^T S^-1
(f - mu) / s, and the shares' mean over the positions is s itself."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from kizu import maps
from kizu.adaptation.base import Adaptation
from kizu.detectors.one_pass import OnePassDetector
from kizu.detectors.runtime import Runtime
from kizu.errors import ShapeError
from kizu.nn.patches import align_levels
from kizu.representations.base import Representation
from kizu.types import FeatureMaps


class Gaussian(OnePassDetector):
    """Score = Mahalanobis distance of the pooled feature; map = each position's share of it (it may be
    negative).

    Each level is averaged over its positions, levels are stacked to D channels and the vector is scaled to
    length one. sigma: smoothing of the map in pixels. Learned: mean_ (D,), whitening_ (D, D), shrinkage_ in
    [0, 1]."""

    preferred_levels: ClassVar[tuple[int, ...]] = (4,)
    _shapes: ClassVar[dict[str, str]] = {"mean": "D", "whitening": "D D"}

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        sigma: float = 4.0,
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(representation, adaptation=adaptation, runtime=runtime)
        self.sigma = sigma

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """64-pixel parameters."""
        return cls(
            representation, sigma=2.0, adaptation=adaptation, runtime=Runtime(image_size=64, precision="fp32")
        )

    def _reset(self) -> None:
        self._moments = ShrunkCovariance()

    def _partial_fit(self, features: FeatureMaps) -> None:
        self._moments.update(pooled(features))

    def _finalize(self) -> None:
        self.mean_, covariance, self.shrinkage_ = self._moments.finish()
        self.whitening_ = whitening(covariance).float().contiguous()
        self.mean_ = self.mean_.float()
        del self._moments

    def scorer(self) -> GaussianScorer:
        """The density."""
        return GaussianScorer(self.mean_, self.whitening_, sigma=self.sigma)

    def _state(self) -> dict[str, Tensor]:
        return {"mean": self.mean_, "whitening": self.whitening_}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        self.mean_, self.whitening_ = tensors["mean"], tensors["whitening"]


class GaussianScorer(nn.Module):
    """FeatureMaps -> (map (B, H, W), score (B,)). mean (D,), whitening (D, D): see Gaussian."""

    mean: Tensor
    whitening: Tensor

    def __init__(self, mean: Tensor, whitening: Tensor, *, sigma: float) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("whitening", whitening)
        self.sigma = sigma

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """[(B, C_l, h_l, w_l)] of images of `size` (H, W). Raises ShapeError for other features."""
        channels = sum(level.shape[1] for level in features)
        if channels != len(self.mean):
            raise ShapeError(
                f"The representation gives {channels} channels, the model was fitted on {len(self.mean)}."
            )
        raw = torch.cat([level.mean(dim=(2, 3)) for level in features], dim=1)
        length = raw.norm(dim=1, keepdim=True).clamp_min(1e-12)  # (B, 1)
        white = (raw / length - self.mean) @ self.whitening.T
        score = white.norm(dim=1)
        direction = (white / score.clamp_min(1e-12)[:, None]) @ self.whitening  # (B, D): S^-1 (f - mu) / s
        grid = align_levels(features)  # (B, D, h, w)
        share = (
            torch.einsum("bd,bdhw->bhw", direction / length, grid) - (direction @ self.mean)[:, None, None]
        )
        return maps.upsample(share, size, sigma=self.sigma), score


def pooled(features: FeatureMaps) -> Tensor:
    """[(B, C_l, h_l, w_l)] -> (B, sum C_l), averaged over positions, stacked, of unit length."""
    return functional.normalize(torch.cat([level.mean(dim=(2, 3)) for level in features], dim=1), dim=1)


def whitening(covariance: Tensor) -> Tensor:
    """W with W S W^T = 1 for a covariance S (D, D): |W (f - mu)| is the Mahalanobis distance.

    A singular S is lifted by 1e-6 of its mean variance.
    """
    D = len(covariance)
    lift = 1e-6 * covariance.diagonal().mean().clamp_min(1e-12)
    factor = torch.linalg.cholesky(covariance + lift * torch.eye(D, dtype=covariance.dtype))
    return torch.linalg.solve_triangular(factor, torch.eye(D, dtype=covariance.dtype), upper=False)


class ShrunkCovariance:
    """Mean and Ledoit-Wolf covariance of rows that arrive in batches: memory O(D^2), equal to the two-pass
    estimate in float64.

    Shrinkage = min(beta, delta) / delta towards the mean variance, delta = |S - mu 1|^2 / D, beta = sum_i
    |x_i x_i^T - S|^2 / (n^2 D) (Ledoit and Wolf 2004, sections 3.2-3.3; x_i centred). The fourth moment that
    beta needs is accumulated about the first batch's mean and moved to the final mean at the end."""

    def __init__(self) -> None:
        self.count = 0

    def update(self, rows: Tensor) -> None:
        """Add rows (n, D)."""
        rows = rows.double().cpu()
        if not self.count:
            D = rows.shape[1]
            self.origin = rows.mean(0)
            self.first, self.cubic = torch.zeros(D, dtype=torch.float64), torch.zeros(D, dtype=torch.float64)
            self.second, self.fourth = torch.zeros(D, D, dtype=torch.float64), 0.0
        shifted = rows - self.origin
        square = shifted.square().sum(1)
        self.count += len(rows)
        self.first += shifted.sum(0)
        self.second += shifted.T @ shifted
        self.cubic += square @ shifted
        self.fourth += float(square.square().sum())

    def finish(self) -> tuple[Tensor, Tensor, float]:
        """(mean (D,), covariance (D, D), shrinkage), float64. One row alone gives the unit covariance:
        distances are then Euclidean."""
        n, D = self.count, len(self.first)
        offset = self.first / n
        covariance = self.second / n - torch.outer(offset, offset)
        mean_variance = float(covariance.diagonal().mean())
        if n == 1 or mean_variance <= 0:
            return self.origin + offset, torch.eye(D, dtype=torch.float64), 1.0
        target = torch.eye(D, dtype=torch.float64) * mean_variance
        spread = float((covariance - target).square().sum()) / D
        beta = (self._fourth_about(offset) / n - float(covariance.square().sum())) / (n * D)
        shrinkage = 1.0 if spread == 0 else min(max(beta, 0.0), spread) / spread
        return self.origin + offset, (1 - shrinkage) * covariance + shrinkage * target, shrinkage

    def _fourth_about(self, offset: Tensor) -> float:
        """sum_i |x_i - offset|^4 from the moments about the origin."""
        length = float(offset @ offset)
        square = float(self.second.diagonal().sum())
        terms = self.fourth + 4 * float(offset @ self.second @ offset) + self.count * length**2
        return (
            terms
            - 4 * float(self.cubic @ offset)
            + 2 * length * square
            - 4 * length * float(self.first @ offset)
        )
