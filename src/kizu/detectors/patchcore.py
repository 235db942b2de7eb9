"""PatchCore: the distance of each patch to its nearest patch of good images, of which a coreset is kept.

Card. Paper: Roth, Pemula, Zepeda, Schoelkopf, Brox and Gehler, "Towards Total Recall in Industrial Anomaly
Detection", CVPR 2022. Official code: amazon-science/patchcore-inspection (Apache-2.0); nothing of it is used
here. Source of the constants: 3 x 3 neighbourhoods (section 3.1), levels 2 and 3 (section 4.1), 10 % or 1 %
coreset and random projection to 128 (section 3.2 and the released runs; here the projection is off until the
feature is wider than it), image score = the largest patch score (Eq. 6), bilinear upsampling and a Gaussian
of sigma 4 (section 3.3). Where paper and code differ: the re-weighting of Eq. 7 is in the paper (b = 3) and
not in the code: `reweight` is None (code) or b. The code's scores are squared distances (faiss), the paper's
are distances: `squared`. The code averages over k neighbours with k = 5 by default and 1 in the published
runs: `neighbours`. The code pools the 9 C values of a neighbourhood to `dimensions` = 1024 and the stacked
levels again to 1024; dimensions=None, our default, keeps the mean of the neighbourhood for each channel
instead. The code selects greedily from 10 random starting points by an approximation; here the greedy
selection is exact, from patch 0."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

import psutil
import torch
from torch import Tensor
from torch.nn import functional

from kizu import maps
from kizu.detectors.base import Detector
from kizu.errors import ShapeError, UsageError
from kizu.neighbours import NearestNeighbours, StreamingCoreset, greedy_coreset, random_projection
from kizu.nn.patches import align_levels, finest_grid, local_mean, pooled_neighbourhood, to_rows
from kizu.representations.base import Representation
from kizu.types import FeatureMaps

MEMORY_SHARE = 0.25
PATCHES = 1024
"""Patches of images that are searched together on a CPU: their features stay in its cache."""


class PatchCore(Detector):
    """Distance to the nearest patch of a bank of good patches.

    neighbourhood: odd side of the window that a patch stands for. dimensions: None, or the pooled size of the
    released recipe (1024). coreset: share of all patches kept, in (0, 1]. projection: dimensions in which the
    coreset's distances are measured, None for all. selection: "exact" greedy k-centre or "approximate"
    (greedy on a random pool). neighbours: K, the score is their mean distance. reweight: None or b of Eq. 7.
    squared: squared distances, as the released code. memory: GiB for patches during fit (None: a quarter of
    what is free); beyond it they are reduced on the way. Learned: bank_ (N, D), reductions_ (0: the selection
    is exact)."""

    preferred_levels: ClassVar[tuple[int, ...]] = (2, 3)
    by_image: ClassVar[bool] = True
    _shapes: ClassVar[dict[str, str]] = {"bank": "N D"}

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        neighbourhood: int = 3,
        dimensions: int | None = None,
        coreset: float = 0.1,
        projection: int | None = 128,
        selection: Literal["exact", "approximate"] = "exact",
        neighbours: int = 1,
        reweight: int | None = None,
        squared: bool = False,
        sigma: float = 4.0,
        memory: float | None = None,
        seed: int = 0,
        image_size: int | tuple[int, int] = 256,
        precision: str = "auto",
        device: str = "auto",
        batch_size: int = 16,
    ) -> None:
        super().__init__(
            representation, image_size=image_size, precision=precision, device=device, batch_size=batch_size
        )
        if not 0.0 < coreset <= 1.0:
            raise UsageError(
                f"coreset is the share of patches to keep, above 0 and at most 1, got {coreset}."
            )
        if selection not in ("exact", "approximate"):
            raise UsageError(f"selection is 'exact' or 'approximate', got {selection!r}.")
        whole = {
            "neighbourhood": neighbourhood,
            "dimensions": dimensions,
            "projection": projection,
            "neighbours": neighbours,
            "reweight": reweight,
        }
        for name, value in whole.items():
            if value is not None and value < 1:
                raise UsageError(f"{name} is at least 1, got {value}.")
        if memory is not None and memory <= 0:
            raise UsageError(f"memory is in GiB and above 0, got {memory}.")
        self.neighbourhood, self.dimensions, self.coreset, self.projection = (
            neighbourhood,
            dimensions,
            coreset,
            projection,
        )
        self.selection, self.neighbours, self.reweight, self.squared = (
            selection,
            neighbours,
            reweight,
            squared,
        )
        self.sigma, self.memory, self.seed = sigma, memory, seed

    @classmethod
    def tiny(cls, representation: Representation | str) -> Self:
        """64-pixel parameters."""
        return cls(representation, image_size=64, precision="fp32", sigma=2.0)

    def _begin(self) -> None:
        free = psutil.virtual_memory().available
        budget = int(self.memory * 2**30) if self.memory is not None else int(MEMORY_SHARE * free)
        self._stream = StreamingCoreset(ratio=self.coreset, budget=budget, select=self._select)

    def _digest(self, features: FeatureMaps) -> FeatureMaps:
        return [self._grid(features)]

    def _observe(self, features: FeatureMaps) -> None:
        self._stream.update(to_rows(features[0]))

    def _finish(self) -> None:
        self.reductions_ = self._stream.reductions
        self._take(self._stream.finish().float().cpu().contiguous())
        del self._stream

    def _select(self, rows: Tensor, n: int) -> Tensor:
        """Indices (n,) of the coreset of rows (N, D), distances measured in the projection."""
        generator = torch.Generator().manual_seed(self.seed)
        if self.projection is not None and self.projection < rows.shape[1]:
            rows = random_projection(rows, self.projection, generator=generator)
        return greedy_coreset(rows, n, method=self.selection, generator=generator)

    def _take(self, bank: Tensor) -> None:
        self.bank_ = bank
        self._index: NearestNeighbours | None = None

    def _ready(self, device: torch.device) -> None:
        if self._index is None:
            self._index = NearestNeighbours(self.bank_.to(device))

    def _score(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        h, w = finest_grid(features)
        few = max(1, PATCHES // (h * w)) if features[0].device.type == "cpu" else len(features[0])
        parts = [
            self._score_few(list(part), h, w)
            for part in zip(*(level.split(few) for level in features), strict=True)
        ]
        patches, score = (
            parts[0] if len(parts) == 1 else (torch.cat(values) for values in zip(*parts, strict=True))
        )
        return maps.upsample(patches, size, sigma=self.sigma), score

    def _score_few(self, features: FeatureMaps, h: int, w: int) -> tuple[Tensor, Tensor]:
        """Patch distances (B, h, w) and image scores (B,) of some images."""
        grid = self._grid(features)
        B, D = grid.shape[:2]
        if self.bank_.shape[1] != D:
            raise ShapeError(
                f"The representation gives {D} features a patch, the bank was made of {self.bank_.shape[1]}."
            )
        assert self._index is not None  # set by _ready
        rows = to_rows(grid)
        distances, nearest = self._index.query(rows, min(self.neighbours, len(self.bank_)))
        distances = distances.square() if self.squared else distances
        patches = (distances if distances.shape[1] == 1 else distances.mean(1)).reshape(B, h * w)
        score, top = patches.max(1)
        if self.reweight is not None:
            score = score * self._weight(rows, nearest, top + torch.arange(B, device=top.device) * h * w)
        return patches.reshape(B, h, w), score

    def _weight(self, rows: Tensor, nearest: Tensor, top: Tensor) -> Tensor:
        """Eq. 7: 1 - exp(|m_test - m*|) / sum over the b neighbours m of m* in the bank of exp(|m_test - m|),
        for each image (B,)."""
        assert self._index is not None  # set by _ready
        bank, patch = self._index.bank, rows[top]  # (B, D)
        star = nearest[top, 0]
        _, around = self._index.query(bank[star], min(self.reweight or 1, len(bank)))  # (B, b), m* among them
        distance = (patch[:, None] - bank[around]).norm(dim=2)
        own = (patch - bank[star]).norm(dim=1, keepdim=True)
        return 1.0 - torch.exp(own.squeeze(1) - torch.logsumexp(distance, dim=1))

    def _grid(self, features: FeatureMaps) -> Tensor:
        """Patch features (B, D, h, w) on the finest level's grid."""
        if self.dimensions is None:
            return align_levels([local_mean(level, self.neighbourhood) for level in features])
        pooled = align_levels(
            [pooled_neighbourhood(level, self.neighbourhood, self.dimensions) for level in features]
        )
        if len(features) == 1:
            return pooled
        B, _, h, w = pooled.shape
        return (
            functional.adaptive_avg_pool1d(to_rows(pooled), self.dimensions)
            .reshape(B, h, w, -1)
            .permute(0, 3, 1, 2)
        )

    def _state(self) -> dict[str, Tensor]:
        return {"bank": self.bank_}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        self._take(tensors["bank"].float())
        self.reductions_ = 0
