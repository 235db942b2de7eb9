"""PANDA: the network's features are drawn together around their mean, slightly, so that they do not collapse.

Card. Paper: Reiss, Cohen, Bergman and Hoshen, "PANDA: Adapting Pretrained Features for Anomaly Detection
and Segmentation", CVPR 2021. Official code: talreiss/PANDA (licence of the repository: software research
licence); nothing of it is used. Constants (code): SGD 1e-2, momentum 0.9, weight decay 5e-5, gradient norm
clipped at 1e-3, which is what makes that rate harmless; batches of 32; the stem and the first two stages
frozen; batch norms in evaluation mode throughout; 15 passes over the images (early stopping) or elastic
weight consolidation with lambda 1e4. Scores in the paper: distances to the two nearest training features.

Differences: the code takes the Fisher information of ImageNet's classifier on ImageNet, from a file. There
is neither here: it is that of the features themselves under unit noise, E (d <v, z> / d theta)^2 over good
images and random directions v. Early stopping is the code's fixed number of passes; the paper's per-sample
stopping compares a test image under several snapshots, and is no representation. Its code prints the AUROC
on the test set each pass; here the last step counts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kizu import checks
from kizu.adaptation._training import EncoderObjective, check_training, pooled_features, run, seed_from
from kizu.errors import UnknownName
from kizu.representations.base import Representation
from kizu.representations.trainable import freeze_up_to, require_network, trainable_copy
from kizu.training import FitOptions, Position, SampleStore

TRAINS = True
REGULARISERS = ("early_stopping", "ewc")
CLIP = 1e-3
"""Largest norm of the gradient."""
DIRECTIONS = 64
"""Random directions from which the Fisher information is estimated."""


def check_parameters(
    *,
    regulariser: str,
    elasticity: float,
    frozen_level: int,
    passes: int,
    batch_size: int,
    learning_rate: float,
    training_precision: str,
) -> None:
    """Raise UsageError, UnknownName for values out of range or without effect."""
    if regulariser not in REGULARISERS:
        raise UnknownName("regulariser", str(regulariser), REGULARISERS)
    checks.numbers(least=0.0, above=True, elasticity=elasticity)
    checks.whole_numbers(least=0, frozen_level=frozen_level)
    if regulariser == "early_stopping":
        checks.without_effect("with early stopping alone", elasticity=(elasticity, 1e4))
    check_training(
        iterations=passes,
        batch_size=batch_size,
        learning_rate=learning_rate,
        training_precision=training_precision,
    )


def panda(
    base: Representation,
    good: SampleStore,
    *,
    regulariser: str = "early_stopping",
    elasticity: float = 1e4,
    frozen_level: int = 2,
    passes: int = 15,
    batch_size: int = 32,
    learning_rate: float = 1e-2,
    training_precision: str = "auto",
    generator: torch.Generator,
    options: FitOptions,
) -> Representation:
    """The network of `base` with weights whose pooled features lie closer to their old mean.

    regulariser: "early_stopping", so few passes that nothing collapses, or "ewc", elastic weight
    consolidation of strength `elasticity`. frozen_level: layers up to the end of this level keep their
    weights, 0 for none. passes: over the good images, in steps of batch_size (of all images, when they are
    fewer).

    Raises what `check_parameters` raises; UsageError for a representation that is no network, or of which
    nothing is left to learn."""
    settings = {
        "regulariser": regulariser,
        "elasticity": elasticity,
        "frozen_level": frozen_level,
        "passes": passes,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "training_precision": training_precision,
    }
    check_parameters(**settings)  # type: ignore[arg-type]
    require_network(base, "panda")
    seed, encoder = seed_from(generator), trainable_copy(base)
    learning = freeze_up_to(encoder, frozen_level)
    objective = PandaObjective(
        encoder, pooled_features(base, good).mean(0), learning_rate=learning_rate, elasticity=0.0
    )
    if regulariser == "ewc":
        objective.consolidate(fisher_information(encoder, learning, good, seed), elasticity)
    return run(
        objective,
        base,
        good,
        method="panda",
        settings=settings,
        iterations=passes * math.ceil(len(good) / batch_size),
        batch_size=min(batch_size, len(good)),
        training_precision=training_precision,
        seed=seed,
        options=options,
        clip=CLIP,
    )


class PandaObjective(EncoderObjective):
    """mean |z - c|^2, and elasticity / 2 times sum F (theta - theta_0)^2.

    centre: c (D,), the mean of the pooled features before training."""

    centre: Tensor

    def __init__(
        self, encoder: Representation, centre: Tensor, *, learning_rate: float, elasticity: float
    ) -> None:
        super().__init__(encoder, batch_norm="eval")
        self.register_buffer("centre", centre.clone())
        self._rate, self._elasticity = learning_rate, elasticity
        self._anchors: list[tuple[str, Tensor, Tensor]] = []

    def consolidate(self, fisher: dict[str, Tensor], elasticity: float) -> None:
        """From now on hold each parameter to its present value by its Fisher information."""
        known = dict(self.encoder.named_parameters())
        self._elasticity = elasticity
        self._anchors = [(name, known[name].detach().clone(), value) for name, value in fisher.items()]

    def prepare(self, batch: dict[str, Tensor], position: Position) -> Tensor:
        """The images as they are: the code augments nothing."""
        return batch["images"]

    def loss(self, batch: Tensor) -> dict[str, Tensor]:
        """ "compactness" is the first term."""
        compact = (self.embed(batch) - self.centre).square().sum(1).mean()
        if not self._anchors:
            return {"loss": compact, "compactness": compact.detach()}
        known = dict(self.encoder.named_parameters())
        moved = [
            (value.to(known[name]) * (known[name] - start.to(known[name])).square()).sum()
            for name, start, value in self._anchors
        ]
        total = compact + self._elasticity / 2 * torch.stack(moved).sum()
        return {"loss": total, "compactness": compact.detach()}

    def optimiser(self) -> torch.optim.Optimizer:
        """SGD for what still learns."""
        learning = [parameter for parameter in self.encoder.parameters() if parameter.requires_grad]
        return torch.optim.SGD(learning, lr=self._rate, momentum=0.9, weight_decay=5e-5)


def fisher_information(
    encoder: Representation, names: list[str], good: SampleStore, seed: int
) -> dict[str, Tensor]:
    """E (d <v, z> / d theta)^2 of each named parameter, z the pooled feature of a good image, v a standard
    normal direction: the Fisher information of the parameters when z is observed with unit noise."""
    objective: Any = EncoderObjective(encoder, batch_norm="eval")
    objective.train()
    known = dict(encoder.named_parameters())
    learning = [known[name] for name in names]
    total = [torch.zeros_like(parameter) for parameter in learning]
    draws = torch.Generator().manual_seed(seed)
    for number in range(DIRECTIONS):
        z = objective.embed(good.take([number % len(good)]).require_images())
        direction = torch.randn(z.shape, generator=draws)
        for sum_, gradient in zip(total, torch.autograd.grad((z * direction).sum(), learning), strict=True):
            sum_ += gradient.square() / DIRECTIONS
    return dict(zip(names, total, strict=True))
