"""Reverse distillation: a decoder rebuilds a frozen encoder's features from a compact embedding; flaws are
not rebuilt.

Card. Paper: Deng and Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022
(RD4AD); the ladder and its names: Guo et al., "ReContrast", NeurIPS 2023, sections 2.1, 2.2, 2.6 and table 6.
Official code: hq-deng/RD4AD (MIT). Paper and code disagree: the paper prints the distance averaged over
positions (loss="regional", Config A; 95.3 mean I-AUROC on MVTec by ReContrast's count), the code flattens
each level (loss="global", Config B; 98.9), which is the default. hard_mining adds Eq. 5 (Config B+hm). Rates:
recipe "recontrast" is ReContrast's (AdamW 2e-3, betas 0.9 and 0.999, weight decay 1e-5, 2,000 iterations of
16), "rd4ad" the older (Adam 5e-3, betas 0.5 and 0.999, 200 epochs of 16). Differences: no unused convolution
in the bottleneck; batches run over the end of a pass instead of being cut short; representations that are no
ResNets get a decoder of basic blocks."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from kizu import checks
from kizu.adaptation.base import Adaptation
from kizu.detectors._objective import ReconstructionObjective, Rules
from kizu.detectors.reconstruction import Networks, Pairs, ReconstructionDetector
from kizu.detectors.runtime import Runtime
from kizu.errors import UnknownName
from kizu.nn.rebuilder import Rebuilder
from kizu.representations.base import Representation
from kizu.types import FeatureMaps

RECIPES: dict[
    str, tuple[type[torch.optim.AdamW] | type[torch.optim.Adam], float, tuple[float, float], float]
] = {
    "recontrast": (torch.optim.AdamW, 2e-3, (0.9, 0.999), 1e-5),
    "rd4ad": (torch.optim.Adam, 5e-3, (0.5, 0.999), 0.0),
}
ABLATIONS: dict[str, dict[str, Any]] = {
    "A": {"loss": "regional", "hard_mining": False},
    "B": {"loss": "global", "hard_mining": False},
    "B+hm": {"loss": "global", "hard_mining": True},
}
"""Parameters of the rows of ReContrast's table 6 whose encoder is frozen; the others are recontrast's."""


class ReverseDistillation(ReconstructionDetector):
    """Cosine distance between a frozen encoder's features and their reconstruction.

    loss: "global" or "regional". hard_mining: no gradient where the distance is below mean + alpha *
    deviation; alpha rises from -3 in the first tenth. iterations: steps of batch_size images. recipe: see the
    card; learning_rate: per step, None takes the recipe's. decoder: block counts as the released "code" has
    them, or "mirrored". embedding_width: channels of the one-class embedding, None takes twice the last
    level's. score_rule: image score "max", "mean" or "top" (mean of the highest 1 %) of the map. sigma:
    smoothing of the map in pixels. training_precision: "auto", "fp32" or "bf16". Learned: net_."""

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        loss: str = "global",
        hard_mining: bool = False,
        alpha: float = 1.0,
        iterations: int = 2000,
        recipe: str = "recontrast",
        learning_rate: float | None = None,
        decoder: str = "code",
        embedding_width: int | None = None,
        score_rule: str = "max",
        sigma: float = 4.0,
        seed: int = 0,
        training_precision: str = "auto",
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(representation, adaptation=adaptation, runtime=runtime)
        if recipe not in RECIPES:
            raise UnknownName("recipe", recipe, RECIPES)
        self.loss, self.hard_mining, self.alpha, self.iterations = loss, hard_mining, alpha, iterations
        self.recipe, self.learning_rate, self.decoder, self.score_rule, self.sigma = (
            recipe,
            learning_rate,
            decoder,
            score_rule,
            sigma,
        )
        self.seed, self.training_precision = seed, training_precision
        self.embedding_width = embedding_width
        checks.switches(hard_mining=hard_mining)
        self._check_shared()
        self._rules()
        if learning_rate is not None:
            checks.numbers(least=0.0, above=True, learning_rate=learning_rate)
        if not hard_mining:
            checks.without_effect("without hard_mining", alpha=(alpha, 1.0))

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """64-pixel parameters."""
        return cls(
            representation,
            loss="regional",
            iterations=30,
            learning_rate=5e-3,
            embedding_width=64,
            score_rule="mean",
            sigma=2.0,
            training_precision="fp32",
            adaptation=adaptation,
            runtime=Runtime(image_size=64, precision="fp32", batch_size=4),
        )

    def objective(self, network: nn.Module) -> ReconstructionObjective:
        """The rebuilder learns from a frozen encoder."""
        assert isinstance(network, Networks)
        kind, rate, betas, decay = RECIPES[self.recipe]
        rate = rate if self.learning_rate is None else self.learning_rate
        make = functools.partial(kind, betas=betas, weight_decay=decay, fused=True)
        return ReconstructionObjective(
            network.rebuilder, self._rules(), make, (rate, 0.0), frozen=self._warm_up()
        )

    def _rules(self) -> Rules:
        return Rules(self.iterations, scope=self.loss, alpha=self.alpha if self.hard_mining else None)

    def _rebuilding(self, rebuilder: Rebuilder) -> nn.Module:
        return _Rebuilding(rebuilder)


class _Rebuilding(nn.Module):
    """Features -> themselves, rebuilt."""

    def __init__(self, rebuilder: Rebuilder) -> None:
        super().__init__()
        self.rebuilder = rebuilder

    def forward(self, features: FeatureMaps, targets: FeatureMaps) -> Pairs:
        return [(self.rebuilder(features), targets)]
