"""FeatureNorm: the length of a feature is its anomaly score.

Card. Paper: Yao et al., "ADPretrain: Advancing Industrial Anomaly Detection via Anomaly Representation
Pretraining", NeurIPS 2025, section 4.5. Official code: xcyao00/ADPretrain (MIT); nothing of it is used. It is
made for residuals (adaptation="residual"): a residual is short where a good image has the like; the length of
a raw feature says little. Paper and code disagree on the length: section 4.5 takes |x| ("l2"), the code
sqrt(|x| + 1) - 1 ("sqrt"), and section 3.2 writes sqrt(|x|^2 + 1) - 1, the pseudo-Huber distance, for the
training ("pseudo_huber"). Each orders the cells of one level alike; the mean over levels does not. As
published: levels upsampled and averaged, a Gaussian of sigma 4, image score = maximum; from ours on:
`standardise`. Differences: levels lie in the map where their cells look (alignment="grid": as released,
align_corners=True)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from kizu import checks, maps, store
from kizu.adaptation.base import Adaptation
from kizu.detectors.one_pass import OnePassDetector
from kizu.detectors.runtime import Runtime
from kizu.errors import ModelFileError, UnknownName, UsageError
from kizu.representations.base import Representation
from kizu.types import Centres, FeatureMaps

NORMS = ("l2", "sqrt", "pseudo_huber")


class FeatureNorm(OnePassDetector):
    """Score of a cell: the norm of its feature; map: the mean over levels; image: the map's maximum.

    norm: "l2", "sqrt" or "pseudo_huber", see `norms`. standardise: whether the norms of a level are counted
    in standard deviations from their mean, over all cells of the good images; then levels of long features
    weigh no more than others. sigma: smoothing of the map in pixels. Learned: mean_, deviation_ (L,) of the
    norms of good images, which only `standardise` reads.

    Source: ADPretrain, NeurIPS 2025, section 4.5.

    >>> FeatureNorm("random/resnet10t@2,3", adaptation="residual", norm="sqrt").norm
    'sqrt'
    """

    _shapes: ClassVar[dict[str, str]] = {"mean": "L", "deviation": "L"}

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        norm: str = "l2",
        standardise: bool = False,
        sigma: float = 4.0,
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(representation, adaptation=adaptation, runtime=runtime)
        if norm not in NORMS:
            raise UnknownName("norm", str(norm), NORMS)
        checks.switches(standardise=standardise)
        checks.numbers(least=0.0, sigma=sigma)
        self.norm, self.standardise, self.sigma = norm, standardise, sigma

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """64 pixels."""
        runtime = Runtime(image_size=64, precision="fp32")
        return cls(representation, sigma=2.0, adaptation=adaptation, runtime=runtime)

    @property
    def learns_from_features(self) -> bool:
        """Only to standardise: otherwise all good images may be references, as in the few-shot setting."""
        return self.standardise

    def _reset(self) -> None:
        self._sums = torch.zeros(3, len(self.representation_.channels), dtype=torch.float64)

    def _partial_fit(self, features: FeatureMaps) -> None:
        for number, level in enumerate(features):
            values = norms(level, self.norm).double()
            row = (float(values.numel()), float(values.sum()), float(values.square().sum()))
            self._sums[:, number] += torch.tensor(row, dtype=torch.float64)

    def _finalize(self) -> None:
        count, total, squares = self._sums
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        if self.standardise and not bool((deviation > 0).all()):
            raise UsageError(
                "Norms of good images are the same everywhere in a level, so they cannot be standardised: "
                "take standardise=False, or more good images."
            )
        self.mean_, self.deviation_ = mean.float(), deviation.float()

    def scorer(self) -> FeatureNormScorer:
        """Norms, upsampled and averaged."""
        scale = (self.mean_, self.deviation_) if self.standardise else None
        return FeatureNormScorer(self.norm, scale, sigma=self.sigma, centres=self.centres)

    def _state(self) -> dict[str, Tensor]:
        return {"mean": self.mean_, "deviation": self.deviation_}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        levels = len(self.representation_.channels)
        store.expect("FeatureNorm", tensors, {"mean": f"{levels}", "deviation": f"{levels}"})
        self.mean_, self.deviation_ = tensors["mean"].float(), tensors["deviation"].float()
        if self.standardise and not bool((self.deviation_ > 0).all()):
            raise ModelFileError("The FeatureNorm model holds a deviation that is not above 0.")


class FeatureNormScorer(nn.Module):
    """FeatureMaps -> (map (B, H, W), score (B,)).

    norm: see `norms`. scale: (mean, deviation) (L,) of the norms of good images, or None. centres: of the
    levels' cells; without them the corners of the grids are the image's, as released."""

    def __init__(
        self, norm: str, scale: tuple[Tensor, Tensor] | None, *, sigma: float, centres: Centres | None = None
    ) -> None:
        super().__init__()
        self.norm, self.sigma, self.centres = norm, sigma, centres
        self.register_buffer("scale", None if scale is None else torch.stack(scale))

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """[(B, C_l, h_l, w_l)] of images of `size` (H, W)."""
        levels = [norms(level, self.norm) for level in features]
        if isinstance(self.scale, Tensor):
            levels = [
                (level - mean) / deviation for level, mean, deviation in zip(levels, *self.scale, strict=True)
            ]
        total = maps.upsample_levels(levels, size, sigma=self.sigma, align_corners=True, centres=self.centres)
        map_ = total / len(levels)
        return map_, maps.image_score(map_)


def norms(level: Tensor, norm: str) -> Tensor:
    """Features (B, C, h, w) -> their norms (B, h, w) float32: "l2" |x|, "sqrt" sqrt(|x| + 1) - 1,
    "pseudo_huber" sqrt(|x|^2 + 1) - 1. The last two are computed without the difference, for short features.

    >>> x = torch.tensor([3.0, 4.0])[None, :, None, None]
    >>> [round(float(norms(x, norm)), 4) for norm in NORMS]
    [5.0, 1.4495, 4.099]
    """
    length = level.float().norm(dim=1)
    if norm == "l2":
        return length
    inner = length if norm == "sqrt" else length.square()
    return inner / ((inner + 1).sqrt() + 1)
