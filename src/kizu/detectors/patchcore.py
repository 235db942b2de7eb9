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

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import psutil
import torch
from torch import Tensor, nn

from kizu import checks, maps, store
from kizu.adaptation.base import Adaptation
from kizu.detectors.one_pass import OnePassDetector
from kizu.detectors.runtime import Runtime
from kizu.errors import ShapeError, UsageError
from kizu.neighbours import NearestNeighbours, StreamingCoreset, greedy_coreset, random_projection
from kizu.nn.patches import finest_centre, patch_features, to_rows
from kizu.nn.rotation import rotate
from kizu.representations.base import Representation
from kizu.types import Batch, Centres, FeatureMaps

MEMORY_SHARE = 0.25
"""Of the memory free at the beginning of a fit, for patches."""


class PatchCore(OnePassDetector):
    """Distance to the nearest patch of a bank of good patches.

    neighbourhood: odd side of the window that a patch stands for. dimensions: None, or the pooled size of the
    released recipe (1024). coreset: share of all patches kept, in (0, 1]. projection: dimensions in which the
    coreset's distances are measured, None for all. selection: "exact" greedy k-centre or "approximate"
    (greedy on a random pool). neighbours: K, the score is their mean distance. reweight: None or b of Eq. 7.
    squared: squared distances, as the released code. rotations: good images are learned in this many
    orientations, evenly over the full turn: for few images of products that lie in any direction. sigma:
    smoothing of the map in pixels. memory: GiB for patches during fit (None: a quarter of what is free);
    beyond it they are reduced on the way. Learned: bank_ (N, D), reductions_ (0: the selection is exact)."""

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
        rotations: int = 1,
        sigma: float = 4.0,
        memory: float | None = None,
        seed: int = 0,
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(representation, adaptation=adaptation, runtime=runtime)
        checks.numbers(least=0.0, most=1.0, above=True, coreset=coreset)
        if selection not in ("exact", "approximate"):
            raise UsageError(f"selection is 'exact' or 'approximate', got {selection!r}.")
        checks.whole_numbers(neighbourhood=neighbourhood, neighbours=neighbours, rotations=rotations)
        checks.whole_numbers(none=True, dimensions=dimensions, projection=projection, reweight=reweight)
        checks.whole_numbers(least=0, seed=seed)
        checks.switches(squared=squared)
        checks.numbers(least=0.0, sigma=sigma)
        if memory is not None:
            checks.numbers(least=0.0, most=1e6, above=True, memory=memory)
        self.neighbourhood, self.dimensions, self.coreset = neighbourhood, dimensions, coreset
        self.projection, self.selection, self.neighbours = projection, selection, neighbours
        self.reweight, self.squared, self.sigma = reweight, squared, sigma
        self.rotations, self.memory, self.seed = rotations, memory, seed

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """64 pixels."""
        runtime = Runtime(image_size=64, precision="fp32")
        return cls(representation, sigma=2.0, adaptation=adaptation, runtime=runtime)

    def scorer(self) -> PatchCoreScorer:
        """The bank, and the search in it."""
        return PatchCoreScorer(
            self.bank_,
            neighbourhood=self.neighbourhood,
            dimensions=self.dimensions,
            neighbours=self.neighbours,
            reweight=self.reweight,
            squared=self.squared,
            sigma=self.sigma,
            centres=self.centres,
        )

    @property
    def takes_features(self) -> bool:
        """Whether it can be fitted on features: not when it turns images."""
        return super().takes_features and self.rotations == 1

    def _consume(self, batches: Iterable[Batch]) -> Iterator[tuple[int, FeatureMaps]]:
        """As of the base; of turned images there are features, but no count."""
        if self.rotations == 1:
            yield from super()._consume(batches)
            return
        for batch in batches:
            for turn in range(self.rotations):
                turned = Batch(rotate(batch.require_images(), 360 * turn / self.rotations))
                for count, features in super()._consume([turned]):
                    yield (0 if turn else count), features

    def _reset(self) -> None:
        free = psutil.virtual_memory().available
        budget = int(self.memory * 2**30) if self.memory is not None else int(MEMORY_SHARE * free)
        self._patches = StreamingCoreset(ratio=self.coreset, budget=budget, select=self._select)

    def check_update(self) -> None:
        """A bank can always grow."""

    def _go_on(self) -> None:
        """The bank joins the new patches, and stands for as many as it was chosen from: of all of them the
        share `coreset` is kept. The covering radius is at most the sum of the bank's and the new
        selection's, by the triangle inequality."""
        self._patches.update(self.bank_.to(self._device))
        self._patches.seen = round(len(self.bank_) / self.coreset)

    def _preprocess(self, features: FeatureMaps) -> FeatureMaps:
        return [patch_features(features, self.neighbourhood, self.dimensions)]

    def _partial_fit(self, features: FeatureMaps) -> None:
        self._patches.update(to_rows(features[0]))

    def _finalize(self) -> None:
        self.reductions_ = self._patches.reductions
        self.bank_ = self._patches.finish().float().cpu().contiguous()
        del self._patches

    def _select(self, rows: Tensor, n: int) -> Tensor:
        """Indices (n,) of the coreset of rows (N, D), distances measured in the projection."""
        generator = torch.Generator().manual_seed(self.seed)
        if self.projection is not None and self.projection < rows.shape[1]:
            rows = random_projection(rows, self.projection, generator=generator)
        if self.selection == "exact":
            return greedy_coreset(rows, n, progress=self._building)
        return greedy_coreset(rows, n, method="approximate", generator=generator, progress=self._building)

    def _state(self) -> dict[str, Tensor]:
        return {"bank": self.bank_}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        width = self.dimensions or sum(self.representation_.channels)
        store.expect("PatchCore", tensors, {"bank": f"N {width}"})
        self.bank_, self.reductions_ = tensors["bank"].float(), 0


