"""Deep SVDD: an encoder learns to bring good images near one fixed point; how far an image lies from it is
its score.

Card. Paper: Ruff, Vandermeulen, Goernitz, Deecke, Siddiqui, Binder, Mueller and Kloft, "Deep One-Class
Classification", ICML 2018. Official code: lukasruff/Deep-SVDD-PyTorch (MIT); nothing of it is used. A
baseline of few-shot contrastive fine-tuning (FSAD), section 4.2. Source of the constants, the released
CIFAR-10 runs: LeNet without biases ("small/lenet"), embedding of 128, Adam 1e-4 to a tenth after 250 of 350
passes (auto-encoder) and after 50 of 150, weight decay 0.5e-6, batches of 200; nu 0.1, no radius in the
first 10 passes, then the (1 - nu)-quantile of each batch's distances; components of the centre at least 0.1
from 0; contrast normalisation by the L1 norm, then by the least and largest value of the good images.
Defaults are for the other use, FSAD's: a trained backbone, pooled features, centre from the first pass, a
small learning rate, batch norms that keep their statistics. Such a network has biases and affine norms,
with which all images can be brought onto the centre (propositions 2 and 3): the spread of the features is
logged, and a warning is given where it has gone. Differences: steps instead of passes; the auto-encoder's
decoder is that of nn/image_decoder.py, without norms and upsampling; its latent code has no norm; quantile
and centre are as in the code, the paper solves for R by line search. The papers give no map. Ours takes the
score apart, as gaussian does: with f the mean of y_p over positions, the share of p is (y_p - c)^T (f - c)
(- R^2), whose mean is the score; shares may be negative."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from kizu import checks, engine, maps
from kizu.adaptation.base import Adaptation
from kizu.detectors._grid import GridDetector
from kizu.detectors._svdd import ContrastNormalised, SvddHead, SvddObjective, SvddRules
from kizu.detectors.runtime import Runtime
from kizu.errors import Collapsed, UnknownName, UsageError
from kizu.nn.image_decoder import ImageDecoder
from kizu.representations.base import Representation
from kizu.training import FitOptions, SampleStore
from kizu.types import Batch, Centre, FeatureMaps

VARIANTS = ("one_class", "soft_boundary")
BATCH_NORMS = ("eval", "train")
NU, WARM_UP = 0.1, 10 / 150
COLLAPSED = 1e-6
"""Of the variance of the features before: their spread has fallen to a thousandth."""


class DeepSVDD(GridDetector):
    """Score: |f - c|^2, f the feature of the image, c the centre; with a soft boundary minus R^2. Map: the
    share of each position in it, which may be negative.

    variant: "one_class" or "soft_boundary". nu: share of the good images that may lie outside; warm_up: share
    of the steps without a radius; both of the soft boundary only. embedding: numbers of a bias-free linear
    layer after the last level; None: f is the mean over its positions. pretraining: steps, of all
    `iterations`, in which the encoder first learns as an auto-encoder. contrast: global contrast
    normalisation of the images. least_centre: how near to 0 a component of c may be. batch_norm: "eval"
    keeps the statistics of the encoder's batch norms, "train" learns them. learning_rate: per step. sigma:
    smoothing of the map in pixels. training_precision: "auto", "fp32" or "bf16". Learned: network_, with
    head.centre and head.radius."""

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        variant: str = "one_class",
        nu: float = NU,
        warm_up: float = WARM_UP,
        embedding: int | None = None,
        pretraining: int = 0,
        contrast: bool = False,
        least_centre: float = 0.1,
        batch_norm: str = "eval",
        learning_rate: float = 1e-5,
        weight_decay: float = 5e-7,
        iterations: int = 500,
        sigma: float = 4.0,
        seed: int = 0,
        training_precision: str = "auto",
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(representation, adaptation=adaptation, runtime=runtime)
        self.variant, self.nu, self.warm_up = variant, nu, warm_up
        self.embedding, self.pretraining, self.contrast = embedding, pretraining, contrast
        self.least_centre, self.batch_norm = least_centre, batch_norm
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.iterations, self.sigma = iterations, sigma
        self.seed, self.training_precision = seed, training_precision
        self._samples: SampleStore | None = None
        self._check()

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """64 pixels, 20 steps."""
        return cls(
            representation,
            iterations=20,
            learning_rate=1e-4,
            sigma=2.0,
            training_precision="fp32",
            adaptation=adaptation,
            runtime=Runtime(image_size=64, precision="fp32", batch_size=4),
        )

    def head(self) -> SvddHead:
        """Centre and radius, not set yet; the embedding."""
        return SvddHead(self.representation_.channels[-1], self.grid_, self.embedding)

    def objective(self, network: nn.Module) -> SvddObjective:
        """Distances from the centre; before, with `pretraining`, rebuilt images."""
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise UsageError(
                f"Deep SVDD trains a network; {self.representation_.card['name']} has nothing that learns. "
                "Take a network, such as small/lenet, or embedding=32."
            )
        samples, batch_size = self._samples, self.batch_size

        def images() -> Iterator[Tensor]:
            assert samples is not None  # an objective is made within a fit
            for batch in samples.batches(batch_size):
                yield batch.require_images()

        rules = SvddRules(
            pretraining=self.pretraining,
            nu=self.nu if self.variant == "soft_boundary" else None,
            warm_up=self.warm_up,
            least_centre=self.least_centre,
            contrast=self.contrast,
            frozen_norms=self.batch_norm == "eval",
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
        )
        return SvddObjective(network, rules, self._decoder() if self.pretraining else None, images)

    def scorer(self) -> DeepSVDDScorer:
        """Centre, radius and embedding."""
        centre = None if self.centres is None else self.centres[-1]
        return DeepSVDDScorer(copy.deepcopy(self.network_.head), self.sigma, centre)

    # -- within the class ------------------------------------------------------------------------------------

    def _learn(self, batches: Iterator[Batch], options: FitOptions) -> int:
        try:
            return super()._learn(batches, options)
        finally:
            self._samples = None

    def _collected(self, batches: Iterator[Batch], options: FitOptions) -> SampleStore:
        self._samples = super()._collected(batches, options)
        return self._samples

    def _check_samples(self, samples: SampleStore) -> None:
        if self.batch_norm == "train":
            super()._check_samples(samples)

    def _decoder(self) -> ImageDecoder:
        """What rebuilds images from f during the pretraining."""
        net = self.representation_
        with engine.seeded(self.seed + 1):
            return ImageDecoder(
                self.embedding or net.channels[-1], self.grid_, net.strides[-1], channels=net.channels[-1]
            )

    def _scoring_representation(self) -> Representation:
        """The trained encoder, before it the contrast normalisation."""
        encoder: Representation = self.network_.encoder
        return ContrastNormalised(encoder, self.network_.head.bounds) if self.contrast else encoder

    def _complete(self, samples: SampleStore) -> None:
        """Warn where all good images have become one point."""
        head, before = self.network_.head, float(self.network_.head.spread)
        if before <= 0.0:  # one image, or several that are the same
            return
        with torch.inference_mode():
            batches = samples.batches(self.batch_size)
            f = torch.cat([head(self._features(batch)[-1].cpu()) for batch in batches]).double()
        after = float(f.var(dim=0, correction=0).sum())
        if after < COLLAPSED * before:
            warnings.warn(
                f"Deep SVDD has collapsed: the features of all good images are nearly one point (variance "
                f"{after:.2g}, {before:.2g} before the training), and so are those of flaws. Take fewer "
                "iterations, a smaller learning_rate, or a network without biases (small/lenet).",
                Collapsed,
                stacklevel=2,
            )

    def _check(self) -> None:
        """Raise for parameters that cannot be meant."""
        for name, value, known in (
            ("variant", self.variant, VARIANTS),
            ("batch_norm", self.batch_norm, BATCH_NORMS),
        ):
            if value not in known:
                raise UnknownName(name, value, known)
        checks.numbers(least=0.0, above=True, most=1.0, nu=self.nu)
        checks.numbers(least=0.0, most=1.0, warm_up=self.warm_up)
        if self.variant == "one_class":
            checks.without_effect(
                "without a soft boundary", nu=(self.nu, NU), warm_up=(self.warm_up, WARM_UP)
            )
        checks.whole_numbers(none=True, embedding=self.embedding)
        checks.whole_numbers(least=0, pretraining=self.pretraining)
        checks.switches(contrast=self.contrast)
        checks.numbers(least=0.0, above=True, learning_rate=self.learning_rate)
        checks.numbers(
            least=0.0, least_centre=self.least_centre, weight_decay=self.weight_decay, sigma=self.sigma
        )
        self._check_training()
        if self.pretraining >= self.iterations:
            raise UsageError(
                f"pretraining counts among the iterations, and some must be left: got {self.pretraining} of "
                f"{self.iterations}."
            )


class DeepSVDDScorer(nn.Module):
    """FeatureMaps -> (map (B, H, W), score (B,)).

    centre: (stride, offset) of the last level, in pixels."""

    def __init__(self, head: Any, sigma: float, centre: Centre | None = None) -> None:
        super().__init__()
        self.head: SvddHead = head
        self.sigma, self.centre = sigma, centre

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Higher is more anomalous. With an embedding, raises ShapeError for images of another size than was
        trained on."""
        from_centre = self.head(features[-1]) - self.head.centre  # (B, D)
        inside = self.head.radius.square()
        position = self.head.shares(features[-1]) - self.head.centre[:, None, None]  # (B, D, h, w)
        share = (position * from_centre[:, :, None, None]).sum(dim=1) - inside
        map_ = maps.upsample(share, size, sigma=self.sigma, centre=self.centre)
        return map_, from_centre.square().sum(dim=1) - inside
