"""Supervised: learn the classes of labelled images; with SPD, a second classifier tells images with a
planted flaw from those without.

Card. Recipe: torchvision's reference training of ResNets (BSD-3), whose accuracies SPD's paper quotes (69.8
for ResNet-18, 76.1 for ResNet-50): SGD 0.1 x batch / 256, momentum 0.9, weight decay 1e-4, 90 epochs, rate /
10 at epochs 30 and 60, random resized crops of 0.08 to 1 of the area and flips. SPD: Zou et al., ECCV 2022,
section 3.3: the auxiliary classifier is one linear layer on the pooled feature, trained by cross-entropy on
x+ and x-, weight eta = 0.1 (silent: the other models' eta); classes are learned on the ordinary view only.
spd_loss="cosine" takes SPD's own loss on the pooled features instead."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from kizu.errors import UnknownName, UsageError
from kizu.pretraining.base import Difference, Pretraining
from kizu.training import cosine, steps_down

SCHEDULES = ("steps", "cosine")


class Supervised(Pretraining):
    """Cross-entropy over classes; logs `accuracy`, the share of the batch that is right.

    classes: how many there are (0: as many as the data has, set by `kizu.pretraining`). learning_rate: for a
    batch of 256, scaled with it. schedule: "steps" (/ 10 at a third and two thirds) or "cosine" after warmup,
    a share of the run. smoothing: of the labels. views: "plain" (crop and flip), or a recipe of views.strong.
    """

    strong_views = 1

    def __init__(
        self,
        *,
        backbone: str = "resnet50",
        stages: int = 4,
        size: int = 224,
        batch_size: int = 256,
        seed: int = 0,
        spd: bool = False,
        eta: float = 0.1,
        perturbation: str = "smooth_blend",
        spd_loss: str = "cross_entropy",
        spd_anchor: str = "view",
        spd_share: float = 1.0,
        spd_forward: str = "joint",
        classes: int = 0,
        learning_rate: float = 0.1,
        weight_decay: float = 1e-4,
        schedule: str = "steps",
        warmup: float = 0.0,
        smoothing: float = 0.0,
        views: str = "plain",
    ) -> None:
        if schedule not in SCHEDULES:
            raise UnknownName("schedule", schedule, SCHEDULES)
        if classes < 2:
            raise UsageError(
                "Supervised training needs images of two classes or more, one folder each (or "
                f"classes=200, say); got {classes}."
            )
        if not 0.0 <= smoothing < 1.0 or not 0.0 <= warmup < 1.0:
            raise UsageError(
                f"smoothing and warmup are shares from 0 to below 1, got {smoothing} and {warmup}."
            )
        self.classes, self.learning_rate, self.weight_decay = classes, learning_rate, weight_decay
        self.schedule, self.warmup, self.smoothing, self.recipe = schedule, warmup, smoothing, views
        difference = (
            Difference(eta, perturbation, spd_loss, spd_anchor, spd_share, spd_forward) if spd else None
        )
        super().__init__(
            backbone=backbone, stages=stages, size=size, batch_size=batch_size, seed=seed, spd=difference
        )

    def build(self) -> None:
        """The classifier."""
        self.classifier = nn.Linear(self.width, self.classes)

    def check_data(self, count: int | None, classes: int) -> None:
        """Raise UsageError unless the images have the classes that the classifier was made for."""
        super().check_data(count, classes)
        if classes != self.classes:
            raise UsageError(f"The classifier has {self.classes} classes, the images have {classes}.")

    def embed(self, feature: Tensor) -> Tensor:
        """The feature itself (B, width): there is no projector."""
        return feature

    def method(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Cross-entropy on the ordinary view."""
        feature = self.encoder(batch["view1"])
        logits = self.classifier(feature).float()
        right = (logits.argmax(1) == batch["labels"]).float().mean()
        return {
            "loss": functional.cross_entropy(logits, batch["labels"], label_smoothing=self.smoothing),
            "accuracy": right,
        }, feature

    def optimiser(self) -> torch.optim.Optimizer:
        """SGD."""
        return torch.optim.SGD(
            self.groups(self.weight_decay), lr=self.learning_rate * self.batch_size / 256, momentum=0.9
        )

    def factor(self, step: int, steps: int) -> float:
        """The schedule's."""
        warmup = int(self.warmup * steps)
        return (
            steps_down(step, steps, warmup=warmup)
            if self.schedule == "steps"
            else cosine(step, steps, warmup=warmup)
        )
