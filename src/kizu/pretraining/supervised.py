"""Supervised: learn the classes of labelled images; with SPD, a second classifier separates x+ from x-.

Card. Recipe: torchvision's reference training of ResNets (BSD-3), whose accuracies SPD's paper quotes (69.8
for ResNet-18, 76.1 for ResNet-50): SGD 0.1 x batch / 256, momentum 0.9, weight decay 1e-4, 90 epochs, rate
/ 10 at epochs 30 and 60, random resized crops of 0.08 to 1 of the area and flips. SPD: Zou et al., ECCV
2022, section 3.3: the auxiliary classifier is one linear layer on the pooled feature, trained by
cross-entropy on x+ and x-. Its weight is not in the paper; eta = 0.1 is that of the other objectives.
Classes are learned on the ordinary view only. SPDConfig(loss="cosine") uses SPD's cosine loss on the pooled
features instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from kizu.checks import numbers, whole_numbers
from kizu.errors import UnknownName, UsageError
from kizu.pretraining.base import Pretraining
from kizu.training import cosine_schedule, multistep
from kizu.views.strong import RECIPES

SCHEDULES = ("steps", "cosine")


@dataclass(kw_only=True, eq=False, repr=False)
class Supervised(Pretraining):
    """Cross-entropy over classes; it logs `accuracy`, the fraction of the batch that is right.

    classes: how many there are, at least 2; `kizu.pretraining.pretrain` counts them when it is 0. schedule:
    "steps" (rate / 10 at 1/3 and 2/3 of the run) or "cosine". warmup: fraction of the run, below 1.
    smoothing: of the labels, below 1. views: a recipe of `kizu.views.strong`; "plain" is crop and flip. The
    other parameters: see `kizu.pretraining.base.Pretraining`."""

    learning_rate: float = 0.1
    classes: int = 0
    schedule: str = "steps"
    warmup: float = 0.0
    smoothing: float = 0.0
    views: str = "plain"

    strong_views: ClassVar[int] = 1
    default_spd_loss: ClassVar[str] = "cross_entropy"

    def check_parameters(self) -> None:
        """Raise UsageError, UnknownName for a value out of range."""
        super().check_parameters()
        whole_numbers(least=0, classes=self.classes)
        if self.classes < 2:
            raise UsageError(
                "Supervised training needs images of two classes or more, one folder each (or "
                f"classes=200, say); got {self.classes}."
            )
        if self.schedule not in SCHEDULES:
            raise UnknownName("schedule", str(self.schedule), SCHEDULES)
        numbers(least=0, warmup=self.warmup, smoothing=self.smoothing)
        if max(self.warmup, self.smoothing) >= 1.0:
            raise UsageError(f"warmup and smoothing are below 1, got {self.warmup} and {self.smoothing}.")
        if self.views not in RECIPES:
            raise UnknownName("recipe of strong views", str(self.views), RECIPES)
        self.augmentation = self.views

    def build(self) -> None:
        """Create the classifier."""
        self.classifier = nn.Linear(self.width, self.classes)

    def check_data(self, count: int | None, classes: int) -> None:
        """Raise UsageError unless the images have as many classes as the classifier."""
        super().check_data(count, classes)
        if classes != self.classes:
            raise UsageError(f"The classifier has {self.classes} classes, the images have {classes}.")

    def project(self, feature: Tensor) -> Tensor:
        """The feature itself (B, width): there is no projector."""
        return feature

    def ssl_loss(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Cross-entropy on the ordinary view."""
        feature = self.encoder(batch["view1"])
        logits = self.classifier(feature).float()
        accuracy = (logits.argmax(1) == batch["labels"]).float().mean()
        loss = functional.cross_entropy(logits, batch["labels"], label_smoothing=self.smoothing)
        return {"loss": loss, "accuracy": accuracy}, feature

    def optimiser(self) -> torch.optim.Optimizer:
        """SGD."""
        return torch.optim.SGD(self.parameter_groups(), lr=self.scaled_rate, momentum=0.9)

    def lr_scale(self, step: int, steps: int) -> float:
        """As `schedule` says."""
        warmup = int(self.warmup * steps)
        if self.schedule == "steps":
            return multistep(step, steps, warmup=warmup)
        return cosine_schedule(step, steps, warmup=warmup)
