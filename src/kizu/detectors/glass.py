"""GLASS: a discriminator of patch features that learns from anomalies made in two ways: of features, by
gradient ascent (global), and of images, by foreign texture in random blots (local).

Card. Paper: Chen, Luo, Lv and Zhang, "A Unified Anomaly Synthesis Strategy with Gradient Ascent for
Industrial Anomaly Detection and Localization", ECCV 2024. Official code: cqylunlun/GLASS (MIT); nothing of it
is used. Source of the constants (paper and released runs): levels 2 and 3, 3 x 3 neighbourhoods, one linear
layer as adapter (AdamW here, Adam there, 1e-4, decay 1e-5), hidden size 1024 (AdamW 2e-4), noise 0.015, 20
steps of 0.001 with a projection after every fifth, radius the 0.75-quantile, shells r to 2r (global) and 2r
to 4r (local) on a hypersphere, 0.5 to 1 on a manifold, half of the local patches (the hard ones) in a focal
loss of gamma 2, opacity normal(0.5, 0.1) within 0.2 to 0.8, sigma 4, image score = largest patch score. With
features that were pretrained for anomaly detection ADPretrain (NeurIPS 2025) leaves the adapter out and takes
noise 0.005: adapter=False, noise=0.005. Differences, with reasons: docs/methods/glass.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from torch import Tensor, nn

from kizu import checks, engine, maps
from kizu.adaptation.base import Adaptation
from kizu.detectors._glass_parts import GlassObjective, Synthesis, Textures
from kizu.detectors._patch_discriminator import Network
from kizu.detectors.learned import LearnedDetector
from kizu.detectors.runtime import Runtime
from kizu.errors import UnknownName, UsageError
from kizu.nn.patches import finest_centre, patch_features, to_rows
from kizu.representations.base import Representation
from kizu.training import SampleStore
from kizu.types import Centres, FeatureMaps

DISTRIBUTIONS = ("hypersphere", "manifold")


class GLASS(LearnedDetector):
    """Patch score = D(G(patch)), the logit of "anomalous"; G the adapter, D the discriminator.

    distribution: what features of good images lie on, "hypersphere" (GLASS-h) or "manifold" (GLASS-m).
    adapter: whether there is one. neighbourhood: odd side of the window that a patch stands for. dimensions:
    None keeps each channel, a number pools to that many as released (1,536). hidden: width of the
    discriminator. noise: standard deviation of what makes global anomalies; ascent_steps, ascent_step: how
    often and how far they are moved along the gradient. radius: quantile of distances that is the sphere's
    radius (hypersphere). distance: least displacement, twice as much is the largest (manifold). hard: share
    of the patches of a planted image that are left out of its loss, the easiest ones. gamma: of the focal
    loss. textures: a folder of foreign images, None draws them. learning_rate, weight_decay: of the
    discriminator; adapter_learning_rate: of the adapter; per step. iterations: steps of batch_size images.
    sigma: smoothing of the map in pixels. training_precision: "auto", "fp32" or "bf16". Learned: network_.

    Source: Chen et al., ECCV 2024 (global and local anomaly synthesis)."""

    trains_on: ClassVar[Literal["features", "images"]] = "images"

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        distribution: str = "hypersphere",
        adapter: bool = True,
        neighbourhood: int = 3,
        dimensions: int | None = None,
        hidden: int = 1024,
        noise: float = 0.015,
        ascent_steps: int = 20,
        ascent_step: float = 0.001,
        radius: float = 0.75,
        distance: float = 0.5,
        hard: float = 0.5,
        gamma: float = 2.0,
        textures: str | Path | None = None,
        learning_rate: float = 2e-4,
        adapter_learning_rate: float = 1e-4,
        weight_decay: float = 0.01,
        iterations: int = 400,
        sigma: float = 4.0,
        seed: int = 0,
        training_precision: str = "auto",
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(representation, adaptation=adaptation, runtime=runtime)
        self.distribution, self.adapter = distribution, adapter
        self.neighbourhood, self.dimensions, self.hidden = neighbourhood, dimensions, hidden
        self.noise, self.ascent_steps, self.ascent_step = noise, ascent_steps, ascent_step
        self.radius, self.distance, self.hard, self.gamma = radius, distance, hard, gamma
        self.textures = None if textures is None else str(textures)
        self.learning_rate, self.adapter_learning_rate = learning_rate, adapter_learning_rate
        self.weight_decay, self.iterations, self.sigma = weight_decay, iterations, sigma
        self.seed, self.training_precision = seed, training_precision
        self._check_parameters()

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """64 pixels, 20 steps."""
        return cls(
            representation,
            hidden=16,
            noise=0.3,
            ascent_steps=5,
            ascent_step=0.02,
            learning_rate=5e-3,
            iterations=20,
            sigma=2.0,
            training_precision="fp32",
            adaptation=adaptation,
            runtime=Runtime(image_size=64, precision="fp32", batch_size=4),
        )

    def network(self) -> Network:
        """Adapter and discriminator, drawn from `seed`."""
        D = self.dimensions or sum(self.representation_.channels)
        with engine.seeded(self.seed):
            return Network(
                D, self.hidden, self.neighbourhood, dimensions=self.dimensions, adapts=self.adapter
            )

    def objective(self, network: nn.Module) -> GlassObjective:
        """Good patches against global and local anomalies."""
        return GlassObjective(
            network,
            Synthesis(
                hypersphere=self.distribution == "hypersphere",
                noise=self.noise,
                steps=self.ascent_steps,
                step=self.ascent_step,
                radius=self.radius,
                distance=self.distance,
                hard=self.hard,
                gamma=self.gamma,
            ),
            extract=self._warm_up(),
            textures=self._textures,
            mean=self._mean,
            rates=(self.adapter_learning_rate, self.learning_rate),
            weight_decay=self.weight_decay,
            seed=self.seed,
        )

    def scorer(self) -> GlassScorer:
        """The network and the map."""
        return GlassScorer(self.network_, self.sigma, self.centres)

    def _check_samples(self, samples: SampleStore) -> None:
        features = self._warm_up()(samples.take([0]).require_images())
        positions = max(level.shape[2] * level.shape[3] for level in features)
        if positions * self.batch_size < 2:
            raise UsageError(
                "Batch norm takes at least 2 patches a batch: larger images, or a larger batch_size."
            )

    def _measure(self, samples: SampleStore) -> None:
        """Textures, and the mean of the samples' patches at each position, (P, D)."""
        self._textures = Textures(self.textures, samples.size)
        total: Tensor | float = 0.0
        for batch in samples.batches(self.batch_size):
            features = self._warm_up()(batch.require_images())
            patches = patch_features(features, self.neighbourhood, self.dimensions)
            total = total + patches.double().sum(0)  # (D, h, w)
        assert isinstance(total, Tensor)  # there is a sample
        self._mean = (total / len(samples)).float().flatten(1).T.contiguous()

    def _check_parameters(self) -> None:
        if self.distribution not in DISTRIBUTIONS:
            raise UnknownName("distribution", str(self.distribution), DISTRIBUTIONS)
        checks.switches(adapter=self.adapter)
        checks.whole_numbers(neighbourhood=self.neighbourhood, hidden=self.hidden)
        checks.whole_numbers(none=True, dimensions=self.dimensions)
        checks.whole_numbers(least=0, ascent_steps=self.ascent_steps)
        checks.numbers(least=0.0, above=True, noise=self.noise, ascent_step=self.ascent_step)
        checks.numbers(least=0.0, above=True, distance=self.distance, learning_rate=self.learning_rate)
        checks.numbers(least=0.0, most=1.0, radius=self.radius, hard=self.hard)
        checks.numbers(least=0.0, gamma=self.gamma, weight_decay=self.weight_decay, sigma=self.sigma)
        checks.numbers(least=0.0, adapter_learning_rate=self.adapter_learning_rate)
        if self.distribution == "hypersphere":
            checks.without_effect("on a hypersphere", distance=(self.distance, 0.5))
        else:
            checks.without_effect("on a manifold", radius=(self.radius, 0.75))
        if not self.adapter:
            checks.without_effect("without adapter", adapter_learning_rate=(self.adapter_learning_rate, 1e-4))
        if not self.ascent_steps:
            checks.without_effect("without ascent_steps", ascent_step=(self.ascent_step, 0.001))
        self._check_training()


class GlassScorer(nn.Module):
    """FeatureMaps -> (map (B, H, W), score (B,)): logits of the discriminator."""

    def __init__(self, network: Any, sigma: float, centres: Centres | None = None) -> None:
        super().__init__()
        self.network: Network = network
        self.sigma, self.centres = sigma, centres

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """[(B, C_l, h_l, w_l)] of images of `size` (H, W)."""
        grid = self.network.patches(features)
        B, _, h, w = grid.shape
        patches = self.network.discriminate(self.network.adapter(to_rows(grid))).reshape(B, h, w)
        centre = finest_centre(features, self.centres)
        map_ = maps.upsample(patches, size, sigma=self.sigma, centre=centre)
        return map_, patches.flatten(1).amax(1)
