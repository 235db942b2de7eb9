"""VAE: a variational auto-encoder; an image is anomalous where it is improbable given its own latent code.

Card. Papers: An and Cho, "Variational Autoencoder based Anomaly Detection using Reconstruction Probability",
SNU Data Mining Center, 2015 (algorithm 4); Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014
(Eq. 7 and 10, appendix B); few-shot contrastive fine-tuning (FSAD), section 4.2, for which it is a baseline.
There is no official code. Source of the constants: encoder, bottleneck and decoder as in autoencoder.py; Adam
2e-4, weight decay 1e-5 as there; beta 1; 10 draws (neither paper says how many). Differences: score and map
are divided by the number of values, so that images of all sizes are on one scale; the draws are the same for
every image and every call, so that predictions can be repeated. The variance that the decoder gives is at
least LEAST_VARIANCE: on an image of one colour the likelihood has no bound without it."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from kizu import checks, maps
from kizu.adaptation.base import Adaptation
from kizu.detectors._grid import GridDetector
from kizu.detectors._windows import Windowed
from kizu.detectors.runtime import Runtime
from kizu.nn.image_decoder import Bottleneck, ImageDecoder
from kizu.representations.base import Representation
from kizu.training import Objective, Position
from kizu.types import FeatureMaps

LEAST_VARIANCE = 1e-4
"""Of a pixel: a deviation of 0.01, between two and three grey levels of 255."""


class VAE(GridDetector):
    """Map: -log p(x | z) of each pixel, the mean over draws of z from q(z | x); it may be negative. Score:
    the mean of the map.

    latent: dimensions of z. beta: weight of the divergence from the prior. variance: of p(x | z) about the
    decoder's image; None: the decoder gives one for each value, as An and Cho have it. samples: draws of z
    when scoring. iterations: steps of batch_size images. learning_rate: per step. sigma: smoothing of the map
    in pixels. training_precision: "auto", "fp32" or "bf16". Learned: network_, encoder and variational
    head."""

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        latent: int = 100,
        beta: float = 1.0,
        variance: float | None = None,
        samples: int = 10,
        learning_rate: float = 2e-4,
        weight_decay: float = 1e-5,
        iterations: int = 2000,
        sigma: float = 0.0,
        seed: int = 0,
        training_precision: str = "auto",
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(representation, adaptation=adaptation, runtime=runtime)
        checks.whole_numbers(latent=latent, samples=samples)
        if variance is not None:
            checks.numbers(least=LEAST_VARIANCE, variance=variance)
        checks.numbers(least=0.0, above=True, learning_rate=learning_rate)
        checks.numbers(least=0.0, beta=beta, weight_decay=weight_decay, sigma=sigma)
        self.latent, self.beta, self.variance, self.samples = latent, beta, variance, samples
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.iterations, self.sigma = iterations, sigma
        self.seed, self.training_precision = seed, training_precision
        self._check_training()

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """64 pixels, 40 steps."""
        return cls(
            representation,
            latent=16,
            samples=2,
            learning_rate=1e-3,
            iterations=40,
            training_precision="fp32",
            adaptation=adaptation,
            runtime=Runtime(image_size=64, precision="fp32", batch_size=4),
        )

    def head(self) -> Variational:
        """Bottleneck and decoder for the grid of the images."""
        net = self.representation_
        return Variational(net.channels[-1], self.grid_, net.strides[-1], self.latent, variance=self.variance)

    def objective(self, network: nn.Module) -> VAEObjective:
        """The negative evidence lower bound."""
        return VAEObjective(
            network,
            beta=self.beta,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            seed=self.seed,
        )

    def scorer(self) -> VAEScorer:
        """The head in the precision of the features, and the draws."""
        head: Any = copy.deepcopy(self.network_.head).eval().to(self._precision.dtype)
        generator = torch.Generator().manual_seed(self.seed)
        draws = torch.randn(self.samples, self.latent, generator=generator)
        return VAEScorer(head, draws, self.sigma)

    def _scoring_representation(self) -> Representation:
        """The trained encoder's last level, and the image."""
        return Windowed(self.network_.encoder)


