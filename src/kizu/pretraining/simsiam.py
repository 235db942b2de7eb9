"""SimSiam: two views of an image predict each other's embedding; no negatives, no queue, no momentum
encoder.

Card. Paper: Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021. Code:
facebookresearch/simsiam (CC BY-NC); nothing of it is used. Heads: lightly (MIT): projector 3 x 2048 with
batch norm, the last without affine; predictor 2048-512-2048. Constants: SGD, learning rate 0.05 x batch /
256, momentum 0.9, weight decay 1e-4, cosine to 0 without warm-up, predictor at the constant rate (the printed
recipe's --fix-pred-lr), batch 512, views of MoCo v2. With spd=True: SPD, see pretraining.md in docs/methods.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kizu.losses.negative_cosine import negative_cosine
from kizu.pretraining.base import Difference, Pretraining
from kizu.training import cosine


class SimSiam(Pretraining):
    """Mean of the two negative cosines (Eq. 1-2); logs `spread`, the std of unit embeddings times sqrt(D):
    near 1, or 0 when collapsed.

    hidden, predictor_hidden: widths of the heads. learning_rate: for a batch of 256, scaled with it.
    fix_predictor: its rate stays."""

    recipe = "simsiam"

    def __init__(
        self,
        *,
        backbone: str = "resnet50",
        stages: int = 4,
        size: int = 224,
        batch_size: int = 512,
        seed: int = 0,
        spd: bool = False,
        eta: float = 0.1,
        perturbation: str = "smooth_blend",
        spd_loss: str = "cosine",
        spd_anchor: str = "view",
        spd_share: float = 1.0,
        spd_forward: str = "joint",
        hidden: int = 2048,
        predictor_hidden: int = 512,
        learning_rate: float = 0.05,
        weight_decay: float = 1e-4,
        fix_predictor: bool = True,
    ) -> None:
        self.hidden, self.predictor_hidden = hidden, predictor_hidden
        self.learning_rate, self.weight_decay, self.fix_predictor = learning_rate, weight_decay, fix_predictor
        difference = (
            Difference(eta, perturbation, spd_loss, spd_anchor, spd_share, spd_forward) if spd else None
        )
        super().__init__(
            backbone=backbone, stages=stages, size=size, batch_size=batch_size, seed=seed, spd=difference
        )

    def build(self) -> None:
        """Projector and predictor."""
        from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead

        self.projector = SimSiamProjectionHead(self.width, self.hidden, self.hidden)
        self.predictor = SimSiamPredictionHead(self.hidden, self.predictor_hidden, self.hidden)

    def embed(self, feature: Tensor) -> Tensor:
        """The projector's output (B, hidden)."""
        return self.projector(feature)

    def method(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Eq. 2, symmetrised."""
        z1, z2 = self.embed(self.encoder(batch["view1"])), self.embed(self.encoder(batch["view2"]))
        p1, p2 = self.predictor(z1), self.predictor(z2)
        loss = (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2
        with torch.no_grad():
            spread = torch.nn.functional.normalize(z1.float(), dim=1).std(0).mean() * z1.shape[1] ** 0.5
        return {"loss": loss, "spread": spread}, z1

    def optimiser(self) -> torch.optim.Optimizer:
        """SGD; the predictor is a group of its own, the second."""
        rate = self.learning_rate * self.batch_size / 256
        predictor = list(self.predictor.parameters())
        own = {id(parameter) for parameter in predictor}
        others = [parameter for parameter in self.parameters() if id(parameter) not in own]
        groups = [{"params": others}, {"params": predictor}]
        return torch.optim.SGD(groups, lr=rate, momentum=0.9, weight_decay=self.weight_decay)

    def factor(self, step: int, steps: int) -> list[float]:
        """Half a cosine to 0; the predictor's stays 1 when it is fixed."""
        now = cosine(step, steps)
        return [now, 1.0 if self.fix_predictor else now]
