"""What the pretraining objectives share: an encoder, and SPD's two views beside the views of the method.

A new objective is one file with a subclass of `Pretraining`; docs/methods/pretraining.md describes the
five."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from kizu import engine
from kizu.checks import numbers, whole_numbers
from kizu.errors import UsageError
from kizu.losses.spd import spd
from kizu.pretraining.spd import SPDConfig, spd_views
from kizu.representations.backbone import Backbone
from kizu.representations.networks import build_network, refusal
from kizu.representations.sources import open_representation, split_levels
from kizu.training import Objective, Position
from kizu.views.strong import strong


@dataclass(kw_only=True, eq=False, repr=False)
class Pretraining(Objective):
    """Base of the objectives. `encoder`: normalised images (B, 3, S, S) -> pooled feature (B, width).

    Its fields are the parameters that every objective has; a subclass is a dataclass too and adds its own.

    backbone: a timm network with stages (ResNet, Wide ResNet, ...). stages: how many of them are trained; 4
    is all. size: side of the views in pixels. batch_size: images of one step, over all processes. seed: of
    the initial weights and of every view. spd: SPDConfig(...), or True for its defaults, or False.
    learning_rate: per step for a batch of 256; the rate in use is learning_rate * batch_size / 256.

    A subclass writes `build`, `project`, `ssl_loss` and `optimiser`, checks its fields in
    `check_parameters`, and sets `augmentation` (a recipe of `kizu.views.strong`) and `strong_views` (how
    many views it needs). Raises UsageError, UnknownName.
    """

    backbone: str = "resnet50"
    stages: int = 4
    size: int = 224
    batch_size: int = 256
    seed: int = 0
    spd: SPDConfig | bool = False
    learning_rate: float = 0.05
    weight_decay: float = 1e-4

    writes: ClassVar[str] = "representation"
    augmentation = "simsiam"
    strong_views: ClassVar[int] = 2
    default_spd_loss: ClassVar[str] = "cosine"
    mean: Tensor = field(init=False)
    std: Tensor = field(init=False)

    def __post_init__(self) -> None:
        super().__init__()
        self.check_parameters()
        if self.spd is True:
            self.spd = SPDConfig()
        if isinstance(self.spd, SPDConfig):
            self.spd = replace(self.spd, loss=self.spd.loss or self.default_spd_loss)
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1), persistent=False)
        with engine.seeded(self.seed):
            self.encoder = Encoder(self.backbone, self.stages)
            self.width = self.encoder.width
            self.build()
            with_classifier = isinstance(self.spd, SPDConfig) and self.spd.loss == "cross_entropy"
            self.perturbation_classifier = nn.Linear(self.width, 2) if with_classifier else None
        reason = refusal(self.backbone, (self.stages,), (self.size, self.size))
        if reason:
            raise UsageError(reason)

    def check_parameters(self) -> None:
        """Raise UsageError for a value out of range. Subclasses extend it."""
        whole_numbers(stages=self.stages)
        whole_numbers(least=32, size=self.size)
        whole_numbers(least=2, batch_size=self.batch_size)
        whole_numbers(least=0, seed=self.seed)
        numbers(least=0, above=True, learning_rate=self.learning_rate)
        numbers(least=0, weight_decay=self.weight_decay)
        if not isinstance(self.spd, bool | SPDConfig):
            raise UsageError(f"spd is True, False or SPDConfig(...), got {self.spd!r}.")

    def build(self) -> None:
        """Create the heads. `self.width` is known, and what torch draws here is seeded."""

    def project(self, feature: Tensor) -> Tensor:
        """Pooled feature (B, width) -> z (B, D), whose cosines SPD's loss uses."""
        raise NotImplementedError

    def ssl_loss(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Scalars of the method without SPD, "loss" among them, and z (B, D) of the first view, SPD's
        anchor."""
        raise NotImplementedError

    @property
    def scaled_rate(self) -> float:
        """The learning rate of this batch size."""
        return self.learning_rate * self.batch_size / 256

    def initialise_from(self, source: str) -> dict[str, Any]:
        """Copy the encoder's weights from a representation, by name or path; return its card.

        Raises UsageError when it is another network."""
        net = open_representation(f"{split_levels(source)[0]}@{self.encoder.stages}")
        architecture = str(net.card.get("architecture", "")).partition(".")[0]
        if not isinstance(net, Backbone) or architecture != self.backbone.partition(".")[0]:
            raise UsageError(
                f"{source} is a {architecture or type(net).__name__}, a {self.backbone} is trained here: "
                "name that --backbone."
            )
        self.encoder.net.load_state_dict(net.net.state_dict())
        self.on_encoder_loaded()
        return net.card

    def on_encoder_loaded(self) -> None:
        """Called when the encoder has got other weights: update the copies of it."""

    def check_data(self, count: int | None, classes: int) -> None:
        """Raise UsageError when `count` images (None: endless) of `classes` classes are not enough."""
        if count is not None and count < self.batch_size:
            raise UsageError(
                f"There are {count} images, a batch has {self.batch_size}: give more images or a smaller "
                "batch_size."
            )

    def prepare(self, batch: tuple[Tensor, Tensor], position: Position) -> dict[str, Tensor]:
        """(uint8 images (B, S, S, 3), labels (B,)) -> views by name, normalised (B, 3, size, size)
        channels-last."""
        originals, labels = batch
        if len(originals) < 2:
            raise UsageError(
                "Batch norm and contrast need 2 images at a time: a larger batch_size, fewer processes or "
                "a smaller accumulate."
            )
        images = originals.permute(0, 3, 1, 2).float().div_(255.0)
        draws, side = position.generators(self.seed), (self.size, self.size)
        views = {
            f"view{i + 1}": strong(images, generator=draws, recipe=self.augmentation, size=side)
            for i in range(self.strong_views)
        }
        if isinstance(self.spd, SPDConfig):
            views |= spd_views(self.spd, images, views["view1"], draws, side)
        return {**{name: self.normalise(view) for name, view in views.items()}, "labels": labels}

    def normalise(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> ImageNet's mean and deviation removed, channels-last."""
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss of the method plus eta times SPD's."""
        terms, anchor = self.ssl_loss(batch)
        if not isinstance(self.spd, SPDConfig):
            return terms
        added = self._spd_terms(self.spd, anchor, batch["positive"], batch["negative"])
        total = terms["loss"] + self.spd.eta * added["loss_spd"]
        return {**terms, **added, "loss": total, "loss_method": terms["loss"].detach()}

    def _spd_terms(
        self, config: SPDConfig, anchor: Tensor, positive: Tensor, negative: Tensor
    ) -> dict[str, Tensor]:
        """SPD's scalars from z of the anchor (B, D) and the views x+ and x- (b, 3, S, S), b <= B."""
        joint = config.forward == "joint"
        if self.perturbation_classifier is not None:
            features = torch.cat(_forward_both(self.encoder, positive, negative, joint))
            logits = self.perturbation_classifier(features).float()
            target = torch.arange(2, device=logits.device).repeat_interleave(len(positive))
            accuracy = (logits.argmax(1) == target).float().mean()
            return {"loss_spd": functional.cross_entropy(logits, target), "spd_accuracy": accuracy}
        anchor = anchor[: len(positive)]
        near, far = _forward_both(lambda views: self.project(self.encoder(views)), positive, negative, joint)
        with torch.no_grad():
            cosines = [
                functional.cosine_similarity(anchor.float(), other.float()).mean() for other in (near, far)
            ]
        return {"loss_spd": spd(anchor, far, near), "cos_positive": cosines[0], "cos_negative": cosines[1]}

    def parameter_groups(self, *, decay_all: bool = True) -> list[dict[str, Any]]:
        """Trainable parameters with `weight_decay`: one group, or (decay_all=False) a second one without
        weight decay that holds biases and norms."""
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if decay_all:
            return [{"params": trainable, "weight_decay": self.weight_decay}]
        return [
            {"params": [p for p in trainable if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
        ]


def _forward_both(
    network: Callable[[Tensor], Tensor], positive: Tensor, negative: Tensor, joint: bool
) -> tuple[Tensor, Tensor]:
    """Outputs of a network for x+ and for x-, as one batch or in two."""
    if not joint:
        return network(positive), network(negative)
    near, far = network(torch.cat([positive, negative])).chunk(2)
    return near, far


class Encoder(nn.Module):
    """A timm network cut after a stage, its last map averaged: (B, 3, S, S) -> (B, width).

    Raises UnknownName for a network that timm does not have, UsageError for a stage that it does not have."""

    def __init__(self, backbone: str, stages: int) -> None:
        super().__init__()
        net, _ = build_network(backbone, (stages,), stages_only=True)
        self.net = net.to(memory_format=torch.channels_last)
        self.width, self.stages = int(net.feature_info.channels()[-1]), stages

    def forward(self, images: Tensor) -> Tensor:
        """Pooled feature."""
        return self.net(images)[-1].mean((2, 3))
