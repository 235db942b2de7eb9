"""PaDiM: one Gaussian for each position of the image, on a random subset of the stacked channels.

Card. Paper: Defard, Setkov, Loesch and Audigier, "PaDiM: a Patch Distribution Modeling Framework for Anomaly
Detection and Localization", ICPR Workshops 2020, section III. There is no official code. The common
re-implementation (xiahaifeng1995) agrees in what follows: levels 1-3 are brought to the grid of level 1 by
repetition; 100 of 448 channels for ResNet-18 and 550 of 1,792 for WRN-50 are kept; the covariance has n - 1
in its denominator and 0.01 added to its diagonal (Eq. 1 with its eps); the score of a position is sqrt((f -
mu)^T S^-1 (f - mu)) (Eq. 2); the map is upsampled bilinearly and smoothed with sigma 4; the image score is
the map's maximum.
levels="separate", dimensions=None is PaDiM as ADPretrain (NeurIPS 2025) runs it. Differences: channels are
drawn by a generator of our own; no min-max over the test set; mean and whitening are rounded to float16,
which changes a distance by about 1e-4 of itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from kizu import accel, checks, maps, store
from kizu.accel.nested_gaussians import NestedGaussians, expand
from kizu.adaptation.base import Adaptation
from kizu.detectors._level_gaussians import LevelGaussians
from kizu.detectors._padim_sums import KeepsSums
from kizu.detectors._predictions import factored, require_storable
from kizu.detectors.one_pass import OnePassDetector
from kizu.detectors.runtime import Runtime
from kizu.errors import EmptyData, ModelFileError, ShapeError, UnknownName
from kizu.nn import patches
from kizu.nn.patches import align_levels, channels_by_level, choose_channels, finest_centre, finest_grid
from kizu.representations.base import Representation
from kizu.types import Centres, FeatureMaps, Grids, grids_of

MAX_SIDE = 4096
"""Largest side of a grid that a model file may have: 16 million positions."""
MIN_EPS = 1e-9
"""Entries of W are at most 1 / sqrt(eps); float16 ends at 65504."""
LEVELS = ("joined", "separate")


class PaDiM(KeepsSums, OnePassDetector):
    """The Mahalanobis distance at each position, from the good images' features there. All images must have
    one size.

    dimensions: channels kept, drawn once from `seed`; all of them if there are fewer, or if it is None. eps:
    added to the diagonal of each covariance, so that it can be inverted whatever the number of images.
    levels: "joined", stacked into one Gaussian a position, or "separate", one a position and level: then
    `dimensions` are of each level, and the map is the mean of the levels' maps. sigma: smoothing of the map
    in pixels. updatable: with joined levels, the model keeps the sums that `update` needs, in 2 D (D + 1)
    bytes a position. Learned: channels_ (D,), grids_ (h, w) of each level, gaussians_, sums_.

    Source: Defard et al., ICPR Workshops 2020, section III."""

    preferred_levels: ClassVar[tuple[int, ...]] = (1, 2, 3)
    imagenet_levels: ClassVar[tuple[int, ...]] = (2, 3)
    """Better there than the paper's three, and a quarter of the positions: docs/results/eyes."""
    _shapes: ClassVar[dict[str, str]] = {"channels": "D", "grids": "L 2"}

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        dimensions: int | None = 100,
        eps: float = 0.01,
        levels: str = "joined",
        sigma: float = 4.0,
        seed: int = 0,
        updatable: bool = False,
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(representation, adaptation=adaptation, runtime=runtime)
        checks.whole_numbers(none=True, dimensions=dimensions)
        checks.whole_numbers(least=0, seed=seed)
        checks.numbers(least=MIN_EPS, eps=eps)
        checks.numbers(least=0.0, sigma=sigma)
        checks.switches(updatable=updatable)
        if levels not in LEVELS:
            raise UnknownName("levels", str(levels), LEVELS)
        if levels == "separate":
            checks.without_effect("with levels='separate'", updatable=(updatable, False))
        self.dimensions, self.eps, self.sigma, self.seed = dimensions, eps, sigma, seed
        self.levels, self.updatable, self.sums_ = levels, updatable, {}

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """64 pixels."""
        runtime = Runtime(image_size=64, precision="fp32")
        return cls(representation, dimensions=24, sigma=2.0, adaptation=adaptation, runtime=runtime)

    def _reset(self) -> None:
        widths = self.representation_.channels
        drawn_from = [sum(widths)] if self.levels == "joined" else widths
        self.channels_ = patches.draw_channels(drawn_from, self.dimensions, self.seed)
        self.grids_: Grids = ()
        self.gaussians_ = PositionGaussians(self.eps) if self.updatable else self._new_gaussians()

    def _preprocess(self, features: FeatureMaps) -> FeatureMaps:
        return choose_channels(features, self._channels_by_level())

    def _partial_fit(self, features: FeatureMaps) -> None:
        grids = grids_of(features)
        if self.grids_ and grids != self.grids_:
            raise ShapeError(f"All images must have one size: {grids[0]} positions after {self.grids_[0]}.")
        self.grids_ = grids
        self.gaussians_.update(features)

    def _finalize(self) -> None:
        self._keep_sums()
        with factored(self.eps):
            self.gaussians_.finalize()
        require_storable(self.gaussians_.tensors(), self.representation_.card["name"])
        self._close_sums()

    def scorer(self) -> PaDiMScorer:
        """Mahalanobis distances, upsampled and smoothed."""
        channels = self._channels_by_level()
        with factored(self.eps):
            return PaDiMScorer(channels, self.gaussians_.distance(), self.grids_, self.sigma, self.centres)

    def _state(self) -> dict[str, Tensor]:
        grids = torch.tensor(self.grids_)
        return {"channels": self.channels_, "grids": grids, **self.gaussians_.tensors(), **self.sums_}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        self.channels_, widths = tensors["channels"].long(), self.representation_.channels
        self.grids_ = tuple((int(h), int(w)) for h, w in tensors["grids"])
        sound = (
            len(self.grids_) == len(widths)
            and all(0 < side <= MAX_SIDE for grid in self.grids_ for side in grid)
            and 0 < len(self.channels_) == len(self.channels_.unique())
            and 0 <= int(self.channels_.min()) <= int(self.channels_.max()) < sum(widths)
            and (self.levels == "joined" or all(len(one) for one in self._channels_by_level()))
        )
        if not sound:
            raise ModelFileError(
                f"The PaDiM model does not fit together: {len(self.channels_)} channels of {sum(widths)}, "
                f"grids {self.grids_} for {len(widths)} levels."
            )
        self._restore_gaussians(tensors)

    def _channels_by_level(self) -> list[Tensor]:
        return channels_by_level(self.channels_, self.representation_.channels)

    def _new_gaussians(self) -> PositionGaussians | NestedGaussians | LevelGaussians:
        if self.levels == "joined":
            return position_gaussians(self.eps)
        return LevelGaussians([position_gaussians(self.eps) for _ in self.representation_.channels])


