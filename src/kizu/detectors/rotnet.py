"""RotNet: a network that learns to tell in which way good images were turned fails on images of another kind.

Card. Paper: Golan and El-Yaniv, "Deep Anomaly Detection Using Geometric Transformations", NeurIPS 2018; with
the four turns alone Gidaris et al., ICLR 2018, whose task is called RotNet. Official code:
izikgo/AnomalyDetectionTransformations (MIT); nothing of it is used. Also Sohn et al., "Learning and
Evaluating Representations for Deep One-Class Classification", ICLR 2021 (google-research/
deep_representation_one_class, Apache-2.0; not used): the density of the trained features. Source of the
constants: 72 transformations (paper, section 4.1), Adam at Keras' default 1e-3 without schedule (code), SGD
with momentum 0.9 and half a cosine (Sohn et al.: 0.01, weight decay 3e-4), WRN-10-4 at 32 pixels
("small/wrn_10_4"; paper, section 5). Few-shot contrastive fine-tuning (FSAD, section 4.2) trains the four
turns on an ImageNet ResNet and does not say how it scores: "softmax" here.

Differences: every image passes `drawn` transformations in a step (the paper's code shuffles all pairs of
image and transformation into batches of 128); a number of steps instead of ceil(200 / 72) = 3 passes over all
pairs; one linear layer after pooling for every score (Sohn et al. have an MLP of 8 hidden layers); the
normality score is a mean over transformations, where the paper has the sum. The papers give no map: ours
applies the linear layer position by position in each transformed image, turns what it finds back and averages
over the transformations that show the pixel (density: the shares of the gaussian detector, of the image as
it is). A position alone knows less than the whole image, so a map compares places of one image."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from kizu import checks, store
from kizu.adaptation.base import Adaptation
from kizu.detectors._density_scorer import DensityScorer, opened_density, unit_density
from kizu.detectors._image_encoder import ImageEncoder
from kizu.detectors._rotation_parts import AUGMENTATIONS, OPTIMISERS, SCORES, RotNetObjective, RotNetScorer
from kizu.detectors.encoder import EncoderDetector
from kizu.detectors.runtime import Runtime
from kizu.errors import TooFewImages, UnknownName, UsageError
from kizu.nn.density import COVARIANCES
from kizu.nn.dirichlet import dirichlet
from kizu.nn.transformations import TRANSFORMS, require_square, transformations
from kizu.representations.base import Representation
from kizu.representations.pixels import Pixels
from kizu.training import SampleStore


class RotNet(EncoderDetector):
    """Score: how unsure the network is of the transformations that were applied to the image.

    transforms: "rotations" (4) or "geometric" (72). shift: of the latter, in sides. drawn: how many each
    image passes in a step. score: "softmax", 1 - the mean probability of the right transformation;
    "dirichlet", minus the paper's normality score; "gaussian", the density of the trained features.
    covariance: of that density. augmentation: "none", or "weak" (views.weak) before the transformation.
    optimiser: "adam", or "sgd" with half a cosine; learning_rate: per step. sigma: smoothing of the map in
    pixels. Learned: network_, concentration_ (K, K) or mean_ (D,) and whitening_ (D, D) by `score`. Images
    must be square."""

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        transforms: str = "rotations",
        shift: float = 0.25,
        drawn: int = 4,
        score: str = "softmax",
        covariance: str = "ledoit_wolf",
        augmentation: str = "none",
        optimiser: str = "adam",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        iterations: int = 1000,
        sigma: float = 4.0,
        seed: int = 0,
        training_precision: str = "auto",
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(representation, adaptation=adaptation, runtime=runtime)
        self.transforms, self.shift, self.drawn, self.score = transforms, shift, drawn, score
        self.covariance, self.augmentation, self.optimiser = covariance, augmentation, optimiser
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.iterations, self.sigma, self.seed = iterations, sigma, seed
        self.training_precision = training_precision
        self._check_parameters()
        self._check_training()

    def _check_parameters(self) -> None:
        for name, known in (
            ("transforms", TRANSFORMS),
            ("score", SCORES),
            ("covariance", COVARIANCES),
            ("augmentation", AUGMENTATIONS),
            ("optimiser", OPTIMISERS),
        ):
            if getattr(self, name) not in known:
                raise UnknownName(name, str(getattr(self, name)), known)
        checks.numbers(least=0.0, above=True, learning_rate=self.learning_rate)
        checks.numbers(least=0.0, weight_decay=self.weight_decay, sigma=self.sigma)
        checks.numbers(least=0.0, most=0.5, above=True, shift=self.shift)
        checks.whole_numbers(drawn=self.drawn)
        if self.drawn > self._count:
            raise UsageError(f"drawn is at most {self._count}, all {self.transforms}, got {self.drawn}.")
        if self.transforms == "rotations":
            checks.without_effect("with transforms='rotations'", shift=(self.shift, 0.25))
        if self.score != "gaussian":
            checks.without_effect(f"with score={self.score!r}", covariance=(self.covariance, "ledoit_wolf"))

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """64 pixels, 10 steps."""
        return cls(
            representation,
            iterations=10,
            sigma=2.0,
            training_precision="fp32",
            adaptation=adaptation,
            runtime=Runtime(image_size=64, precision="fp32", batch_size=4),
        )

    @property
    def _count(self) -> int:
        return len(transformations(self.transforms))

    def head(self) -> nn.Linear:
        """One output a transformation."""
        return nn.Linear(sum(self.representation_.channels), self._count)

    def objective(self, network: nn.Module) -> RotNetObjective:
        """Cross-entropy of which transformation it was."""
        return RotNetObjective(
            network,
            transformations(self.transforms),
            shift=self.shift,
            drawn=self.drawn,
            augment=self.augmentation == "weak",
            optimiser=self.optimiser,
            rate=self.learning_rate,
            weight_decay=self.weight_decay,
            seed=self.seed,
        )

    def scorer(self) -> nn.Module:
        """The density of features; else the encoder itself, which sees every image transformed."""
        if self.score == "gaussian":
            return DensityScorer(self.mean_, self.whitening_, sigma=self.sigma, centres=self.centres)
        return self._transforming(self.concentration_.float() if self.score == "dirichlet" else None)

    def _transforming(self, concentration: Tensor | None) -> RotNetScorer:
        return RotNetScorer(
            ImageEncoder(self.network_.encoder, self._precision.dtype, self._device),
            copy.deepcopy(self.network_.head),
            transformations(self.transforms),
            shift=self.shift,
            concentration=concentration,
            sigma=self.sigma,
            centres=self.centres,
        )

    def _scoring_representation(self) -> Representation:
        """The trained encoder, or, where the scorer holds that, the image itself."""
        return self.network_.encoder if self.score == "gaussian" else Pixels()

    def _check_samples(self, samples: SampleStore) -> None:
        require_square(samples.size)
        positions = self._first_features(samples)[-1][0, 0].numel()
        if positions * self.batch_size * self.drawn < 2:
            raise UsageError(
                "Batch norm takes at least 2 positions a step: larger images, batch_size or drawn."
            )
        if self.score == "dirichlet" and len(samples) < 2:
            raise TooFewImages(
                "score='dirichlet' fits a distribution to the answers to good images, which takes at least "
                f"2; got {len(samples)}. Give more, or take score='softmax' (--set score=softmax), for which "
                "one is enough."
            )

    def _complete(self, samples: SampleStore) -> None:
        if self.score == "gaussian":
            rows = self._pooled_features(samples)
            self.mean_, self.whitening_ = unit_density(rows, self.covariance)
        if self.score == "dirichlet":
            self.concentration_ = self._concentrations(samples)

    @torch.no_grad()
    def _concentrations(self, samples: SampleStore) -> Tensor:
        """(K, K) float64: for each transformation the Dirichlet of the network's answers to good images."""
        plain = self._transforming(None).to(self._device)
        answers = [
            plain.answers(batch.require_images().to(self._device)).cpu()
            for batch in samples.batches(self.batch_size)
        ]
        return dirichlet(torch.cat(answers).transpose(0, 1))  # (n, K, K) -> (K, n, K)

    def _state(self) -> dict[str, Tensor]:
        state = super()._state()
        if self.score == "dirichlet":
            state["concentration"] = self.concentration_
        if self.score == "gaussian":
            state |= {"mean": self.mean_, "whitening": self.whitening_}
        return state

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        super()._restore(tensors)
        if self.score == "dirichlet":
            store.expect("RotNet", tensors, {"concentration": f"{self._count} {self._count}"})
            self.concentration_ = tensors["concentration"].double()
        if self.score == "gaussian":
            D = sum(self.representation_.channels)
            self.mean_, self.whitening_ = opened_density("RotNet", tensors, D)
