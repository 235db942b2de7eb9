"""SimSiam: two views of an image predict each other's embedding; no negatives, queue or momentum encoder.

Card. Paper: Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021. Code:
facebookresearch/simsiam (CC BY-NC); nothing of it is used. Heads: lightly (MIT): projector 3 x 2048 with
batch norm, the last one without affine parameters; predictor 2048-512-2048. Constants: SGD, learning rate
0.05 x batch / 256, momentum 0.9, weight decay 1e-4, cosine to 0 without warm-up, predictor at a constant
rate (--fix-pred-lr of the printed recipe), batch 512, views of MoCo v2. With SPD: see
docs/methods/pretraining.md."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kizu.checks import switches, whole_numbers
from kizu.losses.negative_cosine import negative_cosine
from kizu.pretraining.base import Pretraining
from kizu.training import cosine_schedule


@dataclass(kw_only=True, eq=False, repr=False)
class SimSiam(Pretraining):
    """Mean of the two negative cosines (Eq. 1-2).

    It logs `spread`, the deviation of unit embeddings times sqrt(D): near 1, or 0 when they have collapsed.

    hidden, predictor_hidden: widths of the heads. fix_predictor: the predictor's rate does not follow the
    cosine. The other parameters: see `kizu.pretraining.base.Pretraining`."""

    batch_size: int = 512
    hidden: int = 2048
    predictor_hidden: int = 512
    fix_predictor: bool = True

    def check_parameters(self) -> None:
        """Raise UsageError for a value out of range."""
        super().check_parameters()
        whole_numbers(hidden=self.hidden, predictor_hidden=self.predictor_hidden)
        switches(fix_predictor=self.fix_predictor)

    def build(self) -> None:
        """Create projector and predictor."""
        from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead

        self.projector = SimSiamProjectionHead(self.width, self.hidden, self.hidden)
        self.predictor = SimSiamPredictionHead(self.hidden, self.predictor_hidden, self.hidden)

    def project(self, feature: Tensor) -> Tensor:
        """The projector's output (B, hidden)."""
        return self.projector(feature)

    def ssl_loss(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Eq. 2, symmetrised."""
        z1, z2 = self.project(self.encoder(batch["view1"])), self.project(self.encoder(batch["view2"]))
        p1, p2 = self.predictor(z1), self.predictor(z2)
        loss = (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2
        with torch.no_grad():
            spread = torch.nn.functional.normalize(z1.float(), dim=1).std(0).mean() * z1.shape[1] ** 0.5
        return {"loss": loss, "spread": spread}, z1

    def optimiser(self) -> torch.optim.Optimizer:
        """SGD; the predictor is the second group."""
        predictor = list(self.predictor.parameters())
        predictor_ids = {id(parameter) for parameter in predictor}
        others = [parameter for parameter in self.parameters() if id(parameter) not in predictor_ids]
        groups = [{"params": others}, {"params": predictor}]
        return torch.optim.SGD(groups, lr=self.scaled_rate, momentum=0.9, weight_decay=self.weight_decay)

    def lr_scale(self, step: int, steps: int) -> list[float]:
        """Half a cosine to 0; a fixed predictor keeps 1."""
        scale = cosine_schedule(step, steps)
        return [scale, 1.0 if self.fix_predictor else scale]