def position_gaussians(eps: float) -> PositionGaussians | NestedGaussians:
    """The Gaussians below or their fast twin: the only place that chooses."""
    return NestedGaussians(eps) if accel.enabled() else PositionGaussians(eps)


def embed(features: FeatureMaps) -> Tensor:
    """The paper's embedding vectors: chosen channels [(B, d_l, h_l, w_l)], repeated over the finest grid of P
    positions and stacked, the coarsest (last) level first: (B, P, D)."""
    return align_levels(features[::-1], mode="nearest").flatten(2).transpose(1, 2)


def covariance(products: Tensor, mean: Tensor, n: int) -> Tensor:
    """Eq. 1 without its eps: sums of products (P, D, D) over n images, and means (P, D) -> (P, D, D).

    >>> rows = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    >>> covariance((rows.mT @ rows)[None], rows.mean(0)[None], n=2)
    tensor([[[2., 4.], [4., 8.]]])
    """
    return (products - n * mean[:, :, None] * mean[:, None, :]) / max(n - 1, 1)


def whitening(covariance: Tensor, eps: float) -> Tensor:
    """W = L^-1 with S + eps 1 = L L^T, for covariances S (P, D, D): |W (f - mu)| is the Mahalanobis distance.

    >>> whitening(torch.tensor([[[3.0, 0.0], [0.0, 0.0]]]), eps=1.0)
    tensor([[[0.5000, 0.0000], [0.0000, 1.0000]]])
    """
    identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    lower = torch.linalg.cholesky(covariance + eps * identity)
    return torch.linalg.solve_triangular(lower, identity.expand_as(lower), upper=False)