class PatchCoreScorer(nn.Module):
    """FeatureMaps -> (map (B, H, W), score (B,)): distances to the bank (N, D) at each patch, and their
    largest.

    The other arguments are PatchCore's.
    """

    bank: Tensor

    def __init__(
        self,
        bank: Tensor,
        *,
        neighbourhood: int,
        dimensions: int | None,
        neighbours: int,
        reweight: int | None,
        squared: bool,
        sigma: float,
        centres: Centres | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("bank", bank)
        self.neighbourhood, self.dimensions = neighbourhood, dimensions
        self.neighbours, self.reweight = min(neighbours, len(bank)), reweight
        self.squared, self.sigma, self.centres = squared, sigma, centres
        self._index = NearestNeighbours(bank)

    def _apply(self, fn: Any, recurse: bool = True) -> PatchCoreScorer:
        """Moving to another device moves the search along."""
        before = self.bank.device
        super()._apply(fn, recurse)
        if self.bank.device != before:
            self._index = NearestNeighbours(self.bank)
        return self

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """[(B, C_l, h_l, w_l)] of images of `size` (H, W) -> (map, score). Raises ShapeError for other
        features."""
        grid = patch_features(features, self.neighbourhood, self.dimensions)  # (B, D, h, w)
        B, D, h, w = grid.shape
        if self.bank.shape[1] != D:
            raise ShapeError(
                f"The representation gives {D} features a patch, the bank was made of {self.bank.shape[1]}."
            )
        rows = to_rows(grid)  # (B h w, D)
        distances, nearest = self._index.query(rows, self.neighbours)  # (B h w, K)
        if self.squared:
            distances = distances.square()
        patches = distances.mean(1).reshape(B, h * w)
        score, top = patches.max(1)
        if self.reweight is not None:
            top = top + torch.arange(B, device=top.device) * h * w
            score = score * self._weight(rows[top], nearest[top, 0], self.reweight)
        centre = finest_centre(features, self.centres)
        return maps.upsample(patches.reshape(B, h, w), size, sigma=self.sigma, centre=centre), score

    def _weight(self, patch: Tensor, star: Tensor, b: int) -> Tensor:
        """Eq. 7, (B,): 1 - exp(|m_test - m*|) / sum over the b neighbours m of m* in the bank of exp(|m_test
        - m|).

        patch (B, D): m_test; star (B,): row of m* in the bank.
        """
        _, around = self._index.query(self.bank[star], min(b, len(self.bank)))  # (B, b), m* among them
        distances = (patch[:, None] - self.bank[around]).norm(dim=2)
        nearest = (patch - self.bank[star]).norm(dim=1)
        return 1.0 - torch.exp(nearest - torch.logsumexp(distances, dim=1))
