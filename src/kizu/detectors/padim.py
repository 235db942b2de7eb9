"""PaDiM: one Gaussian per position on a random subset of the stacked channels.

Card. Paper: Defard, Setkov, Loesch and Audigier, "PaDiM: a Patch Distribution Modeling Framework for Anomaly
Detection and Localization", ICPR Workshops 2020, section III. No official code; the common re-implementation
(xiahaifeng1995) agrees in what follows: levels 1-3 brought to level 1's grid by repetition, d = 100 of 448
channels for ResNet-18 and 550 of 1,792 for WRN-50, covariance with n - 1 plus 0.01 on the diagonal (the
paper's Eq. 1 and its eps), distance sqrt((f - mu)^T S^-1 (f - mu)) (Eq. 2), bilinear upsampling, Gaussian of
sigma 4, image score = maximum of the map. Differences: the subset is drawn by a generator of our own; no
min-max over the test set; whitening factors are kept instead of inverses, rounded to float16 once fitted (the
distance moves by about 1e-4 of itself), once for all positions that share them (_nesting): a file is a tenth
of one with full float32 matrices."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from kizu import maps
from kizu.accel.nesting import Grids, Nesting, cells_of, grids_of, nesting
from kizu.accel.position_gaussians import PositionGaussians, distances, unpack
from kizu.adaptation.base import Adaptation
from kizu.detectors.one_pass import OnePassDetector
from kizu.detectors.runtime import Runtime
from kizu.errors import ModelFileError, ShapeError, UsageError
from kizu.nn.patches import finest_grid
from kizu.representations.base import Representation
from kizu.types import FeatureMaps

SIDE = 4096
"""Largest side of a grid that a model file may have: 16 million positions."""


class PaDiM(OnePassDetector):
    """Mahalanobis distance at each position.

    dimensions: channels kept, drawn once from `seed` (all of them when there are not more; None keeps all).
    eps: added to the covariance's diagonal. sigma: smoothing of the map in pixels. Learned: channels_ (D,),
    grids_ (h, w) of each level, and for each stage of _nesting means_ (C, d) and the factors of
    _position_gaussians. All images must have one size."""

    preferred_levels: ClassVar[tuple[int, ...]] = (1, 2, 3)
    _shapes: ClassVar[dict[str, str]] = {"channels": "D", "grids": "L 2", "mean": "M"}

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        dimensions: int | None = 100,
        eps: float = 0.01,
        sigma: float = 4.0,
        seed: int = 0,
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(representation, adaptation=adaptation, runtime=runtime)
        if dimensions is not None and dimensions < 1:
            raise UsageError(
                f"dimensions is how many channels to keep, at least 1 (None: all), got {dimensions}."
            )
        if eps <= 0:
            raise UsageError(f"eps keeps the covariance positive definite and must be above 0, got {eps}.")
        self.dimensions, self.eps, self.sigma, self.seed = dimensions, eps, sigma, seed

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """64-pixel parameters."""
        return cls(
            representation,
            dimensions=24,
            sigma=2.0,
            adaptation=adaptation,
            runtime=Runtime(image_size=64, precision="fp32"),
        )

    def _reset(self) -> None:
        self._positions: PositionGaussians | None = None
        total = sum(self.representation.channels)
        kept = total if self.dimensions is None else min(self.dimensions, total)
        order = torch.randperm(total, generator=torch.Generator().manual_seed(self.seed))
        self._choose(order[:kept].sort().values)

    def _choose(self, channels: Tensor) -> None:
        """Take channels (D,) of all levels together, rising; `_chosen`: those of each level."""
        self.channels_ = channels
        starts = list(itertools.accumulate(self.representation.channels, initial=0))
        self._chosen = [
            channels[(channels >= start) & (channels < stop)] - start
            for start, stop in itertools.pairwise(starts)
        ]

    def _nest(self, grids: Grids, device: torch.device) -> Nesting:
        return nesting(grids, tuple(len(mine) for mine in self._chosen), device)

    def _preprocess(self, features: FeatureMaps) -> FeatureMaps:
        grids = grids_of(features)
        return [*cells_of(features, self._chosen, self._nest(grids, features[0].device)), torch.tensor(grids)]

    def _partial_fit(self, features: FeatureMaps) -> None:
        *cells, grids = features
        if self._positions is None:
            self.grids_ = tuple((int(h), int(w)) for h, w in grids)
            self._positions = PositionGaussians(self._nest(self.grids_, cells[0].device))
        elif grids.tolist() != [list(grid) for grid in self.grids_]:
            raise ShapeError(
                f"All images must have one size: a grid of {tuple(grids[0].tolist())} after {self.grids_[0]}."
            )
        self._positions.update(cells)

    def _finalize(self) -> None:
        assert self._positions is not None  # there was an image
        means, factors, self.thin_ = self._positions.finish(self.eps)
        self._positions = None
        self.means_ = [mean.half().float().cpu() for mean in means]
        self._keep([factor.cpu() for factor in factors])

    def _keep(self, stored: list[Tensor]) -> None:
        """Take the factors as they are on disk, so that a saved model and the fitted one give the same
        numbers."""
        self.stored_ = stored

    def scorer(self) -> nn.Module:
        """The distances at each position."""
        return _Scorer(self)

    def _state(self) -> dict[str, Tensor]:
        return {
            "channels": self.channels_,
            "mean": torch.cat([mean.flatten() for mean in self.means_]).half(),
            "factor": self.stored_[0]
            if self.thin_
            else torch.cat([factor.flatten() for factor in self.stored_]),
            "grids": torch.tensor(self.grids_),
        }

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        self._choose(tensors["channels"])
        self.grids_ = tuple((int(h), int(w)) for h, w in tensors["grids"])
        factor, mean = tensors.get("factor"), tensors["mean"]
        sound = len(self.grids_) == len(self._chosen) and all(
            0 < h <= SIDE and 0 < w <= SIDE for h, w in self.grids_
        )
        if (
            factor is None
            or not sound
            or sum(len(mine) for mine in self._chosen) != len(self.channels_)
            or not len(self.channels_)
        ):
            raise ModelFileError(
                f"The PaDiM model does not fit together: {len(self.channels_)} channels, grids "
                f"{self.grids_}, {len(self._chosen)} levels."
            )
        nest = self._nest(self.grids_, torch.device("cpu"))
        self.thin_ = factor.ndim == 3
        sizes = [len(stage) * len(places) for stage, places in zip(nest.stages, nest.triangles, strict=True)]
        fits = (
            factor.shape[::2] == (len(nest.stages[-1]), nest.widths[-1])
            if self.thin_
            else factor.shape == (sum(sizes),)
        )
        counts = [stage.count * stage.width for stage in nest.stages]
        if not fits or len(mean) != sum(counts):
            raise ModelFileError(
                f"The PaDiM model does not fit together: grids {self.grids_}, mean {tuple(mean.shape)}, "
                f"factor {tuple(factor.shape)}."
            )
        self.means_ = [
            part.view(-1, stage.width)
            for part, stage in zip(mean.float().split(counts), nest.stages, strict=True)
        ]
        parts = zip(factor.split(sizes), nest.stages, strict=True) if not self.thin_ else []
        self._keep([factor] if self.thin_ else [part.view(len(stage), -1) for part, stage in parts])


class _Scorer(nn.Module):
    def __init__(self, padim: PaDiM) -> None:
        super().__init__()
        self.padim = padim
        nest = padim._nest(padim.grids_, torch.device("cpu"))
        factors = [padim.stored_[0].transpose(1, 2)] if padim.thin_ else unpack(padim.stored_, nest)
        self.factors = nn.ParameterList(nn.Parameter(factor, requires_grad=False) for factor in factors)
        self.means = nn.ParameterList(nn.Parameter(mean, requires_grad=False) for mean in padim.means_)

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        grids, padim = grids_of(features), self.padim
        if grids != padim.grids_:
            raise ShapeError(
                f"The model was fitted on a grid of {padim.grids_[0]} positions, these images give "
                f"{grids[0]}: use the "
                "size it was fitted at."
            )
        nest = padim._nest(grids, features[0].device)
        cells = cells_of(features, padim._chosen, nest)
        differences = [
            torch.sub(one.transpose(0, 1), mean[:, None]) for one, mean in zip(cells, self.means, strict=True)
        ]
        flat = distances(differences, nest, list(self.factors), padim.thin_, padim.eps)
        map_ = maps.upsample(flat.T.unflatten(1, finest_grid(features)), size, sigma=padim.sigma)
        return map_, maps.image_score(map_)
