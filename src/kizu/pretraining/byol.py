"""BYOL: predict the embedding that a slowly moving twin gives of another view.

Card. Paper: Grill et al., Bootstrap Your Own Latent, NeurIPS 2020. Code: deepmind-research (Apache-2.0);
nothing of it is used. Heads and LARS: lightly (MIT): projector and predictor width-4096-256. Constants: LARS
0.2 x batch / 256, weight decay 1.5e-6 not on biases and norms, cosine after a warm-up over the first
hundredth of the run (10 of 1000 epochs), momentum 0.996 rising to 1 by a cosine, batch 4096. Its views are
asymmetric in the paper (blur always on one, solarise on the other); here both are SimCLR's. Not in SPD's
paper, where it stands beside the four for the few-shot fine-tuning that builds on it. With spd=True: SPD, see
docs/methods."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from kizu.losses.negative_cosine import negative_cosine
from kizu.pretraining.base import Difference, Pretraining, follow
from kizu.training import cosine

WARMUP = 0.01


class BYOL(Pretraining):
    """Symmetrised negative cosine between prediction and the twin's projection (Eq. 2).

    momentum: of the twin at the start, rising to 1. learning_rate: for a batch of 256, scaled with it.
    """

    recipe = "simclr"

    def __init__(
        self,
        *,
        backbone: str = "resnet50",
        stages: int = 4,
        size: int = 224,
        batch_size: int = 4096,
        seed: int = 0,
        spd: bool = False,
        eta: float = 0.1,
        perturbation: str = "smooth_blend",
        spd_loss: str = "cosine",
        spd_anchor: str = "view",
        spd_share: float = 1.0,
        spd_forward: str = "joint",
        hidden: int = 4096,
        dimensions: int = 256,
        momentum: float = 0.996,
        learning_rate: float = 0.2,
        weight_decay: float = 1.5e-6,
    ) -> None:
        self.hidden, self.dimensions, self.momentum = hidden, dimensions, momentum
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        difference = (
            Difference(eta, perturbation, spd_loss, spd_anchor, spd_share, spd_forward) if spd else None
        )
        super().__init__(
            backbone=backbone, stages=stages, size=size, batch_size=batch_size, seed=seed, spd=difference
        )

    def build(self) -> None:
        """Projector, predictor and the moving twin."""
        from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead

        self.projector = BYOLProjectionHead(self.width, self.hidden, self.dimensions)
        self.predictor = BYOLPredictionHead(self.dimensions, self.hidden, self.dimensions)
        self.twin_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.twin_projector = copy.deepcopy(self.projector).requires_grad_(False)

    def encoder_replaced(self) -> None:
        """The moving copy begins where the encoder does."""
        self.twin_encoder.load_state_dict(self.encoder.state_dict())

    def embed(self, feature: Tensor) -> Tensor:
        """The projector's output (B, dimensions)."""
        return self.projector(feature)

    def method(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Eq. 2, symmetrised; 2 less than the paper's by the constant."""
        z1, z2 = self.embed(self.encoder(batch["view1"])), self.embed(self.encoder(batch["view2"]))
        with torch.no_grad():
            t1, t2 = (self.twin_projector(self.twin_encoder(batch[name])) for name in ("view1", "view2"))
        return {"loss": negative_cosine(self.predictor(z1), t2) + negative_cosine(self.predictor(z2), t1)}, z1

    def after_step(self, step: int, steps: int) -> None:
        """Move the twin; its momentum rises to 1 by half a cosine."""
        share = 0.5 * (1.0 - self.momentum) * (1.0 + math.cos(math.pi * step / max(steps, 1)))
        follow(self.twin_encoder, self.encoder, share)
        follow(self.twin_projector, self.projector, share)

    def optimiser(self) -> torch.optim.Optimizer:
        """LARS; biases and norms without weight decay."""
        from lightly.utils.lars import LARS

        groups = self.groups(self.weight_decay, plain=False)
        return LARS(groups, lr=self.learning_rate * self.batch_size / 256, momentum=0.9)

    def factor(self, step: int, steps: int) -> float:
        """Linear warm-up, then half a cosine."""
        return cosine(step, steps, warmup=int(WARMUP * steps))
