"""Gaussian: one density of the whole image's feature, pooled over all positions.

Card. Papers: Rippel, Mertens and Merhof, "Modeling the Distribution of Normal Data in Pre-Trained Deep
Features for Anomaly Detection", ICPR 2020; few-shot contrastive fine-tuning, section 3.5, Eq. 4-5, whose
density this is. Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices",
Journal of Multivariate Analysis 88, 2004: the covariance, which is singular without it when images are few.

Differences: Eq. 5 as printed leaves out the mean that Eq. 4 defines; the distance here is that of f - mu. The
papers give no map. Ours takes the score apart: with x_p the feature at position p, f = mean_p x_p / |mean_p
x_p| and s the score, the share of p is (x_p / |mean_p x_p| - mu)^T S^-1 (f - mu) / s; the mean of all shares
is s.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor

from kizu import checks, store
from kizu.adaptation.base import Adaptation
from kizu.detectors._density_scorer import DensityScorer
from kizu.detectors.one_pass import OnePassDetector
from kizu.detectors.runtime import Runtime
from kizu.nn.density import density, pool
from kizu.representations.base import Representation
from kizu.types import FeatureMaps


class Gaussian(OnePassDetector):
    """Score: the Mahalanobis distance of the pooled feature. Map: each position's share of it, which may be
    negative.

    sigma: smoothing of the map in pixels. Learned: mean_ (D,), whitening_ (D, D), shrinkage_ in [0, 1].

    Source: Rippel et al., ICPR 2020; few-shot contrastive fine-tuning, Eq. 4-5."""

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
        checks.numbers(least=0.0, sigma=sigma)
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
        self._rows: list[Tensor] = []

    def _partial_fit(self, features: FeatureMaps) -> None:
        pooled, length = pool(features)
        self._rows.append(pooled / length)

    def _finalize(self) -> None:
        mean, matrix, self.shrinkage_ = density(torch.cat(self._rows).double().cpu())
        self.mean_, self.whitening_ = mean.float(), matrix.float().contiguous()
        self._rows = []

    def scorer(self) -> DensityScorer:
        """The Mahalanobis distance and its shares."""
        return DensityScorer(self.mean_, self.whitening_, sigma=self.sigma, centres=self.centres)

    def _state(self) -> dict[str, Tensor]:
        return {"mean": self.mean_, "whitening": self.whitening_}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        store.expect("Gaussian", tensors, {"mean": f"{sum(self.representation_.channels)}"})
        self.mean_, self.whitening_ = tensors["mean"].float(), tensors["whitening"].float()
