"""ReContrast: two encoders, one frozen and one that adapts to the product, rebuild each other's features
through one decoder.

Card. Paper: Guo, Lu, Jia, Zhang and Li, "ReContrast: Domain-Specific Anomaly Detection via Contrastive
Reconstruction", NeurIPS 2023. Official code: guojiajeremy/ReContrast (MIT). The ladder of table 6 by keywords
(ABLATIONS): Config C trains the encoder jointly, D adds stop_gradient (Eq. 4), C+cp contrastive_pairs, E
both, E-gl is E with the regional loss (Eq. 2), full is E with hard_mining (Eq. 5). AdamW, 2e-3 for new and
1e-5 for pretrained weights, betas 0.9 and 0.999, weight decay 1e-5; 2,000 iterations on MVTec and ISIC, 3,000
on VisA, 1,000 on APTOS and OCT; batches of 16 (32 medical). Batch norm of the trained encoder: the paper
takes "train", but "eval" for nine products chosen on their test sets (appendix C, footnote 3); the default
here is "stable", appendix E's remedy: a floor under the batch variance and an optimiser that forgets its
moments every reset_every = 500 steps; the released stable script also pauses the encoder for 100 steps after
a reset (pause), which the paper does not say. Differences: batches run over the end of a pass; no unused
convolution; networks that are no ResNets get a decoder of basic blocks."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from kizu import checks
from kizu.adaptation.base import Adaptation
from kizu.detectors._objective import BATCH_NORMS, ReconstructionObjective, Rules
from kizu.detectors.reconstruction import Networks, Pairs, ReconstructionDetector
from kizu.detectors.runtime import Runtime
from kizu.errors import NotFitted, UnknownName, UsageError
from kizu.nn.batch_norm import unstabilise
from kizu.nn.rebuilder import Rebuilder
from kizu.representations.base import Representation
from kizu.representations.stacked import Stacked
from kizu.representations.trainable import trainable_copy
from kizu.types import FeatureMaps

ABLATIONS: dict[str, dict[str, Any]] = {
    "C": {"contrastive_pairs": False, "stop_gradient": False, "hard_mining": False},
    "D": {"contrastive_pairs": False, "stop_gradient": True, "hard_mining": False},
    "C+cp": {"contrastive_pairs": True, "stop_gradient": False, "hard_mining": False},
    "E-gl": {"contrastive_pairs": True, "stop_gradient": True, "hard_mining": False, "loss": "regional"},
    "E": {"contrastive_pairs": True, "stop_gradient": True, "hard_mining": False},
    "full": {"contrastive_pairs": True, "stop_gradient": True, "hard_mining": True},
}
"""Parameters of table 6's rows; A, B and B+hm are reverse_distillation's."""
MAPS = ("all", "trained", "frozen")


class ReContrast(ReconstructionDetector):
    """Cosine distances between two encoders' features and their reconstruction from one another.

    contrastive_pairs, stop_gradient, loss ("global", "regional"), hard_mining: the ladder, see ABLATIONS.
    alpha: where mining ends, reached after the share `ramp` of the iterations. batch_norm: of the trained
    encoder, "stable", "train" or "eval". reset_every, pause: steps, with "stable" only. iterations: steps of
    batch_size images. learning_rate, encoder_learning_rate: per step. decoder: block counts as the released
    "code" has them, or "mirrored". embedding_width: channels of the one-class embedding, None takes twice the
    last level's. map_pairs: anomaly map from "all" six pairs, or from those whose target is the "trained" or
    the "frozen" encoder (table A6). score_rule: "max", "mean" or "top" (mean of the highest 1 %) of the map.
    sigma: smoothing in pixels. training_precision: "auto", "fp32" or "bf16". Learned: net_, encoder_."""

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        contrastive_pairs: bool = True,
        stop_gradient: bool = True,
        loss: str = "global",
        hard_mining: bool = True,
        alpha: float = 1.0,
        ramp: float = 0.1,
        batch_norm: str = "stable",
        reset_every: int = 500,
        pause: int = 0,
        iterations: int = 2000,
        learning_rate: float = 2e-3,
        encoder_learning_rate: float = 1e-5,
        weight_decay: float = 1e-5,
        decoder: str = "code",
        embedding_width: int | None = None,
        map_pairs: str = "all",
        score_rule: str = "max",
        sigma: float = 4.0,
        seed: int = 0,
        training_precision: str = "auto",
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(representation, adaptation=adaptation, runtime=runtime)
        self.contrastive_pairs, self.stop_gradient, self.loss, self.hard_mining = (
            contrastive_pairs,
            stop_gradient,
            loss,
            hard_mining,
        )
        self.alpha, self.ramp, self.batch_norm, self.reset_every, self.pause = (
            alpha,
            ramp,
            batch_norm,
            reset_every,
            pause,
        )
        self.iterations, self.learning_rate, self.encoder_learning_rate = (
            iterations,
            learning_rate,
            encoder_learning_rate,
        )
        self.weight_decay, self.decoder, self.map_pairs, self.score_rule, self.sigma = (
            weight_decay,
            decoder,
            map_pairs,
            score_rule,
            sigma,
        )
        self.seed, self.training_precision, self.contrastive = seed, training_precision, contrastive_pairs
        self.embedding_width = embedding_width
        self._check()

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """64-pixel parameters."""
        return cls(
            representation,
            loss="regional",
            iterations=20,
            learning_rate=5e-3,
            ramp=1.0,
            embedding_width=64,
            score_rule="mean",
            sigma=2.0,
            training_precision="fp32",
            adaptation=adaptation,
            runtime=Runtime(image_size=64, precision="fp32", batch_size=4),
        )

    def adapted_representation(self) -> Representation:
        """The trained encoder, a copy: a representation like any other, for save_representation and for every
        detector.

        Its card names this method and the number of images. Raises NotFitted.
        """
        if not self.fitted_:
            raise NotFitted(
                "There is an adapted representation once the detector is fitted: call .fit(good images) "
                "first."
            )
        made = trainable_copy(self.encoder_).eval().requires_grad_(False)
        base = self.representation.card
        name = str(base["name"]).partition("@")[0]
        made.card = {
            **base,
            "name": f"{name}+recontrast",
            "source": "file",
            "seed": None,
            "stages": "all",
            "adapted_by": "recontrast",
            "adapted_from": base["name"],
            "adapted_on": self.images_seen_,
            "images_seen": list(self.seen_["fitted"]),
        }
        return made

    # -- learning --------------------------------------------------------------------------------------------

    def network(self) -> Networks:
        """Bottleneck, decoder and projections; and the encoder that learns, a copy of the representation."""
        return Networks(self._new_rebuilder(), trainable_copy(self.representation_))

    def objective(self, network: nn.Module) -> ReconstructionObjective:
        """Both encoders, or the trained one alone without contrastive_pairs."""
        assert isinstance(network, Networks)
        frozen = self.representation_.inference_copy(self._precision.precision, self.device)
        return ReconstructionObjective(
            network.rebuilder,
            self._rules(),
            functools.partial(
                torch.optim.AdamW, betas=(0.9, 0.999), weight_decay=self.weight_decay, fused=True
            ),
            (self.learning_rate, self.encoder_learning_rate),
            frozen=frozen if self.contrastive_pairs else None,
            encoder=network.encoder,
            batch_norm=self.batch_norm,
        )

    @property
    def encoder_(self) -> Representation:
        """The trained encoder."""
        encoder = self.network_.encoder
        assert encoder is not None  # network() gives one
        return encoder

    def _check(self) -> None:
        checks.switches(contrastive_pairs=self.contrastive_pairs, hard_mining=self.hard_mining)
        self._check_shared()
        self._rules()
        for name, value, known in (
            ("batch_norm", self.batch_norm, BATCH_NORMS),
            ("map_pairs", self.map_pairs, MAPS),
        ):
            if value not in known:
                raise UnknownName(name, value, known)
        checks.numbers(least=0.0, above=True, learning_rate=self.learning_rate)
        checks.numbers(
            least=0.0, encoder_learning_rate=self.encoder_learning_rate, weight_decay=self.weight_decay
        )
        if self.map_pairs == "frozen" and not self.contrastive_pairs:
            raise UsageError(
                "Without contrastive_pairs there is no map from the frozen encoder: take map_pairs='all'."
            )
        if not self.hard_mining:
            checks.without_effect("without hard_mining", alpha=(self.alpha, 1.0), ramp=(self.ramp, 0.1))
        if self.batch_norm != "stable":
            checks.without_effect(
                "with another batch_norm than 'stable'",
                reset_every=(self.reset_every, 500),
                pause=(self.pause, 0),
            )

    def _rules(self) -> Rules:
        stable = self.batch_norm == "stable"
        return Rules(
            self.iterations,
            scope=self.loss,
            stop_gradient=self.stop_gradient,
            alpha=self.alpha if self.hard_mining else None,
            ramp=self.ramp,
            reset_every=self.reset_every if stable else 0,
            pause=self.pause if stable else 0,
        )

    def _set_network(self, network: nn.Module, steps: int) -> None:
        assert isinstance(network, Networks)
        unstabilise(network)
        super()._set_network(network, steps)

    # -- scoring ---------------------------------------------------------------------------------------------

    def _scoring_representation(self) -> Representation:
        """Levels of the trained encoder, then those of the frozen one when it takes part."""
        return Stacked([self.encoder_, self.representation_]) if self.contrastive_pairs else self.encoder_

    def _rebuilding(self, rebuilder: Rebuilder) -> nn.Module:
        return _Crossed(rebuilder, self.map_pairs) if self.contrastive_pairs else _Alone(rebuilder)


class _Crossed(nn.Module):
    """Features of the trained encoder and then of the frozen one, each rebuilt from the other's."""

    def __init__(self, rebuilder: Rebuilder, map_pairs: str) -> None:
        super().__init__()
        self.rebuilder, self.map_pairs = rebuilder, map_pairs

    def forward(self, features: FeatureMaps, targets: FeatureMaps) -> Pairs:
        half = len(features) // 2
        like_frozen, like_trained = self.rebuilder.cross_reconstruct(features[:half], features[half:])
        chosen = {"trained": [(like_trained, targets[:half])], "frozen": [(like_frozen, targets[half:])]}
        return chosen.get(self.map_pairs) or chosen["trained"] + chosen["frozen"]


class _Alone(nn.Module):
    """Features of the trained encoder, rebuilt."""

    def __init__(self, rebuilder: Rebuilder) -> None:
        super().__init__()
        self.rebuilder = rebuilder

    def forward(self, features: FeatureMaps, targets: FeatureMaps) -> Pairs:
        return [(self.rebuilder(features), targets)]
