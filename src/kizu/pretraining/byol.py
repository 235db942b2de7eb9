"""BYOL: predict the embedding that a slowly moving copy of the network gives to another view.

Card. Paper: Grill et al., Bootstrap Your Own Latent, NeurIPS 2020. Code: deepmind-research (Apache-2.0);
nothing of it is used. Heads and LARS: lightly (MIT): projector and predictor width-4096-256. Constants:
LARS 0.2 x batch / 256, weight decay 1.5e-6 except on biases and norms, cosine after a warm-up over the
first hundredth of the run (10 of 1000 epochs), momentum 0.996 rising to 1 by a cosine, batch 4096.

Differences: the paper's views are asymmetric (blur always on one, solarise on the other); here both are
SimCLR's. BYOL is not in SPD's paper; it is here for the few-shot fine-tuning that builds on it. With SPD:
see docs/methods/pretraining.md."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kizu.checks import numbers, whole_numbers
from kizu.losses.negative_cosine import negative_cosine
from kizu.nn.ema import ema_update
from kizu.pretraining.base import Pretraining
from kizu.training import cosine_schedule

WARMUP = 0.01
"""Fraction of the run."""


@dataclass(kw_only=True, eq=False, repr=False)
class BYOL(Pretraining):
    """Symmetrised negative cosine between prediction and the projection of the moving copy (Eq. 2).

    hidden, dimensions: widths of the heads and of their output. momentum: of the moving copy at the start;
    it rises to 1. The other parameters: see `kizu.pretraining.base.Pretraining`."""

    batch_size: int = 4096
    learning_rate: float = 0.2
    weight_decay: float = 1.5e-6
    hidden: int = 4096
    dimensions: int = 256
    momentum: float = 0.996

    augmentation = "simclr"

    def check_parameters(self) -> None:
        """Raise UsageError for a value out of range."""
        super().check_parameters()
        whole_numbers(hidden=self.hidden, dimensions=self.dimensions)
        numbers(least=0, most=1, momentum=self.momentum)

    def build(self) -> None:
        """Create projector, predictor and the moving copy."""
        from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead

        self.projector = BYOLProjectionHead(self.width, self.hidden, self.dimensions)
        self.predictor = BYOLPredictionHead(self.dimensions, self.hidden, self.dimensions)
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.target_projector = copy.deepcopy(self.projector).requires_grad_(False)

    def on_encoder_loaded(self) -> None:
        """The moving copy starts from the same weights."""
        self.target_encoder.load_state_dict(self.encoder.state_dict())

    def project(self, feature: Tensor) -> Tensor:
        """The projector's output (B, dimensions)."""
        return self.projector(feature)

    def ssl_loss(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Eq. 2, symmetrised, without its constant 2."""
        z1, z2 = self.project(self.encoder(batch["view1"])), self.project(self.encoder(batch["view2"]))
        with torch.no_grad():
            t1, t2 = (self.target_projector(self.target_encoder(batch[name])) for name in ("view1", "view2"))
        return {"loss": negative_cosine(self.predictor(z1), t2) + negative_cosine(self.predictor(z2), t1)}, z1

    def after_step(self, step: int, steps: int) -> None:
        """Move the copy; its momentum rises to 1 by half a cosine."""
        rate = 0.5 * (1.0 - self.momentum) * (1.0 + math.cos(math.pi * step / max(steps, 1)))
        ema_update(self.target_encoder, self.encoder, rate)
        ema_update(self.target_projector, self.projector, rate)

    def optimiser(self) -> torch.optim.Optimizer:
        """LARS; biases and norms without weight decay."""
        from lightly.utils.lars import LARS

        return LARS(self.parameter_groups(decay_all=False), lr=self.scaled_rate, momentum=0.9)

    def lr_scale(self, step: int, steps: int) -> float:
        """Linear warm-up, then half a cosine."""
        return cosine_schedule(step, steps, warmup=int(WARMUP * steps))
