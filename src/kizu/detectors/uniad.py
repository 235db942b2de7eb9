"""UniAD: a transformer rebuilds features from those that lie further off, for all products in one model.

Card. Paper: You, Cui, Shen, Yang, Lu, Zheng and Le, "A Unified Model for Multi-class Anomaly Detection",
NeurIPS 2022. Official code: zhiyuanyou/UniAD (Apache-2.0); nothing of it is used. Source of the
constants (released settings): features on a grid of stride 16, 256 hidden values, 8 heads, feed-forward of
1024, 4 + 4 layers, dropout 0.1, windows of 7 x 7 hidden in all three attentions, jitter of scale 20 in every
step, AdamW 1e-4 with weight decay 1e-4, gradients of norm 0.1 at most, a tenth of the rate after 80 % of the
steps, largest mean of a 16 x 16 window of the map as image score. Where paper and code differ: the code keeps
the epoch that is best on the test set and turns an AUROC below one half around; here the last step counts and
nothing is turned. Differences: levels are brought to the grid so that cells keep their place
(align_corners=False; the code aligns corners); jitter_probability is drawn for each image (for each batch in
the code); `iterations` steps of `batch_size` images instead of 1,000 passes in batches of 64. ADPretrain
trains it on its own features with hidden=512, feedforward=2048, pool=1."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from kizu import checks, engine, maps
from kizu.adaptation.base import Adaptation
from kizu.detectors.learned import LearnedDetector
from kizu.detectors.runtime import Runtime
from kizu.errors import UsageError
from kizu.nn.neighbour_attention import NeighbourTransformer, neighbour_mask
from kizu.representations.base import Representation
from kizu.training import Objective, Position
from kizu.training.schedule import multistep
from kizu.types import Centre, FeatureMaps

MAX_CELLS = 4096
"""Of a grid: attention takes the square of it."""
STEP_AT = 0.8
"""Share of the steps after which the learning rate is a tenth."""


class UniAD(LearnedDetector):
    """Cell score = length of the difference between its feature and the one rebuilt from cells further off.

    stride: pixels between cells of the grid to which all levels are brought; the grid is that of image_size,
    ceil(H / stride) x ceil(W / stride). neighbourhood: odd side in cells of the window that a cell does not
    see, 0 for none. hidden: size of tokens, a multiple of heads. feedforward: width between its two layers.
    encoder_layers, decoder_layers, heads, dropout: of the transformer. jitter: noise on a feature of length
    |f| and C channels has the standard deviation jitter |f| / C; jitter_probability: of an image getting it.
    learning_rate, weight_decay: of AdamW. clip: largest norm of a gradient. iterations: steps of batch_size
    images. pool: side in pixels of the window whose largest mean is the image score; 1 for the largest pixel.
    sigma: smoothing of the map in pixels. training_precision: "auto", "fp32" or "bf16". Learned: network_, a
    Rebuilding."""

    trains_on: ClassVar[Literal["features", "images"]] = "features"
    preferred_levels: ClassVar[tuple[int, ...]] = (1, 2, 3)
    clip: float

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        stride: int = 16,
        neighbourhood: int = 7,
        hidden: int = 256,
        feedforward: int = 1024,
        heads: int = 8,
        encoder_layers: int = 4,
        decoder_layers: int = 4,
        dropout: float = 0.1,
        jitter: float = 20.0,
        jitter_probability: float = 1.0,
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-4,
        clip: float = 0.1,
        iterations: int = 2000,
        pool: int = 16,
        sigma: float = 0.0,
        seed: int = 0,
        training_precision: str = "auto",
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(representation, adaptation=adaptation, runtime=runtime)
        self.stride, self.neighbourhood = stride, neighbourhood
        self.hidden, self.feedforward, self.heads = hidden, feedforward, heads
        self.encoder_layers, self.decoder_layers, self.dropout = encoder_layers, decoder_layers, dropout
        self.jitter, self.jitter_probability = jitter, jitter_probability
        self.learning_rate, self.weight_decay, self.clip = learning_rate, weight_decay, clip
        self.iterations, self.pool, self.sigma = iterations, pool, sigma
        self.seed, self.training_precision = seed, training_precision
        self._check_parameters()
        self._check_training()

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """64 pixels: 8 x 8 cells, 2 layers, 30 steps."""
        return cls(
            representation,
            stride=8,
            neighbourhood=3,
            hidden=32,
            feedforward=64,
            heads=2,
            encoder_layers=1,
            decoder_layers=1,
            jitter=5.0,
            learning_rate=5e-3,
            iterations=30,
            training_precision="fp32",
            adaptation=adaptation,
            runtime=Runtime(image_size=64, precision="fp32", batch_size=8),
        )

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the cells."""
        H, W = self.image_size
        return -(-H // self.stride), -(-W // self.stride)

    def network(self) -> Rebuilding:
        """Projections and transformer, drawn from `seed`."""
        with engine.seeded(self.seed):
            transformer = NeighbourTransformer(
                self.grid,
                self.hidden,
                neighbourhood=self.neighbourhood,
                heads=self.heads,
                feedforward=self.feedforward,
                layers=(self.encoder_layers, self.decoder_layers),
                dropout=self.dropout,
            )
            return Rebuilding(sum(self.representation_.channels), self.hidden, self.grid, transformer)

    def objective(self, network: nn.Module) -> UniADObjective:
        """Squared error of what is rebuilt from features with noise."""
        return UniADObjective(
            network,
            jitter=self.jitter,
            jitter_probability=self.jitter_probability,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            seed=self.seed,
        )

    def scorer(self) -> UniADScorer:
        """The network and the map."""
        return UniADScorer(
            self.network_, pool=self.pool, sigma=self.sigma, stride=self.stride, centre=self._centre()
        )

    def _centre(self) -> Centre | None:
        """(stride, offset) of the grid: where the levels' cells lie once they are resized, in the mean."""
        if self.centres is None:
            return None
        offsets = [offset + (self.stride - stride) / 2 for stride, offset in self.centres]
        return float(self.stride), sum(offsets) / len(offsets)

    def _check_parameters(self) -> None:
        checks.whole_numbers(stride=self.stride, hidden=self.hidden, feedforward=self.feedforward)
        checks.whole_numbers(heads=self.heads, pool=self.pool)
        checks.whole_numbers(encoder_layers=self.encoder_layers, decoder_layers=self.decoder_layers)
        checks.whole_numbers(least=0, neighbourhood=self.neighbourhood)
        checks.numbers(least=0.0, above=True, learning_rate=self.learning_rate, clip=self.clip)
        checks.numbers(least=0.0, jitter=self.jitter, weight_decay=self.weight_decay, sigma=self.sigma)
        checks.numbers(least=0.0, most=0.99, dropout=self.dropout)
        checks.numbers(least=0.0, most=1.0, above=True, jitter_probability=self.jitter_probability)
        if not self.jitter:
            checks.without_effect("with jitter=0", jitter_probability=(self.jitter_probability, 1.0))
        if self.hidden % self.heads or self.hidden % 2:
            raise UsageError(
                f"hidden is an even multiple of heads: got hidden={self.hidden} and heads={self.heads}."
            )
        h, w = self.grid
        if h * w > MAX_CELLS:
            raise UsageError(
                f"stride={self.stride} divides images of {self.image_size} pixels into {h} x {w} cells, more "
                f"than {MAX_CELLS}: take a larger stride or smaller images."
            )
        neighbour_mask(self.grid, self.neighbourhood)


class Rebuilding(nn.Module):
    """Features on the grid (B, C, h, w) -> the same, rebuilt.

    C: channels of all levels together. hidden: size of a token. transformer: (B, h w, hidden) -> same."""

    def __init__(self, C: int, hidden: int, grid: tuple[int, int], transformer: nn.Module) -> None:
        super().__init__()
        self.grid = grid
        self.inward, self.outward = nn.Linear(C, hidden), nn.Linear(hidden, C)
        self.transformer = transformer
        for projection in (self.inward, self.outward):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def gather(self, features: FeatureMaps) -> Tensor:
        """[(B, C_l, h_l, w_l)] -> (B, C, h, w): every level on the grid, bilinearly, one after another."""
        return torch.cat([self._on_grid(level) for level in features], dim=1)

    def forward(self, grid: Tensor) -> Tensor:
        """(B, C, h, w)."""
        tokens = self.transformer(self.inward(grid.flatten(2).transpose(1, 2)))
        rebuilt: Tensor = self.outward(tokens).transpose(1, 2).unflatten(2, self.grid)
        return rebuilt

    def _on_grid(self, level: Tensor) -> Tensor:
        if tuple(level.shape[2:]) == self.grid:
            return level
        return functional.interpolate(level, size=self.grid, mode="bilinear", align_corners=False)


class UniADObjective(Objective):
    """mean (R(f + noise) - f)^2 over all values of the features f on the grid.

    network: a Rebuilding. The noise is the paper's feature jittering. seed: of the noise."""

    def __init__(
        self,
        network: Any,
        *,
        jitter: float,
        jitter_probability: float,
        learning_rate: float,
        weight_decay: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.network: Rebuilding = network
        self._jitter, self._probability = jitter, jitter_probability
        self._learning_rate, self._weight_decay, self._seed = learning_rate, weight_decay, seed

    def prepare(self, batch: dict[str, Any], position: Position) -> tuple[Tensor, Tensor]:
        """(f with noise, f), (B, C, h, w) each; the noise is a function of the position in the run."""
        clean = self.network.gather(batch["features"])
        generators = position.generators(self._seed)
        return torch.stack([self._jittered(f, g) for f, g in zip(clean, generators, strict=True)]), clean

    def loss(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The mean squared error."""
        noisy, clean = batch
        return {"loss": functional.mse_loss(self.network(noisy).float(), clean)}

    def optimiser(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(
            self.network.parameters(), lr=self._learning_rate, weight_decay=self._weight_decay
        )

    def lr_scale(self, step: int, steps: int) -> float:
        """A tenth at the end."""
        return multistep(step, steps, milestones=(STEP_AT,))

    def _jittered(self, feature: Tensor, generator: torch.Generator) -> Tensor:
        """(C, h, w) -> same, N(0, (jitter |f| / C)^2) added at each cell."""
        chance = torch.rand((), generator=generator)
        noise = torch.randn(feature.shape, generator=generator).to(feature.device)
        if chance >= self._probability:
            return feature
        return feature + noise * (self._jitter * feature.norm(dim=0) / len(feature))


class UniADScorer(nn.Module):
    """FeatureMaps -> (map (B, H, W), score (B,)); a cell's score is |R(f) - f|.

    centre: (stride, offset) of the grid in pixels for images of its size. For those of another size, or with
    None, the grid's corners are the image's, as released."""

    def __init__(
        self, network: Any, *, pool: int, sigma: float, stride: int, centre: Centre | None = None
    ) -> None:
        super().__init__()
        self.network: Rebuilding = network
        self.pool, self.sigma, self.stride, self.centre = pool, sigma, stride, centre

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """[(B, C_l, h_l, w_l)] of images of `size` (H, W)."""
        grid = self.network.gather(features)
        cells = (self.network(grid) - grid).norm(dim=1)
        fits = tuple(-(-side // self.stride) for side in size) == self.network.grid
        centre = self.centre if fits else None
        map_ = maps.upsample(cells, size, sigma=self.sigma, align_corners=True, centre=centre)
        window = min(self.pool, *size)
        return map_, functional.avg_pool2d(map_[:, None], window, stride=1).flatten(1).amax(1)
