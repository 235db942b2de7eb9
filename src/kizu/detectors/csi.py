"""CSI: contrastive learning in which an image turned by 90 degrees counts as another image; good images then
have long projections near those of the good images that were learned from.

Card. Paper: Tack, Mo, Jeong and Shin, "CSI: Novelty Detection via Contrastive Learning on Distributionally
Shifted Instances", NeurIPS 2020. Official code: alinlab/CSI (no licence file); nothing of it is used. Source
of the constants (code and paper, section 3 and appendix A): four turns as shifting transformations, NT-Xent
at temperature 0.5 over two views of each image in each turn plus the cross-entropy of the turn, projection to
128, LARS with momentum 0.9 and weight decay 1e-6, its rate rising to 1.0 (ten times the code's 0.1) in the
first 10 of 1,000 epochs, then half a cosine; views "csi" of views.strong; 10 copies with crops of 0.54 of the
area when scoring. The paper trains a ResNet-18 for 32-pixel images from nothing ("small/resnet18").

Where paper and code differ: the paper weighs the norm term by the mean of max <z, z_m> over good images, the
code by the mean length of z; here as in the code. Differences: LARS is lightly's, for all parameters alike,
as the code's; in scoring all images get the same draws, so that an image's score does not depend on its
batch; the view is drawn after the turn, flip included, where the code flips before it; no batch norms across
GPUs. A batch of few-shot learning has the same image several times, and its copies would be negatives of each
other: `duplicates="mask"` takes them out ("negatives" is the released code; without duplicates both are the
same). The paper gives no map: ours applies both heads to the feature
of each position, scores it as an image, turns the four maps back and averages them. A position alone knows
less than the whole image, so a map compares places of one image."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from kizu import checks, store
from kizu.adaptation.base import Adaptation
from kizu.detectors._csi_parts import DUPLICATES, TURNS, CSIHead, CSIObjective, CSIScorer
from kizu.detectors._image_encoder import ImageEncoder
from kizu.detectors.encoder import EncoderDetector
from kizu.detectors.runtime import Runtime
from kizu.errors import UnknownName
from kizu.nn.transformations import require_square
from kizu.representations.base import Representation
from kizu.representations.pixels import Pixels
from kizu.training import SampleStore

FLOOR = 0.1
"""Least mean logit whose inverse weighs the turns. That of a network that does not know the turns of good
images is about 0, or below."""


class CSI(EncoderDetector):
    """Score: minus the mean over turns of the largest inner product with the good images' directions and the
    logit of the turn, each divided by its mean over good images.

    dimensions: of the projection. temperature: of NT-Xent. duplicates: whether copies of one image in a batch
    are left out ("mask") or "negatives". copies: augmented looks at an image when scoring; 0: the image as it
    is. learning_rate: peak, per step, of LARS. sigma: smoothing of the map in pixels. Learned: network_,
    bank_ (4, n, dimensions) of unit length, weights_ (2, 4). Images must be square."""

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        dimensions: int = 128,
        temperature: float = 0.5,
        duplicates: str = "mask",
        copies: int = 10,
        learning_rate: float = 1.0,
        weight_decay: float = 1e-6,
        iterations: int = 1000,
        sigma: float = 4.0,
        seed: int = 0,
        training_precision: str = "auto",
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(representation, adaptation=adaptation, runtime=runtime)
        if duplicates not in DUPLICATES:
            raise UnknownName("duplicates", str(duplicates), DUPLICATES)
        checks.whole_numbers(dimensions=dimensions)
        checks.whole_numbers(least=0, copies=copies)
        checks.numbers(least=0.0, above=True, temperature=temperature, learning_rate=learning_rate)
        checks.numbers(least=0.0, above=True, weight_decay=weight_decay)  # at 0 LARS is plain SGD
        checks.numbers(least=0.0, sigma=sigma)
        self.dimensions, self.temperature, self.duplicates = dimensions, temperature, duplicates
        self.copies, self.learning_rate, self.weight_decay = copies, learning_rate, weight_decay
        self.iterations, self.sigma, self.seed = iterations, sigma, seed
        self.training_precision = training_precision
        self._check_training()

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """64 pixels, 4 steps, 1 copy."""
        return cls(
            representation,
            dimensions=16,
            copies=1,
            iterations=4,
            sigma=2.0,
            training_precision="fp32",
            adaptation=adaptation,
            runtime=Runtime(image_size=64, precision="fp32", batch_size=2),
        )

    def head(self) -> CSIHead:
        """Projection, and classifier of the turn."""
        return CSIHead(sum(self.representation_.channels), self.dimensions)

    def objective(self, network: nn.Module) -> CSIObjective:
        """NT-Xent over all views, and cross-entropy of the turn."""
        return CSIObjective(
            network,
            temperature=self.temperature,
            mask_duplicates=self.duplicates == "mask",
            rate=self.learning_rate,
            weight_decay=self.weight_decay,
            seed=self.seed,
        )

    def scorer(self) -> CSIScorer:
        """The encoder, its heads and the bank."""
        return self._scorer_of(self.bank_, self.weights_)

    def _scorer_of(self, bank: Tensor, weights: Tensor) -> CSIScorer:
        return CSIScorer(
            ImageEncoder(self.network_.encoder, self._precision.dtype, self._device),
            copy.deepcopy(self.network_.head),
            bank,
            weights,
            copies=self.copies,
            seed=self.seed,
            sigma=self.sigma,
            centres=self.centres,
        )

    def _scoring_representation(self) -> Representation:
        """The image itself, which the scorer turns and looks at several times."""
        return Pixels()

    def _check_samples(self, samples: SampleStore) -> None:
        require_square(samples.size)

    @torch.no_grad()
    def _complete(self, samples: SampleStore) -> None:
        empty = torch.zeros(TURNS, 1, self.dimensions), torch.zeros(2, TURNS)
        looker = self._scorer_of(*empty).to(self._device)
        seen = [looker.look(b.require_images().to(self._device)) for b in samples.batches(self.batch_size)]
        projected, logits = (torch.cat(parts, dim=1).double().cpu() for parts in zip(*seen, strict=True))
        lengths = projected.norm(dim=2)  # (4, n)
        right = torch.stack([logits[turn, :, turn] for turn in range(TURNS)])  # (4, n)
        self.bank_ = (projected / lengths.clamp_min(1e-12)[:, :, None]).float()
        means = torch.stack([lengths.mean(1).clamp_min(1e-12), right.mean(1).clamp_min(FLOOR)])
        self.weights_ = means.reciprocal().float()

    def _state(self) -> dict[str, Tensor]:
        return {**super()._state(), "bank": self.bank_, "weights": self.weights_}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        super()._restore(tensors)
        shapes = {"bank": f"{TURNS} n {self.dimensions}", "weights": f"2 {TURNS}"}
        if not store.expect("CSI", tensors, shapes)["n"]:
            raise ValueError("a bank of no image")
        self.bank_, self.weights_ = tensors["bank"].float(), tensors["weights"].float()
