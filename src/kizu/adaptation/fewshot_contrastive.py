"""Few-shot contrastive fine-tuning: BYOL on a handful of good images, with pairs across them and planted
negatives.

Card. Paper: "Few-Shot Anomaly Detection on Industrial Images through Contrastive Fine-Tuning" (later
COFT-AD: Liao et al., IEEE TIP 33, 2024), sections 3.1 to 3.3. No official code. Given by the paper: weights
0.8 and 0.6, Adam 3e-4 with betas (0.9, 0.99), batches of 64. The default rate is 3e-5: with 3e-4 the
default network gets worse within 20 steps on planted products (docs/LOG.md). Silent, and filled in: heads
of width 4096 to 256 and momentum 0.99 (BYOL's for short trainings), the number of steps, the ranges of the
augmentation (views.affine; blur and grey with the probabilities of BYOL and SimSiam), the mode of batch
norms.

Differences: Eq. 1 is printed one way, from one view to the other; BYOL's both ways are `symmetric=True`. The
features of all levels of the representation are pooled and stacked, which is the paper's
512-dimensional feature for a ResNet-18 of its last level alone. A negative is planted into an augmented view,
not into the image as it came: else the network learns that what is not augmented is a negative, and test
images are not augmented (`negative_of="image"` is that reading). A permutation may pair an image with itself,
as in the paper's text."""

from __future__ import annotations

import torch

from kizu import checks
from kizu.adaptation._contrastive import ContrastiveObjective, planting_views
from kizu.adaptation._training import BATCH_NORMS, check_training, pooled_features, run, seed_from
from kizu.errors import TooFewImages, UnknownName
from kizu.representations.base import Representation
from kizu.representations.trainable import require_network, trainable_copy
from kizu.training import FitOptions, SampleStore
from kizu.views.affine import AUGMENTATIONS

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
    iterations: int = 10,
    batch_size: int = 64,
    learning_rate: float = 3e-5,
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
    # every parameter by its name
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
