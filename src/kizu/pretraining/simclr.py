"""SimCLR: each view must find the other view of its image among all views of the batch.

Card. Paper: Chen, Kornblith, Norouzi and Hinton, A Simple Framework for Contrastive Learning of Visual
Representations, ICML 2020. Code: google-research/simclr (Apache-2.0); nothing of it is used. Head and LARS:
lightly (MIT). Constants: projector width-2048-128 (the paper's two layers; the repository's default of three
is head_layers=3), NT-Xent at temperature 0.1, LARS with learning rate 0.3 x batch / 256, weight decay 1e-6
(the paper's; the repository's command says 1e-4) not on biases and norms, cosine after a linear warm-up over
the first tenth of the run (10 of 100 epochs), batch 4096. Negatives come from all processes. With spd=True:
SPD, see docs/methods."""

from __future__ import annotations

import torch
from torch import Tensor

from kizu.losses.nt_xent import nt_xent
from kizu.pretraining.base import Difference, Pretraining
from kizu.training import cosine, gather

WARMUP = 0.1
OPTIMISERS = ("lars", "sgd")


class SimCLR(Pretraining):
    """NT-Xent over the views of the whole batch.

    learning_rate: for a batch of 256, scaled with it. optimiser_name: "lars", or "sgd" for small batches.
    head_layers: 2 or 3."""

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
        hidden: int = 2048,
        dimensions: int = 128,
        head_layers: int = 2,
        temperature: float = 0.1,
        learning_rate: float = 0.3,
        weight_decay: float = 1e-6,
        optimiser_name: str = "lars",
    ) -> None:
        from kizu.errors import UnknownName

        if optimiser_name not in OPTIMISERS:
            raise UnknownName("optimiser", optimiser_name, OPTIMISERS)
        self.hidden, self.dimensions, self.head_layers, self.temperature = (
            hidden,
            dimensions,
            head_layers,
            temperature,
        )
        self.learning_rate, self.weight_decay, self.optimiser_name = (
            learning_rate,
            weight_decay,
            optimiser_name,
        )
        difference = (
            Difference(eta, perturbation, spd_loss, spd_anchor, spd_share, spd_forward) if spd else None
        )
        super().__init__(
            backbone=backbone, stages=stages, size=size, batch_size=batch_size, seed=seed, spd=difference
        )

    def build(self) -> None:
        """Projector."""
        from lightly.models.modules.heads import SimCLRProjectionHead

        self.projector = SimCLRProjectionHead(
            self.width, self.hidden, self.dimensions, num_layers=self.head_layers
        )

    def embed(self, feature: Tensor) -> Tensor:
        """The projector's output (B, dimensions)."""
        return self.projector(feature)

    def method(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Eq. 1 over the views of all processes."""
        z1, z2 = self.embed(self.encoder(batch["view1"])), self.embed(self.encoder(batch["view2"]))
        return {"loss": nt_xent(gather(z1), gather(z2), temperature=self.temperature)}, z1

    def optimiser(self) -> torch.optim.Optimizer:
        """LARS (or SGD); biases and norms without weight decay."""
        rate, groups = self.learning_rate * self.batch_size / 256, self.groups(self.weight_decay, plain=False)
        if self.optimiser_name == "sgd":
            return torch.optim.SGD(groups, lr=rate, momentum=0.9)
        from lightly.utils.lars import LARS

        return LARS(groups, lr=rate, momentum=0.9)

    def factor(self, step: int, steps: int) -> float:
        """Linear warm-up over the first tenth, then half a cosine."""
        return cosine(step, steps, warmup=int(WARMUP * steps))
