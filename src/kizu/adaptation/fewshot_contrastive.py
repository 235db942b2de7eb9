"""Few-shot contrastive fine-tuning: BYOL on a handful of good images, with pairs across them and planted
negatives.

Card. Paper: "Few-Shot Anomaly Detection on Industrial Images through Contrastive Fine-Tuning" (later COFT-AD:
Liao et al., IEEE TIP 33, 2024), sections 3.1 to 3.3. No official code. Given by the paper: weights 0.8 and
0.6, Adam 3e-4 with betas (0.9, 0.99), batches of 64. Silent, and filled in: heads of width 4096 to 256 and
momentum 0.99 (BYOL's for short trainings), the number of steps, the ranges of the augmentation (views.affine;
blur and grey with the probabilities of BYOL and SimSiam), the mode of batch norms.

Differences: Eq. 1 is printed one way, from one view to the other; BYOL's both ways are `symmetric=True`. The
features of all levels of the representation are pooled and stacked, which is the paper's
512-dimensional feature for a ResNet-18 of its last level alone. A negative is planted into an augmented view,
not into the image as it came: else the network learns that what is not augmented is a negative, and test
images are not augmented (`negative_of="image"` is that reading). A permutation may pair an image with itself,
as in the paper's text."""

from __future__ import annotations

import copy
import functools
import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kizu import checks, registry
from kizu.adaptation._training import (
    BATCH_NORMS,
    EncoderObjective,
    check_training,
    pooled_features,
    run,
    seed_from,
)
from kizu.errors import TooFewImages, UnknownName, UsageError
from kizu.losses.negative_cosine import negative_cosine
from kizu.nn.density import pool
from kizu.nn.ema import ema_update
from kizu.representations.base import Representation
from kizu.representations.trainable import require_network, trainable_copy
from kizu.training import FitOptions, Position, SampleStore
from kizu.views.affine import AUGMENTATIONS, affine
from kizu.views.strong import strong

TRAINS = True
POSITIVES = ("cross_instance", "fixed_centre", "none")
SOURCES = ("view", "image")


def check_parameters(
    *,
    positives: str,
    negatives: str,
    negative_of: str,
    positive_weight: float,
    negative_weight: float,
    symmetric: bool,
    augmentation: str,
    batch_norm: str,
    hidden: int,
    dimensions: int,
    momentum: float,
    iterations: int,
    batch_size: int,
    learning_rate: float,
    training_precision: str,
) -> None:
    """Raise UsageError, UnknownName for values out of range or without effect."""
    for name, value, known in (
        ("positives", positives, POSITIVES),
        ("negatives", negatives, ("none", *planting_views())),
        ("negative_of", negative_of, SOURCES),
        ("augmentation", augmentation, tuple(AUGMENTATIONS)),
        ("batch_norm", batch_norm, BATCH_NORMS),
    ):
        if value not in known:
            raise UnknownName(name, str(value), known)
    checks.numbers(least=0.0, positive_weight=positive_weight, negative_weight=negative_weight)
    checks.switches(symmetric=symmetric)
    checks.whole_numbers(hidden=hidden, dimensions=dimensions)
    checks.numbers(least=0.0, most=1.0, momentum=momentum)
    if positives == "none":
        checks.without_effect("without positives", positive_weight=(positive_weight, 0.8))
    if negatives == "none":
        checks.without_effect(
            "without negatives",
            negative_weight=(negative_weight, 0.6),
            negative_of=(negative_of, "view"),
        )
    check_training(
        iterations=iterations,
        batch_size=batch_size,
        learning_rate=learning_rate,
        training_precision=training_precision,
    )


def fewshot_contrastive(
    base: Representation,
    good: SampleStore,
    *,
    positives: str = "cross_instance",
    negatives: str = "none",
    negative_of: str = "view",
    positive_weight: float = 0.8,
    negative_weight: float = 0.6,
    symmetric: bool = False,
    augmentation: str = "industrial",
    batch_norm: str = "train",
    hidden: int = 4096,
    dimensions: int = 256,
    momentum: float = 0.99,
    iterations: int = 30,
    batch_size: int = 64,
    learning_rate: float = 3e-4,
    training_precision: str = "auto",
    generator: torch.Generator,
    options: FitOptions,
) -> Representation:
    """The network of `base` with weights adapted to the good images; its levels, strides and kind stay.

    positives: "cross_instance", pairs of different images (Eq. 2); "fixed_centre", pulled to the mean
    feature before training (Table 5, F.C.); "none". negatives: "none" (the paper's "w/o np"), or the view
    that makes them (Eq. 3): "blur_brightness" for corruptions, or one that plants a flaw, such as
    "cutpaste". negative_of: what it is planted into, a "view" or the "image". positive_weight,
    negative_weight: lambda_PP, lambda_NP. augmentation: "industrial" (affine, blur, grey) or "affine"
    (CIFAR). batch_norm: "train" takes statistics of the batches, "eval" keeps the pretrained ones. hidden,
    dimensions: widths of the heads and of their output. momentum: beta of the moving copy. iterations:
    steps of batch_size images, drawn with replacement.

    Raises what `check_parameters` raises; TooFewImages for one image where pairs are needed; UsageError for a
    representation that is no network, or negatives that change nothing; NotFinite for a NaN loss."""
    settings = {name: value for name, value in locals().items() if name not in _GIVEN}
    check_parameters(**settings)
    require_network(base, "fewshot_contrastive")
    if positives == "cross_instance" and len(good) < 2:
        raise TooFewImages(
            "Cross-instance pairs are of two different good images, and there is one: give more images, or "
            "positives='none'."
        )
    seed = seed_from(generator)
    objective = ContrastiveObjective(
        trainable_copy(base),
        seed=seed,
        centre=pooled_features(base, good),
        positives=(positives, positive_weight),
        negatives=(negatives, negative_weight, negative_of),
        symmetric=symmetric,
        augmentation=augmentation,
        batch_norm=batch_norm,
        heads=(hidden, dimensions),
        momentum=momentum,
        learning_rate=learning_rate,
    )
    return run(
        objective,
        base,
        good,
        method="fewshot_contrastive",
        settings=settings,
        iterations=iterations,
        batch_size=batch_size,
        training_precision=training_precision,
        seed=seed,
        options=options,
        with_replacement=True,
    )


_GIVEN = ("base", "good", "generator", "options")


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
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.projector = BYOLProjectionHead(centre.shape[1], hidden, dimensions)
            self.predictor = BYOLPredictionHead(dimensions, hidden, dimensions)
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.target_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.register_buffer("centre", functional.normalize(functional.normalize(centre).mean(0), dim=0))
        self._seed, self._momentum, self._rate = seed, momentum, learning_rate
        self._positives, self._positive_weight = positives
        self._negatives, self._negative_weight, self._negative_of = negatives
        self._symmetric = symmetric
        self._regular = functools.partial(affine, **AUGMENTATIONS[augmentation])

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
