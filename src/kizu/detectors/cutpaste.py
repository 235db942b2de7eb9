"""CutPaste: a network learns to tell good images from the same with a piece pasted elsewhere; images are then
scored by the density of its features.

Card. Paper: Li, Sohn, Yoon and Pfister, "CutPaste: Self-Supervised Learning for Anomaly Detection and
Localization", CVPR 2021. There is no official code; where two re-implementations (Runinho/pytorch-cutpaste,
LilitYolyan/CutPaste) are named below, nothing of them is used. Source of the constants: classes good, patch
and scar, head of width 512 and 128 with batch norm, SGD 0.03 with momentum 0.9, weight decay 3e-5 and half a
cosine, colour jitter of 0.1 as ordinary augmentation (paper, section 3 and appendix); the encoder frozen for
the first 20 steps (Runinho); Gaussian density of L2-normalised pooled features, 64-pixel windows with stride
4, the receptive field's Gaussian (paper, section 3.3). The pieces: views.cutpaste.

Silent, and filled in: the class score of Grad-CAM is the logarithm of the odds of "any paste"; the image
score of windows is the largest of them; the colours are jittered before the paste, the same for all classes.
Differences: a number of steps, where the paper has 256 epochs of 256 steps and Runinho 256 steps; the density
is shrunk after Ledoit and Wolf (Runinho; the paper does not say how it is made invertible); the map of the
image-level model is, by default, each position's exact share of the score, as that of the gaussian detector,
and Grad-CAM of the class, as the paper has it, is an option; the density of windows is fitted to windows a
quarter of a side apart (neighbours at stride 4 share 94 % of their pixels); the receptive field's Gaussians
are averaged, not added."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from kizu import checks
from kizu.adaptation.base import Adaptation
from kizu.detectors._cutpaste_parts import (
    LOCALISE,
    TASKS,
    CutPasteObjective,
    CutPasteScorer,
    Head,
    WindowScorer,
)
from kizu.detectors._density_scorer import DensityScorer, opened_density, unit_density
from kizu.detectors._image_encoder import ImageEncoder
from kizu.detectors.encoder import EncoderDetector
from kizu.detectors.runtime import Runtime
from kizu.errors import UnknownName, UsageError
from kizu.nn.density import COVARIANCES, pool
from kizu.nn.windows import windows
from kizu.representations.base import Representation
from kizu.representations.pixels import Pixels
from kizu.training import SampleStore


class CutPaste(EncoderDetector):
    """Score: Mahalanobis distance of the trained encoder's pooled and normalised feature; with `crop` the
    largest over windows.

    task: "3way" (good, patch, scar), "binary" (good, patch), "scar" (good, scar) or "union" (good, either).
    hidden, head_layers: width and number of the head's layers before its last, of 128. frozen: first steps in
    which the head learns alone. jitter: strength of the colour jitter. covariance: of the density. localise:
    map by each position's "share" of the score, or "grad_cam" of the class. crop: side of windows, None for
    whole images; stride: between them. sigma: smoothing of the map in pixels, of whole images. Learned:
    network_, mean_ (D,), whitening_ (D, D)."""

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        task: str = "3way",
        hidden: int = 512,
        head_layers: int = 1,
        frozen: int = 20,
        jitter: float = 0.1,
        covariance: str = "ledoit_wolf",
        localise: str = "share",
        crop: int | None = None,
        stride: int = 4,
        learning_rate: float = 0.03,
        momentum: float = 0.9,
        weight_decay: float = 3e-5,
        iterations: int = 256,
        sigma: float = 4.0,
        seed: int = 0,
        training_precision: str = "auto",
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(representation, adaptation=adaptation, runtime=runtime)
        self.task, self.hidden, self.head_layers, self.frozen = task, hidden, head_layers, frozen
        self.jitter, self.covariance, self.localise = jitter, covariance, localise
        self.crop, self.stride = crop, stride
        self.learning_rate, self.momentum, self.weight_decay = learning_rate, momentum, weight_decay
        self.iterations, self.sigma, self.seed = iterations, sigma, seed
        self.training_precision = training_precision
        self._check_parameters()
        self._check_training()

    def _check_parameters(self) -> None:
        for name, known in (("task", TASKS), ("covariance", COVARIANCES), ("localise", LOCALISE)):
            if getattr(self, name) not in known:
                raise UnknownName(name, str(getattr(self, name)), known)
        checks.whole_numbers(hidden=self.hidden, head_layers=self.head_layers, stride=self.stride)
        checks.whole_numbers(least=0, frozen=self.frozen)
        checks.whole_numbers(least=8, none=True, crop=self.crop)
        checks.numbers(least=0.0, above=True, learning_rate=self.learning_rate)
        checks.numbers(least=0.0, weight_decay=self.weight_decay, sigma=self.sigma)
        checks.numbers(least=0.0, most=0.5, jitter=self.jitter)
        checks.numbers(least=0.0, most=0.999, momentum=self.momentum)
        if self.crop is None:
            checks.without_effect("on whole images (crop=None)", stride=(self.stride, 4))
            return
        checks.without_effect("with crop", localise=(self.localise, "share"), sigma=(self.sigma, 4.0))
        if self.stride > self.crop or self.crop > min(self.image_size):
            raise UsageError(
                f"Windows must cover the image: stride ({self.stride}) is at most crop ({self.crop}), and "
                f"crop at most the image's side ({min(self.image_size)})."
            )

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """64 pixels, 6 steps."""
        return cls(
            representation,
            hidden=16,
            frozen=2,
            learning_rate=0.003,
            iterations=6,
            sigma=2.0,
            training_precision="fp32",
            adaptation=adaptation,
            runtime=Runtime(image_size=64, precision="fp32", batch_size=4),
        )

    def head(self) -> Head:
        """The layers, and one output a class."""
        return Head(
            sum(self.representation_.channels), self.hidden, self.head_layers, 1 + len(TASKS[self.task])
        )

    def objective(self, network: nn.Module) -> CutPasteObjective:
        """Cross-entropy of good, and of each kind of paste."""
        return CutPasteObjective(
            network,
            TASKS[self.task],
            crop=self.crop,
            jitter=self.jitter,
            frozen=self.frozen,
            sgd=(self.learning_rate, self.momentum, self.weight_decay),
            seed=self.seed,
        )

    def scorer(self) -> nn.Module:
        """The density, and the map that `localise` names."""
        plain = DensityScorer(self.mean_, self.whitening_, sigma=self.sigma, centres=self.centres)
        if self.crop is not None:
            return WindowScorer(self._image_encoder(), plain, self.crop, self.stride)
        return plain if self.localise == "share" else CutPasteScorer(plain, self.network_.head)

    def _image_encoder(self) -> ImageEncoder:
        return ImageEncoder(self.network_.encoder, self._precision.dtype, self._device)

    def _scoring_representation(self) -> Representation:
        """The trained encoder, or, where windows are cut, the image itself."""
        return self.network_.encoder if self.crop is None else Pixels()

    def _check_samples(self, samples: SampleStore) -> None:
        if self.crop is not None and self.crop > min(samples.size):
            raise UsageError(f"Windows of {self.crop} pixels are larger than images of {samples.size}.")
        if self.crop is not None and self.crop < max(self.representation_.strides):
            raise UsageError(
                f"Windows of {self.crop} pixels are smaller than one cell of the coarsest level, "
                f"{max(self.representation_.strides)} pixels: a larger crop, or finer levels."
            )

    def _complete(self, samples: SampleStore) -> None:
        rows = self._pooled_features(samples) if self.crop is None else self._window_features(samples)
        self.mean_, self.whitening_ = unit_density(rows, self.covariance)

    @torch.no_grad()
    def _window_features(self, samples: SampleStore) -> Tensor:
        """(windows, D) float64: pooled features of windows of all images, a quarter of a side apart."""
        assert self.crop is not None
        encoder = self._image_encoder()
        apart, rows = max(self.stride, self.crop // 4), []
        for batch in samples.batches(1):
            cut, _ = windows(batch.require_images(), self.crop, apart)
            parts = cut.split(self.batch_size)
            rows += [pool(encoder(part.to(self._device)))[0].double().cpu() for part in parts]
        return torch.cat(rows)

    def _state(self) -> dict[str, Tensor]:
        return {**super()._state(), "mean": self.mean_, "whitening": self.whitening_}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        super()._restore(tensors)
        D = sum(self.representation_.channels)
        self.mean_, self.whitening_ = opened_density("CutPaste", tensors, D)
