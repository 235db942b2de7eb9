"""SimCLR: each view must find the other view of its image among all views of the batch.

Card. Paper: Chen, Kornblith, Norouzi and Hinton, A Simple Framework for Contrastive Learning of Visual
Representations, ICML 2020. Code: google-research/simclr (Apache-2.0); nothing of it is used. Head and LARS:
lightly (MIT). Constants: projector width-2048-128 (the paper's two layers; the repository's default of
three is head_layers=3), NT-Xent at temperature 0.1, LARS with learning rate 0.3 x batch / 256, weight decay
1e-6 (the paper's; the repository's command says 1e-4) except on biases and norms, cosine after a linear
warm-up over the first tenth of the run (10 of 100 epochs), batch 4096. Negatives come from all processes.
With SPD: see docs/methods/pretraining.md."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kizu.checks import numbers, whole_numbers
from kizu.errors import UnknownName
from kizu.losses.nt_xent import nt_xent
from kizu.pretraining.base import Pretraining
from kizu.training import cosine_schedule, gather

WARMUP = 0.1
"""Fraction of the run."""
OPTIMISERS = ("lars", "sgd")


@dataclass(kw_only=True, eq=False, repr=False)
class SimCLR(Pretraining):
    """NT-Xent over the views of the whole batch.

    hidden, dimensions: widths of the projector and of its output. head_layers: 2 or 3. temperature: of
    NT-Xent. optimiser_name: "lars", or "sgd" for small batches. The other parameters: see
    `kizu.pretraining.base.Pretraining`."""

    batch_size: int = 4096
    learning_rate: float = 0.3
    weight_decay: float = 1e-6
    hidden: int = 2048
    dimensions: int = 128
    head_layers: int = 2
    temperature: float = 0.1
    optimiser_name: str = "lars"

    augmentation = "simclr"

    def check_parameters(self) -> None:
        """Raise UsageError, UnknownName for a value out of range."""
        super().check_parameters()
        whole_numbers(hidden=self.hidden, dimensions=self.dimensions)
        whole_numbers(least=2, head_layers=self.head_layers)
        numbers(most=3, head_layers=self.head_layers)
        numbers(least=0, above=True, temperature=self.temperature)
        if self.optimiser_name not in OPTIMISERS:
            raise UnknownName("optimiser", str(self.optimiser_name), OPTIMISERS)

    def build(self) -> None:
        """Create the projector."""
        from lightly.models.modules.heads import SimCLRProjectionHead

        self.projector = SimCLRProjectionHead(
            self.width, self.hidden, self.dimensions, num_layers=self.head_layers
        )

    def project(self, feature: Tensor) -> Tensor:
        """The projector's output (B, dimensions)."""
        return self.projector(feature)

    def ssl_loss(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Eq. 1 over the views of all processes."""
        z1, z2 = self.project(self.encoder(batch["view1"])), self.project(self.encoder(batch["view2"]))
        return {"loss": nt_xent(gather(z1), gather(z2), temperature=self.temperature)}, z1

    def optimiser(self) -> torch.optim.Optimizer:
        """LARS (or SGD); biases and norms without weight decay."""
        groups = self.parameter_groups(decay_all=False)
        if self.optimiser_name == "sgd":
            return torch.optim.SGD(groups, lr=self.scaled_rate, momentum=0.9)
        from lightly.utils.lars import LARS

        return LARS(groups, lr=self.scaled_rate, momentum=0.9)

    def lr_scale(self, step: int, steps: int) -> float:
        """Linear warm-up over the first tenth, then half a cosine."""
        return cosine_schedule(step, steps, warmup=int(WARMUP * steps))