class PositionGaussians:
    """One Gaussian per position, learned from sums over the images.

    eps: added to the covariances' diagonals. Learned, and rounded to float16 as in the model file: mean (P,
    D), and whitening (P, D (D + 1) / 2), the lower triangles of W row by row."""

    def __init__(self, eps: float) -> None:
        self.eps, self.count = eps, 0

    @torch.inference_mode(False)
    def update(self, features: FeatureMaps) -> None:
        """Add the chosen channels of B images. Sums are float64: a covariance is a small difference of large
        ones."""
        rows = embed(features).transpose(0, 1).double()  # (P, B, D)
        if not self.count:
            P, _, D = rows.shape
            self.sums, self.products = rows.new_zeros(P, D), rows.new_zeros(P, D, D)
        self.count += rows.shape[1]
        self.sums += rows.sum(1)
        self.products += rows.mT @ rows

    @torch.inference_mode(False)
    def finalize(self) -> None:
        """Mean, covariance, Cholesky factor. Raises EmptyData without any image."""
        if not self.count:
            raise EmptyData("There is no image to learn from.")
        mean = self.sums / self.count
        W = whitening(covariance(self.products, mean, self.count), self.eps)
        row, column = torch.tril_indices(*W.shape[1:])
        self.mean, self.whitening = mean.half().cpu(), W[:, row, column].half().cpu()
        del self.sums, self.products

    def distance(self) -> MahalanobisDistance:
        """The module that measures distances."""
        P, D = self.mean.shape
        row, column = torch.tril_indices(D, D)
        W = torch.zeros(P, D, D)
        W[:, row, column] = self.whitening.float()
        return MahalanobisDistance(self.mean.float(), W)

    def tensors(self) -> dict[str, Tensor]:
        """What was learned, as a model file holds it."""
        return {"mean": self.mean, "whitening": self.whitening}

    def restore(self, tensors: dict[str, Tensor], grids: Grids, widths: Sequence[int]) -> None:
        """Use what `tensors` of this class or of its twin gave; raises ModelFileError if that does not fit.

        grids, widths: (h, w) and number of chosen channels of each level."""
        if "nested_mean" in tensors:
            tensors = expand(tensors, self.eps, grids, widths)
        P, D = max(h * w for h, w in grids), sum(widths)
        store.expect("PaDiM", tensors, {"mean": f"{P} {D}", "whitening": f"{P} {D * (D + 1) // 2}"})
        self.mean, self.whitening = tensors["mean"], tensors["whitening"]


class MahalanobisDistance(nn.Module):
    """Chosen channels [(B, d_l, h_l, w_l)] -> distances (B, h, w) on the finest grid, Eq. 2.

    mean: (P, D). whitening: W (P, D, D)."""

    mean: Tensor
    whitening: Tensor

    def __init__(self, mean: Tensor, whitening: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("whitening", whitening)

    def forward(self, features: FeatureMaps) -> Tensor:
        """sqrt((f - mu)^T S^-1 (f - mu)) = |W (f - mu)| at each position."""
        difference = embed(features) - self.mean  # (B, P, D)
        white = torch.einsum("pde,bpe->bpd", self.whitening, difference)
        return white.norm(dim=2).unflatten(1, finest_grid(features))


class PaDiMScorer(nn.Module):
    """Features -> chosen channels -> distances at each position -> map and score.

    channels: (d_l,) of each level. distance: chosen channels -> (B, h, w), or a list of them, one a level,
    whose maps are averaged. grids: (h, w) of each level of the images that it was fitted on. sigma: of the
    map's smoothing, in pixels. centres: of the levels' cells."""

    def __init__(
        self,
        channels: Sequence[Tensor],
        distance: nn.Module,
        grids: Grids,
        sigma: float,
        centres: Centres | None = None,
    ) -> None:
        super().__init__()
        for number, chosen in enumerate(channels):
            self.register_buffer(f"channels_{number}", chosen)
        self.distance, self.grids, self.sigma, self.centres = distance, grids, sigma, centres

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Features of B images -> (map (B, H, W), score (B,)), higher is more anomalous. Raises ShapeError
        for images of another size than those it was fitted on."""
        if grids_of(features) != self.grids:
            raise ShapeError(
                f"The model was fitted on a grid of {self.grids[0]} positions, these images give "
                f"{grids_of(features)[0]}: use the size that it was fitted on."
            )
        channels = [self.get_buffer(f"channels_{number}") for number in range(len(self.grids))]
        distances = self.distance(choose_channels(features, channels))
        if isinstance(distances, list):
            map_ = maps.upsample_levels(
                distances, size, sigma=self.sigma, align_corners=True, centres=self.centres
            ) / len(distances)
        else:
            centre = finest_centre(features, self.centres)
            map_ = maps.upsample(distances, size, sigma=self.sigma, centre=centre)
        return map_, maps.image_score(map_)
