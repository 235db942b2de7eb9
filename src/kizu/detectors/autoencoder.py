"""Autoencoder: an encoder and its mirror image rebuild good images; what is not rebuilt is anomalous.

Card. Papers: Bergmann, Loewe, Fauser, Sattlegger and Steger, "Improving Unsupervised Defect Segmentation by
Applying Structural Similarity to Autoencoders", VISAPP 2019; Bergmann et al., MVTec AD, CVPR 2019 (windows);
few-shot contrastive fine-tuning (FSAD), section 4.2, for which it is a baseline. There is no official code.
Source of the constants: decoder, bottleneck and small/ssim_ae after table 1; latent vectors of 100 for
textures and 500 for objects; crops of 128 pixels of textures, windows 30 pixels apart whose residual maps are
averaged (MVTec AD); Adam 2e-4, weight decay 1e-5, batches of 128, 200 passes; SSIM of window 11
(losses/ssim.py). Differences and choices where the papers are silent: the encoder is a copy of the
representation's last level (FSAD begins with ImageNet weights; "small/ssim_ae" is the stack of 2019);
colour images, not grey; no random rotation or flip of crops, which `fit` does not do to images; the score is
the mean residual (FSAD names no rule), "max" and "top" are there; the map is not smoothed unless sigma is
said."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from kizu import checks, maps
from kizu.adaptation.base import Adaptation
from kizu.detectors._grid import GridDetector
from kizu.detectors._windows import Windowed, corners
from kizu.detectors.runtime import Runtime
from kizu.errors import UnknownName
from kizu.losses.ssim import ssim_map
from kizu.nn.floats import at_least_float32
from kizu.nn.image_decoder import Bottleneck, ImageDecoder
from kizu.nn.windows import random_windows
from kizu.representations.base import Representation
from kizu.training import Objective, Position, SampleStore
from kizu.types import Batch, FeatureMaps

LOSSES = ("l2", "ssim")
SCORE_RULES = ("max", "mean", "top")
STRIDE = 30


class Autoencoder(GridDetector):
    """Map: squared error, or 1 - SSIM, of the rebuilt image at each pixel.

    loss: "l2" or "ssim", of training and map. latent: numbers between encoder and decoder. crop: side of the
    windows that are learned and scored, in pixels; None takes whole images. stride: pixels between two
    windows when scoring, with crop only. score_rule: "mean", "max" or "top" (mean of the highest 1 %) of the
    map. iterations: steps of batch_size images. learning_rate: per step. sigma: smoothing of the map in
    pixels. training_precision: "auto", "fp32" or "bf16". Learned: network_, the encoder and the rebuilding
    head."""

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        loss: str = "ssim",
        latent: int = 500,
        crop: int | None = None,
        stride: int = STRIDE,
        score_rule: str = "mean",
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
        for name, value, known in (("loss", loss, LOSSES), ("score_rule", score_rule, SCORE_RULES)):
            if value not in known:
                raise UnknownName(name, value, known)
        checks.whole_numbers(latent=latent)
        checks.whole_numbers(least=8, none=True, crop=crop)
        checks.whole_numbers(least=4, stride=stride)
        if crop is None:
            checks.without_effect("without crop", stride=(stride, STRIDE))
        checks.numbers(least=0.0, above=True, learning_rate=learning_rate)
        checks.numbers(least=0.0, weight_decay=weight_decay, sigma=sigma)
        self.loss, self.latent, self.crop, self.stride = loss, latent, crop, stride
        self.score_rule, self.learning_rate, self.weight_decay = score_rule, learning_rate, weight_decay
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
            loss="l2",
            latent=16,
            learning_rate=1e-3,
            iterations=40,
            training_precision="fp32",
            adaptation=adaptation,
            runtime=Runtime(image_size=64, precision="fp32", batch_size=4),
        )

    def head(self) -> Rebuilding:
        """Bottleneck and decoder for the grid of the images, or of a crop."""
        net = self.representation_
        return Rebuilding(net.channels[-1], self.grid_, net.strides[-1], self.latent)

    def objective(self, network: nn.Module) -> AutoencoderObjective:
        """The mean residual of rebuilt images."""
        return AutoencoderObjective(
            network,
            loss=self.loss,
            crop=self.crop,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            seed=self.seed,
        )

    def scorer(self) -> AutoencoderScorer:
        """The head in the precision of the features."""
        head: Any = copy.deepcopy(self.network_.head).eval().to(self._precision.dtype)
        return AutoencoderScorer(
            head, loss=self.loss, crop=self.crop, stride=self.stride, rule=self.score_rule, sigma=self.sigma
        )

    def _first_features(self, samples: SampleStore) -> FeatureMaps:
        features = super()._first_features(samples)
        if self.crop is None:
            return features
        whole = samples.take([0]).require_images()
        corners(samples.size, self.crop, self.stride)
        part = SampleStore()
        part.add(Batch(whole[:, :, : self.crop, : self.crop]))
        return super()._first_features(part)

    def _scoring_representation(self) -> Representation:
        """The trained encoder's view of each window, and the image."""
        return Windowed(self.network_.encoder, self.crop, self.stride)


