"""AdaBN: batch norms take the statistics of the product in place of those of the pictures they were trained
on.

Card. Paper: Li, Wang, Shi, Liu and Hou, "Revisiting Batch Normalization for Practical Domain Adaptation",
2016 (Pattern Recognition 80, 2018, as "Adaptive Batch Normalization"). No code of it is used. It has no
training and no constants but those of the batches. Differences: the paper takes the target's statistics
alone, from many images; here they are mixed with the pretrained ones by `strength`, since a handful of
images of one product leaves some channels hardly any variance, and the images are augmented copies.
The default strength was chosen on planted products: 1 makes most of them worse. Fine-tuning with batch norms
in training mode owes its gain to them (docs/LOG.md)."""

from __future__ import annotations

import torch
from torch import nn

from kizu import checks
from kizu.adaptation._training import pooled_features, seed_from
from kizu.errors import UnknownName, UsageError
from kizu.nn.batch_norm import FLOOR
from kizu.representations.base import Representation
from kizu.representations.trainable import adapted_card, require_network, trainable_copy
from kizu.training import FitOptions, Position, SampleStore
from kizu.views.affine import AUGMENTATIONS, affine

BATCH = 32
"""Copies a forward pass."""


def check_parameters(*, strength: float, copies: int, augmentation: str) -> None:
    """Raise UsageError, UnknownName for values out of range."""
    checks.numbers(least=0.0, most=1.0, strength=strength)
    checks.whole_numbers(copies=copies)
    if augmentation not in AUGMENTATIONS:
        raise UnknownName("augmentation", str(augmentation), tuple(AUGMENTATIONS))


def adabn(
    base: Representation,
    good: SampleStore,
    *,
    strength: float = 0.3,
    copies: int = 10,
    augmentation: str = "industrial",
    generator: torch.Generator,
    options: FitOptions,
) -> Representation:
    """The network of `base` with the same weights, its batch norms' means and variances moved to those of
    the good images.

    strength: by how much, from 0 (not at all) to 1 (those of the product alone). copies: augmented copies of
    each image from which statistics are taken. augmentation: "industrial" (affine, blur, grey) or "affine".

    Raises what `check_parameters` raises, and UsageError for a representation that is no network, or has no
    batch norms."""
    check_parameters(strength=strength, copies=copies, augmentation=augmentation)
    require_network(base, "adabn")
    seed = seed_from(generator)
    pooled_features(base, good)  # refuses NaN
    encoder = trainable_copy(base).requires_grad_(False).eval()
    norms = _norms_of(encoder)
    before = [(_copy(norm.running_mean), _copy(norm.running_var)) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    blur, grey = AUGMENTATIONS[augmentation]
    count = len(good) * copies
    with torch.no_grad():
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            images = good.take([number % len(good) for number in numbers]).require_images()
            draws = Position(0, start, len(numbers)).generators(seed)
            encoder(affine(images, generator=draws, blur_chance=blur, grey_chance=grey))
            if options.progress is not None:
                options.progress(len(good), f"statistics of {numbers.stop} of {count} copies")
    for norm, (mean, variance) in zip(norms, before, strict=True):
        _mix(norm, mean, variance, strength)
    encoder.card = {**adapted_card(base.card, "adabn", len(good)), "offsets": list(base.offsets)}
    return encoder.eval()


def _norms_of(encoder: Representation) -> list[nn.BatchNorm2d]:
    found = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    if not found:
        raise UsageError(f"{encoder.card['name']} has no batch norms whose statistics could be adapted.")
    return found


def _mix(norm: nn.BatchNorm2d, mean: torch.Tensor, variance: torch.Tensor, strength: float) -> None:
    """Statistics between (mean, variance) and those that the norm has now; a variance of next to nothing is
    not taken over."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    found = torch.where(norm.running_var < variance.clamp(max=FLOOR), variance, norm.running_var)
    norm.running_mean.copy_(mean.lerp(norm.running_mean, strength))
    norm.running_var.copy_(variance.lerp(found, strength))
    norm.momentum = 0.1


def _copy(values: torch.Tensor | None) -> torch.Tensor:
    assert values is not None  # the norm keeps statistics
    return values.clone()
