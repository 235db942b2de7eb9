"""The objective of few-shot contrastive fine-tuning: its three losses, its views, its negatives."""

from __future__ import annotations

import copy
import functools
import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kizu import engine, registry
from kizu.adaptation._training import EncoderObjective
from kizu.errors import UsageError
from kizu.losses.negative_cosine import negative_cosine
from kizu.nn.density import pool
from kizu.nn.ema import ema_update
from kizu.representations.base import Representation
from kizu.training import Position
from kizu.views.affine import AUGMENTATIONS, affine
from kizu.views.strong import strong


def planting_views() -> tuple[str, ...]:
    """Names of the views that make a negative of a good image."""
    views = {name: inspect.signature(registry.load("views", name)) for name in registry.names("views")}
    return ("blur_brightness", *(name for name, known in views.items() if "return_mask" in known.parameters))


class ContrastiveObjective(EncoderObjective):
    """L_con + lambda_PP L_PP + lambda_NP L_NP, of an encoder and its moving copy.

    centre: (n, D) features of the good images before training, whose mean direction is the fixed centre.
    positives, negatives: as of `fewshot_contrastive`, with their weights. heads: (hidden, dimensions)."""

    centre: Tensor

    def __init__(
        self,
        encoder: Representation,
        *,
        seed: int,
        centre: Tensor,
        positives: tuple[str, float],
        negatives: tuple[str, float, str],
        symmetric: bool,
        augmentation: str,
        batch_norm: str,
        heads: tuple[int, int],
        momentum: float,
        learning_rate: float,
    ) -> None:
        super().__init__(encoder, batch_norm=batch_norm)
        from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead

        hidden, dimensions = heads
        with engine.seeded(seed):
            self.projector = BYOLProjectionHead(centre.shape[1], hidden, dimensions)
            self.predictor = BYOLPredictionHead(dimensions, hidden, dimensions)
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.target_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.register_buffer("centre", functional.normalize(functional.normalize(centre).mean(0), dim=0))
        self._seed, self._momentum, self._rate = seed, momentum, learning_rate
        self._positives, self._positive_weight = positives
        self._negatives, self._negative_weight, self._negative_of = negatives
        self._symmetric = symmetric
        blur, grey = AUGMENTATIONS[augmentation]
        self._regular = functools.partial(affine, blur_chance=blur, grey_chance=grey)

    def prepare(self, batch: dict[str, Tensor], position: Position) -> dict[str, Tensor]:
        """Two views of each image, the partner of each in the batch, and its negative."""
        images, draws = batch["images"], position.generators(self._seed)
        views = {
            "view1": self._regular(images, generator=draws),
            "view2": self._regular(images, generator=draws),
        }
        views["partner"] = torch.randperm(len(images), generator=draws[0]).to(images.device)
        if self._negatives != "none":
            before = self._regular(images, generator=draws) if self._negative_of == "view" else images
            views["negative"] = planted(before, self._negatives, draws)
        return views

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The three terms and their weighted sum."""
        online, predicted = self._predict(batch["view1"])
        target, wanted = self._target(batch["view2"])
        terms = {"contrastive": negative_cosine(predicted, wanted)}
        if self._symmetric:
            other = negative_cosine(self._predict(batch["view2"])[1], self._target(batch["view1"])[1])
            terms["contrastive"] = (terms["contrastive"] + other) / 2
        total = terms["contrastive"]
        if self._positives != "none":
            terms["positive"] = self._pull(online, target, batch["partner"])
            total = total + self._positive_weight * terms["positive"]
        if self._negatives != "none":
            terms["negative"] = -negative_cosine(self.embed(batch["negative"]), target)
            total = total + self._negative_weight * terms["negative"]
        return {"loss": total, **{f"loss_{name}": value.detach() for name, value in terms.items()}}

    def optimiser(self) -> torch.optim.Optimizer:
        """Adam for encoder, projector and predictor."""
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.Adam(learning, lr=self._rate, betas=(0.9, 0.99))

    def after_step(self, step: int, steps: int) -> None:
        """Move the copy."""
        ema_update(self.target_encoder, self.encoder, 1.0 - self._momentum)
        ema_update(self.target_projector, self.projector, 1.0 - self._momentum)

    def _pull(self, online: Tensor, target: Tensor, partner: Tensor) -> Tensor:
        """Eq. 2, or the distance to the fixed centre."""
        if self._positives == "fixed_centre":
            return negative_cosine(online, self.centre.expand_as(online))
        return cross_instance(online, target, partner)

    def _predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, D), and what the predictor makes of their projection."""
        features = self.embed(images)
        return features, self.predictor(self.projector(features))

    @torch.no_grad()
    def _target(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, D) of the moving copy and their projection."""
        features = pool(self.target_encoder(images))[0]
        return features, self.target_projector(features)


def cross_instance(online: Tensor, target: Tensor, partner: Tensor) -> Tensor:
    """Eq. 2: online, target (B, D) features of two views, partner (B,) a permutation -> (). Lower is better.

    >>> online, target = torch.eye(2), torch.eye(2)
    >>> float(cross_instance(online, target, torch.tensor([0, 1])))
    -1.0
    >>> float(cross_instance(online, target, torch.tensor([1, 0])))
    0.0
    """
    return (negative_cosine(online, target[partner]) + negative_cosine(online[partner], target)) / 2


def planted(images: Tensor, view: str, draws: list[torch.Generator]) -> Tensor:
    """Negatives of images (B, 3, H, W). Raises UsageError when none of them differs from its image."""
    function = registry.load("views", view)
    given: dict[str, Any] = {"kind": "both"} if view == "cutpaste" else {}
    if "textures" in inspect.signature(function).parameters:
        given["textures"] = strong(images, generator=draws, recipe="simclr")
    made: Tensor = function(images, **given, generator=draws)
    if torch.equal(made, images):
        raise UsageError(
            f"The view {view} changed none of {len(images)} images, so there is no negative to learn from: "
            "name another view, or negatives='none'."
        )
    return made
