"""PaDiM: one Gaussian per position on a random subset of the stacked channels.

Card. Paper: Defard, Setkov, Loesch and Audigier, "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and
Localization", ICPR Workshops 2020, section III. No official code; the common re-implementation (xiahaifeng1995) agrees in
what follows: levels 1-3 brought to level 1's grid by repetition, d = 100 of 448 channels for ResNet-18 and 550 of 1,792 for
WRN-50, covariance with n - 1 plus 0.01 on the diagonal (the paper's Eq. 1 and its eps), distance sqrt((f - mu)^T S^-1 (f - mu)) (Eq. 2),
bilinear upsampling, Gaussian of sigma 4, image score = maximum of the map. Differences: the subset is drawn by a generator of
our own; no min-max over the test set; whitening factors are kept instead of inverses, rounded to float16 once fitted (the
distance moves by about 1e-4 of itself), so that a file is a fifth of a float32 one with full matrices.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor

from kizu import maps
from kizu.detectors._base import Detector
from kizu.detectors._position_gaussians import PositionGaussians, distances, unpack
from kizu.errors import ModelFileError, ShapeError, UsageError
from kizu.nn.patches import finest_grid, repeated_channels
from kizu.representations._base import Representation
from kizu.types import FeatureMaps


class PaDiM(Detector):
    """Mahalanobis distance at each position.

    dimensions: channels kept, drawn once from `seed` (all of them when there are not more; None keeps all). eps: added to
    the covariance's diagonal. sigma: smoothing of the map in pixels. Learned: channels_ (D,), mean_ (P, D), and the factors
    of _position_gaussians. All images must have one size.
    """

    preferred_levels: ClassVar[tuple[int, ...]] = (1, 2, 3)
    any_precision: ClassVar[bool] = True
    _shapes: ClassVar[dict[str, str]] = {"channels": "D", "mean": "P D", "grid": "2"}

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        dimensions: int | None = 100,
        eps: float = 0.01,
        sigma: float = 4.0,
        seed: int = 0,
        image_size: int | tuple[int, int] = 256,
        precision: str = "auto",
        device: str = "auto",
        batch_size: int = 16,
    ) -> None:
        super().__init__(representation, image_size=image_size, precision=precision, device=device, batch_size=batch_size)
        if dimensions is not None and dimensions < 1:
            raise UsageError(f"dimensions is how many channels to keep, at least 1 (None: all), got {dimensions}.")
        if eps <= 0:
            raise UsageError(f"eps keeps the covariance positive definite and must be above 0, got {eps}.")
        self.dimensions, self.eps, self.sigma, self.seed = dimensions, eps, sigma, seed

    @classmethod
    def tiny(cls, representation: Representation | str) -> Self:
        """64-pixel knobs."""
        return cls(representation, dimensions=24, image_size=64, precision="fp32", sigma=2.0)

    def _begin(self) -> None:
        self._positions = PositionGaussians()
        total = sum(self.representation.channels)
        kept = total if self.dimensions is None else min(self.dimensions, total)
        order = torch.randperm(total, generator=torch.Generator().manual_seed(self.seed))
        self.channels_ = order[:kept].sort().values

    def _digest(self, features: FeatureMaps) -> FeatureMaps:
        return [repeated_channels(features, self.channels_)]

    def _observe(self, features: FeatureMaps) -> None:
        self._positions.update(features[0])

    def _finish(self) -> None:
        mean, factor, self.thin_ = self._positions.finish(self.eps, packed=True)
        self.grid_ = self._positions.grid or (0, 0)
        del self._positions
        self.mean_ = mean.half().float().cpu()
        self._keep(factor.cpu())

    def _keep(self, stored: Tensor) -> None:
        """Take the factor as it is on disk, so that a saved model and the fitted one give the same numbers."""
        self.stored_ = stored
        self._factor: Tensor | None = None

    def _ready(self, device: torch.device) -> None:
        if self._factor is None:
            self._factor = self.stored_.transpose(1, 2) if self.thin_ else unpack(self.stored_, len(self.channels_))  # (P, D, K)
        self._factor, self.mean_ = self._factor.to(device), self.mean_.to(device)

    def _score(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        h, w = finest_grid(features)
        if (h, w) != self.grid_:
            raise ShapeError(
                f"The model was fitted on a grid of {self.grid_} positions, these images give {(h, w)}: use the size it was fitted at."
            )
        assert self._factor is not None  # set by _ready
        difference = repeated_channels(features, self.channels_, less=self.mean_).flatten(2).permute(2, 0, 1)  # (P, B, D)
        grid = distances(difference, self._factor, self.thin_, self.eps).T.unflatten(1, (h, w))
        map_ = maps.upsample(grid, size, sigma=self.sigma)
        return map_, maps.image_score(map_)

    def _state(self) -> dict[str, Tensor]:
        return {
            "channels": self.channels_,
            "mean": self.mean_.half(),
            "factor": self.stored_,
            "grid": torch.tensor(self.grid_),
        }

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        self.channels_, self.mean_ = tensors["channels"], tensors["mean"].float()
        self.grid_ = (int(tensors["grid"][0]), int(tensors["grid"][1]))
        P, D = self.mean_.shape
        stored = tensors.get("factor")
        self.thin_ = stored is not None and stored.ndim == 3
        fits = stored is not None and (
            tuple(stored.shape) == (P, D * (D + 1) // 2) or (self.thin_ and stored.shape[0] == P and stored.shape[2] == D)
        )
        if stored is None or not fits or self.grid_[0] * self.grid_[1] != P:
            shape = None if stored is None else tuple(stored.shape)
            raise ModelFileError(f"The PaDiM model does not fit together: mean {(P, D)}, grid {self.grid_}, factor {shape}.")
        self._keep(stored)