class Variational(nn.Module):
    """The encoder's last level -> q(z | x); z -> p(x | z). Both Gaussian, of independent values.

    variance: of p(x | z), or None for one that the decoder gives."""

    def __init__(
        self, channels: int, grid: tuple[int, int], stride: int, latent: int, *, variance: float | None
    ) -> None:
        super().__init__()
        self.grid, self.variance = grid, variance
        self.bottleneck = Bottleneck(channels, grid, 2 * latent)
        self.bottleneck.begin_near_zero()  # else variances of any size meet the decoder in the first steps
        outputs = 3 if variance is not None else 6
        self.decoder = ImageDecoder(latent, grid, stride, channels=channels, outputs=outputs)

    def posterior(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) -> mean and log variance of z, (B, latent) float32 each."""
        mean, log_variance = self.bottleneck(feature).float().chunk(2, dim=1)
        return mean, log_variance

    def surprise(self, z: Tensor, images: Tensor) -> Tensor:
        """-log p(x | z) of every value: (B, latent), (B, 3, H, W) -> (B, 3, H, W) float32."""
        size = (int(images.shape[2]), int(images.shape[3]))
        decoded = self.decoder(z.to(next(self.parameters()).dtype), size).float()
        if self.variance is not None:
            return gaussian_surprise(images, decoded, torch.full_like(decoded, self.variance))
        mean, raw = decoded.chunk(2, dim=1)
        return gaussian_surprise(images, mean, functional.softplus(raw) + LEAST_VARIANCE)


class VAEObjective(Objective):
    """(-log p(x | z) + beta KL(q(z | x) | N(0, 1))) / number of values of an image, z one draw from q.

    network: `encoder` and a Variational `head`. seed: of the draws."""

    def __init__(
        self, network: Any, *, beta: float, learning_rate: float, weight_decay: float, seed: int
    ) -> None:
        super().__init__()
        self.network = network
        self._beta, self._seed = beta, seed
        self._rate, self._weight_decay = learning_rate, weight_decay

    def prepare(self, batch: dict[str, Tensor], position: Position) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W), and noise (B, latent), a function of the position in the run."""
        images, latent = batch["images"], self.network.head.decoder.unfold.in_channels
        drawn = [torch.randn(latent, generator=one) for one in position.generators(self._seed)]
        return images, torch.stack(drawn).to(images.device)

    def loss(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """ "surprise" and "divergence" are the two parts before they are weighed, per value."""
        images, noise = batch
        head: Variational = self.network.head
        mean, log_variance = head.posterior(self.network.encoder(images)[-1])
        z = mean + torch.exp(0.5 * log_variance) * noise
        surprise = head.surprise(z, images).mean()
        divergence = divergence_from_prior(mean, log_variance).mean() / images[0].numel()
        return {
            "loss": surprise + self._beta * divergence,
            "surprise": surprise.detach(),
            "divergence": divergence.detach(),
        }

    def optimiser(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.network.parameters(), lr=self._rate, weight_decay=self._weight_decay)


def gaussian_surprise(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """-log N(x; mean, variance), value by value.

    >>> gaussian_surprise(torch.tensor(3.0), torch.tensor(1.0), torch.tensor(1.0))
    tensor(2.9189)
    """
    return 0.5 * ((x - mean).square() / variance + variance.log() + math.log(2 * math.pi))


def divergence_from_prior(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) | N(0, 1)) of rows (B, latent) -> (B,) (Kingma and Welling, appendix B).

    >>> divergence_from_prior(torch.tensor([[0.0, 2.0]]), torch.zeros(1, 2))
    tensor([2.])
    """
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(dim=1)


class VAEScorer(nn.Module):
    """[(B, C, h, w), (B, 3, H, W)] -> (map (B, H, W), score (B,)).

    draws: (L, latent), standard normal, the same for all images."""

    draws: Tensor

    def __init__(self, head: Any, draws: Tensor, sigma: float) -> None:
        super().__init__()
        self.head: Variational = head
        self.sigma = sigma
        self.register_buffer("draws", draws)

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Higher is more anomalous. Raises ShapeError for images of another size than was trained on."""
        code, images = features
        mean, log_variance = self.head.posterior(code.to(next(self.head.parameters()).dtype))
        deviation = torch.exp(0.5 * log_variance)
        total = torch.zeros_like(images)
        for noise in self.draws:
            total += self.head.surprise(mean + deviation * noise, images)
        surprise = (total / len(self.draws)).mean(dim=1)  # (B, H, W)
        return maps.upsample(surprise, size, sigma=self.sigma), surprise.flatten(1).mean(1)
