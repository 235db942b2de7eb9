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

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor

from kizu import checks, store
from kizu.adaptation.base import Adaptation
from kizu.detectors._density_scorer import DensityScorer
from kizu.detectors.one_pass import OnePassDetector
from kizu.detectors.runtime import Runtime
from kizu.errors import UnknownName
from kizu.nn.density import COVARIANCES, density, pool
from kizu.representations.base import Representation
from kizu.training import Position
from kizu.types import Batch, FeatureMaps
from kizu.views.affine import AUGMENTATIONS, affine

ORIGINS = ("mean", "zero")


class Gaussian(OnePassDetector):
    """Score: the Mahalanobis distance of the pooled feature. Map: each position's share of it, which may be
    negative.

    copies: N_A, how many augmented copies of each image are learned instead of the image itself (Eq. 4); 0
    for none. augmentation: of the copies, "industrial" (affine, blur, grey) or "affine". normalise: whether
    pooled features have length one. covariance: "ledoit_wolf", "pseudo_inverse" or "ridge" with `ridge` on
    the diagonal. origin: distances from the "mean", or from "zero", as Eq. 5 is printed. sigma: smoothing
    of the map in pixels. seed: of the copies. Learned: mean_ (D,), whitening_ (D, D), shrinkage_ in [0, 1],
    and rows_ (n, D), the pooled features themselves, so that more good images can be added (`update`).

    Source: Rippel et al., ICPR 2020; few-shot contrastive fine-tuning, Eq. 4-5."""

    preferred_levels: ClassVar[tuple[int, ...]] = (4,)
    _shapes: ClassVar[dict[str, str]] = {"mean": "D", "whitening": "D D"}

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        copies: int = 0,
        augmentation: str = "industrial",
        normalise: bool = True,
        covariance: str = "ledoit_wolf",
        ridge: float = 1e-6,
        origin: str = "mean",
        sigma: float = 4.0,
        seed: int = 0,
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(representation, adaptation=adaptation, runtime=runtime)
        for name, value, known in (
            ("augmentation", augmentation, tuple(AUGMENTATIONS)),
            ("covariance", covariance, COVARIANCES),
            ("origin", origin, ORIGINS),
        ):
            if value not in known:
                raise UnknownName(name, str(value), known)
        checks.whole_numbers(least=0, copies=copies, seed=seed)
        checks.switches(normalise=normalise)
        checks.numbers(least=0.0, sigma=sigma)
        checks.numbers(least=0.0, above=True, ridge=ridge)
        if not copies:
            checks.without_effect("without copies", augmentation=(augmentation, "industrial"))
        if covariance != "ridge":
            checks.without_effect("with another covariance than 'ridge'", ridge=(ridge, 1e-6))
        self.copies, self.augmentation, self.normalise = copies, augmentation, normalise
        self.covariance, self.ridge, self.origin = covariance, ridge, origin
        self.sigma, self.seed = sigma, seed

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """64-pixel parameters."""
        return cls(
            representation, sigma=2.0, adaptation=adaptation, runtime=Runtime(image_size=64, precision="fp32")
        )

    @property
    def takes_features(self) -> bool:
        """Whether it can be fitted on features: not when it augments images."""
        return super().takes_features and not self.copies

    def _consume(self, batches: Iterable[Batch]) -> Iterator[tuple[int, FeatureMaps]]:
        """As of the base, or of augmented copies; these have features, but only the first of them counts."""
        if not self.copies:
            yield from super()._consume(batches)
            return
        seen, (blur, grey) = self._drawn, AUGMENTATIONS[self.augmentation]
        for batch in batches:
            images = batch.require_images()
            draws = Position(0, seen, len(batch)).generators(self.seed)
            seen += len(batch)
            for number in range(self.copies):
                view = affine(images, generator=draws, blur_chance=blur, grey_chance=grey)
                for count, features in super()._consume([Batch(view)]):
                    yield (0 if number else count), features

    def _reset(self) -> None:
        self._rows: list[Tensor] = []
        self._drawn = 0  # images whose copies have been drawn

    def check_update(self) -> None:
        """Its features are kept: it can always learn on."""

    def _go_on(self) -> None:
        self._rows, self._drawn = [self.rows_.to(self._device)], self.images_seen_

    def _partial_fit(self, features: FeatureMaps) -> None:
        pooled, length = pool(features)
        self._rows.append(pooled / length if self.normalise else pooled)

    def _finalize(self) -> None:
        self.rows_ = torch.cat(self._rows).float().cpu()
        mean, matrix, self.shrinkage_ = density(self.rows_.double(), self.covariance, ridge=self.ridge)
        self.mean_, self.whitening_ = mean.float(), matrix.float().contiguous()
        self._rows = []

    def scorer(self) -> DensityScorer:
        """The Mahalanobis distance and its shares."""
        mean = self.mean_ if self.origin == "mean" else torch.zeros_like(self.mean_)
        return DensityScorer(
            mean, self.whitening_, sigma=self.sigma, normalise=self.normalise, centres=self.centres
        )

    def _state(self) -> dict[str, Tensor]:
        return {"mean": self.mean_, "whitening": self.whitening_, "rows": self.rows_}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        width = sum(self.representation_.channels)
        store.expect("Gaussian", tensors, {"mean": f"{width}", "rows": f"n {width}"})
        self.rows_ = tensors["rows"].float()
        self.mean_, self.whitening_ = tensors["mean"].float(), tensors["whitening"].float()
