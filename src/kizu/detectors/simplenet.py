"""SimpleNet: a linear adapter and a discriminator that tells features of good images from the same with
noise.

Card. Paper: Liu, Zhou, Xu and Wang, "SimpleNet: A Simple Network for Image Anomaly Detection and
Localization", CVPR 2023, section 3. Official code: DonaldRR/SimpleNet (MIT); nothing of it is used. Source of
the constants: levels 2 and 3, 3 x 3 neighbourhoods, one linear layer as adapter, noise of standard deviation
0.015, margins 0.5 (section 4.2); adapter AdamW 1e-4, discriminator Adam 2e-4 with weight decay 1e-5, hidden
size 1024, batches of 8, 160 passes (40 meta-epochs of 4, released runs; batches are of 16 here unless
batch_size=8 is said), Gaussian of sigma 4, image score = largest patch score. Where paper and code differ:
the code reports the best epoch on the test set; here the last step counts. Differences: one AdamW for both
parts (the code's discriminator has coupled weight decay, at 1e-5 of no consequence); a number of steps
instead of passes, 4,000 being 160 passes over 200 images; each channel of the aligned levels is kept (the
code pools them to 1,536, which is what Wide ResNet-50 has)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from kizu import checks, engine, maps
from kizu.adaptation.base import Adaptation
from kizu.detectors._patch_discriminator import Network
from kizu.detectors.learned import LearnedDetector
from kizu.detectors.runtime import Runtime
from kizu.errors import UsageError
from kizu.nn.patches import finest_centre, to_rows
from kizu.representations.base import Representation
from kizu.training import Objective, Position, SampleStore
from kizu.types import Centres, FeatureMaps


class SimpleNet(LearnedDetector):
    """Patch score = -D(G(patch)), G the adapter, D the discriminator.

    neighbourhood: odd side of the window that a patch stands for. noise: standard deviation of the noise that
    makes false features. hidden: width of the discriminator. margin: th of Eq. 5. learning_rate: of the
    discriminator; adapter_learning_rate: of the adapter; per step. iterations: steps of batch_size images.
    sigma: smoothing of the map in pixels. training_precision: "auto", "fp32" or "bf16". Learned: network_, a
    Network."""

    trains_on: ClassVar[Literal["features", "images"]] = "features"

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        neighbourhood: int = 3,
        noise: float = 0.015,
        hidden: int = 1024,
        margin: float = 0.5,
        learning_rate: float = 2e-4,
        adapter_learning_rate: float = 1e-4,
        weight_decay: float = 1e-5,
        iterations: int = 4000,
        sigma: float = 4.0,
        seed: int = 0,
        training_precision: str = "auto",
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(representation, adaptation=adaptation, runtime=runtime)
        checks.whole_numbers(neighbourhood=neighbourhood, hidden=hidden)
        checks.numbers(least=0.0, above=True, noise=noise, margin=margin, learning_rate=learning_rate)
        checks.numbers(least=0.0, adapter_learning_rate=adapter_learning_rate, weight_decay=weight_decay)
        checks.numbers(least=0.0, sigma=sigma)
        self.neighbourhood, self.noise, self.hidden, self.margin = neighbourhood, noise, hidden, margin
        self.learning_rate, self.adapter_learning_rate = learning_rate, adapter_learning_rate
        self.weight_decay, self.iterations, self.sigma = weight_decay, iterations, sigma
        self.seed, self.training_precision = seed, training_precision
        self._check_training()

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """64 pixels, 60 steps."""
        return cls(
            representation,
            noise=1.5,
            hidden=32,
            learning_rate=5e-3,
            iterations=60,
            sigma=2.0,
            training_precision="fp32",
            adaptation=adaptation,
            runtime=Runtime(image_size=64, precision="fp32", batch_size=8),
        )

    def network(self) -> Network:
        """Adapter and discriminator, drawn from `seed`."""
        with engine.seeded(self.seed):
            return Network(sum(self.representation_.channels), self.hidden, self.neighbourhood)

    def objective(self, network: nn.Module) -> SimpleNetObjective:
        """Truncated L1 loss on features with and without noise."""
        return SimpleNetObjective(
            network,
            noise=self.noise,
            margin=self.margin,
            rates=(self.adapter_learning_rate, self.learning_rate),
            weight_decay=self.weight_decay,
            seed=self.seed,
        )

    def scorer(self) -> SimpleNetScorer:
        """The network and the map."""
        return SimpleNetScorer(self.network_, self.sigma, self.centres)

    def _check_samples(self, samples: SampleStore) -> None:
        features = samples.take([0]).features or []
        positions = max(level.shape[2] * level.shape[3] for level in features)
        if positions * self.batch_size < 2:
            raise UsageError(
                "Batch norm takes at least 2 patches a batch: larger images, or a larger batch_size."
            )


class SimpleNetObjective(Objective):
    """mean max(0, th - D(q)) + mean max(0, th + D(q + eps)), q adapted patches, eps ~ N(0, noise^2) (Eq. 5).

    network: a Network. rates: learning rates of adapter and discriminator, per step. seed: of the noise.
    """

    def __init__(
        self,
        network: Any,
        *,
        noise: float,
        margin: float,
        rates: tuple[float, float],
        weight_decay: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.network: Network = network
        self._noise, self._margin, self._rates = noise, margin, rates
        self._weight_decay, self._seed = weight_decay, seed

    def prepare(self, batch: dict[str, Any], position: Position) -> tuple[Tensor, Tensor]:
        """(patches (N, D), noise (N, D)); the noise is a function of the position in the run."""
        rows = to_rows(self.network.patches(batch["features"]))
        drawn = torch.randn(rows.shape, generator=position.generators(self._seed)[0])
        return rows, drawn.to(rows.device).mul_(self._noise)

    def loss(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Truncated L1; "good" and "false" are mean outputs of D on either side."""
        rows, noise = batch
        adapted = self.network.adapter(rows)
        both = self.network.discriminate(torch.cat([adapted, adapted + noise]))
        good, false = both.float().chunk(2)
        loss = truncated_l1(good, false, self._margin)
        return {"loss": loss, "good": good.detach().mean(), "false": false.detach().mean()}

    def optimiser(self) -> torch.optim.Optimizer:
        """AdamW; the adapter with torch's own weight decay, as released."""
        adapter, discriminator = self.network.adapter.parameters(), self.network.discriminator.parameters()
        return torch.optim.AdamW(
            [
                {"params": list(adapter), "lr": self._rates[0]},
                {"params": list(discriminator), "lr": self._rates[1], "weight_decay": self._weight_decay},
            ]
        )


def truncated_l1(good: Tensor, false: Tensor, margin: float) -> Tensor:
    """mean max(0, margin - good) + mean max(0, margin + false), outputs (N,) of the discriminator (Eq. 5).

    >>> float(truncated_l1(torch.tensor([0.5, 2.0]), torch.tensor([-0.5, 0.0]), 0.5))
    0.25
    """
    return functional.relu(margin - good).mean() + functional.relu(margin + false).mean()


class SimpleNetScorer(nn.Module):
    """FeatureMaps -> (map (B, H, W), score (B,))."""

    def __init__(self, network: Any, sigma: float, centres: Centres | None = None) -> None:
        super().__init__()
        self.network: Network = network
        self.sigma, self.centres = sigma, centres

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """[(B, C_l, h_l, w_l)] of images of `size` (H, W); patch scores are -D (Eq. 6)."""
        grid = self.network.patches(features)
        B, _, h, w = grid.shape
        patches = -self.network.discriminate(self.network.adapter(to_rows(grid))).reshape(B, h, w)
        centre = finest_centre(features, self.centres)
        map_ = maps.upsample(patches, size, sigma=self.sigma, centre=centre)
        return map_, patches.flatten(1).amax(1)