class Rebuilding(nn.Module):
    """The encoder's last level (B, C, h, w) -> rebuilt images (B, 3, H, W)."""

    def __init__(self, channels: int, grid: tuple[int, int], stride: int, latent: int) -> None:
        super().__init__()
        self.grid = grid
        self.bottleneck = Bottleneck(channels, grid, latent)
        self.decoder = ImageDecoder(latent, grid, stride, channels=channels)

    def forward(self, feature: Tensor, size: tuple[int, int]) -> Tensor:
        """size: (H, W)."""
        rebuilt: Tensor = self.decoder(self.bottleneck(feature), size)
        return rebuilt


class AutoencoderObjective(Objective):
    """The mean over images and pixels of the squared error, or of 1 - SSIM.

    network: `encoder` and `head`. crop: side of the random crops that are learned; None: whole images. seed:
    of their places."""

    def __init__(
        self,
        network: Any,
        *,
        loss: str,
        crop: int | None,
        learning_rate: float,
        weight_decay: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.network = network
        self._loss, self._crop, self._seed = loss, crop, seed
        self._rate, self._weight_decay = learning_rate, weight_decay

    def prepare(self, batch: dict[str, Tensor], position: Position) -> Tensor:
        """Images (B, 3, H, W), or a crop of each; its place is a function of the position in the run."""
        images = batch["images"]
        return (
            images
            if self._crop is None
            else random_windows(images, self._crop, position.generators(self._seed))
        )

    def loss(self, batch: Tensor) -> dict[str, Tensor]:
        """The residual that the map shows."""
        size = (int(batch.shape[2]), int(batch.shape[3]))
        rebuilt = self.network.head(self.network.encoder(batch)[-1], size)
        return {"loss": residual(rebuilt, batch, self._loss).mean()}

    def optimiser(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.network.parameters(), lr=self._rate, weight_decay=self._weight_decay)


def residual(rebuilt: Tensor, images: Tensor, loss: str) -> Tensor:
    """(B, 3, H, W) twice -> (B, H, W): squared error ("l2"), the mean over channels, or 1 - SSIM ("ssim").

    >>> residual(torch.tensor([0.5, 0.0, 0.0]).reshape(1, 3, 1, 1), torch.zeros(1, 3, 1, 1), "l2")
    tensor([[[0.0833]]])
    """
    rebuilt, images = at_least_float32(rebuilt), at_least_float32(images)
    if loss == "l2":
        return (rebuilt - images).square().mean(dim=1)
    return 1 - ssim_map(rebuilt, images)


class AutoencoderScorer(nn.Module):
    """[(B, n C, h, w), (B, 3, H, W)] of `Windowed` -> (map (B, H, W), score (B,)).

    Residual maps of windows that overlap are averaged. rule: of the image score."""

    def __init__(
        self, head: nn.Module, *, loss: str, crop: int | None, stride: int, rule: str, sigma: float
    ) -> None:
        super().__init__()
        self.head, self.loss, self.rule, self.sigma = head, loss, rule, sigma
        self.crop, self.stride = crop, stride

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Higher is more anomalous. Raises ShapeError for images of another size than was trained on."""
        codes, images = features
        places = corners(size, self.crop, self.stride)
        height, width = (self.crop, self.crop) if self.crop else size
        total, count = torch.zeros_like(images[:, 0]), torch.zeros_like(images[:1, 0])
        dtype = next(self.head.parameters()).dtype
        for code, (top, left) in zip(codes.chunk(len(places), dim=1), places, strict=True):
            rows, columns = slice(top, top + height), slice(left, left + width)
            rebuilt = self.head(code.to(dtype), (height, width))
            total[:, rows, columns] += residual(rebuilt, images[:, :, rows, columns], self.loss)
            count[:, rows, columns] += 1
        map_ = maps.upsample(total / count, size, sigma=self.sigma)
        return map_, maps.image_score(map_, self.rule)
