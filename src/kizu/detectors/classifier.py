"""Classifier: a binary network from any representation, trained on labelled good and anomalous images.

Card. Paper: Zou et al., "SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and
Segmentation", ECCV 2022, section 5 and supplement C: the two-class setting. A standard binary ResNet (He et
al., CVPR 2016: global average pooling, one linear layer), initialised from the pretrained representation, all
of it trained, with the focal loss (Lin et al., ICCV 2017). Official code: amazon-science/spot-diff holds no
code of this part. Given by the paper: SGD, fixed rate 1e-4, 80 epochs (high-shot) or 1,000 iterations (5- and
10-shot). Silent, and filled in: focal gamma 2 and alpha 0.25 (Lin et al.), momentum 0.9, weight decay 1e-4
(torchvision's reference training of ResNets), augmentation (SPD's own weak one, supplement C). Differences:
every level of the representation is pooled, which is the paper's network for a representation of its last
level alone (the default); one output instead of two, which is the difference of the two; and the map: the
paper trains a separate U-Net for segmentation, here the linear layer is applied position by position (class
activation map, Zhou et al., CVPR 2016)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from kizu import checks, maps
from kizu.adaptation.base import Adaptation
from kizu.detectors.learned import LearnedDetector
from kizu.detectors.runtime import Runtime
from kizu.errors import UnknownName, UsageError
from kizu.losses import focal
from kizu.reader import Supervision
from kizu.representations.base import Representation
from kizu.representations.trainable import trainable_copy
from kizu.training import Objective, Position, SampleStore
from kizu.types import Centres, FeatureMaps
from kizu.views import weak

TRAINED = ("network", "head")
AUGMENTATIONS = ("weak", "none")


class Classifier(LearnedDetector):
    """Score = logit of anomalous against good, the mean of a map of logits.

    train: "network", the representation and the linear head, or "head" alone (a linear probe). gamma, alpha:
    of the focal loss; alpha is the weight of anomalous images, good ones having 1 - alpha, None for no
    weights. learning_rate: per step, fixed; momentum, weight_decay: of SGD. augmentation: "weak" (views.weak:
    crop, flip, slight changes of colour and focus) or "none". iterations: steps of batch_size images.
    training_precision: "auto", "fp32" or "bf16". Learned: network_, a ClassifierNetwork. `fit` raises
    UsageError unless every image is labelled and both classes are there."""

    supervision: ClassVar[Supervision] = "labelled"
    trains_on: ClassVar[Literal["features", "images"]] = "images"
    preferred_levels: ClassVar[tuple[int, ...]] = (4,)
    network_: ClassifierNetwork

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        train: str = "network",
        gamma: float = 2.0,
        alpha: float | None = 0.25,
        learning_rate: float = 1e-4,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        augmentation: str = "weak",
        iterations: int = 1000,
        seed: int = 0,
        training_precision: str = "auto",
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(representation, adaptation=adaptation, runtime=runtime)
        for name, value, known in (("train", train, TRAINED), ("augmentation", augmentation, AUGMENTATIONS)):
            if value not in known:
                raise UnknownName(name, value, known)
        checks.numbers(least=0.0, gamma=gamma, weight_decay=weight_decay)
        checks.numbers(least=0.0, above=True, learning_rate=learning_rate)
        checks.numbers(least=0.0, most=0.999, momentum=momentum)
        if alpha is not None:
            checks.numbers(least=0.0, most=1.0, alpha=alpha)
        self.train, self.gamma, self.alpha, self.augmentation = train, gamma, alpha, augmentation
        self.learning_rate, self.momentum, self.weight_decay = learning_rate, momentum, weight_decay
        self.iterations, self.seed, self.training_precision = iterations, seed, training_precision
        self._check_training()

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """64 pixels, 5 steps."""
        return cls(
            representation,
            learning_rate=0.005,
            iterations=5,
            training_precision="fp32",
            adaptation=adaptation,
            runtime=Runtime(image_size=64, precision="fp32", batch_size=8),
        )

    def network(self) -> ClassifierNetwork:
        """The head, drawn from `seed`, and the representation's copy that learns with it
        (train="network")."""
        encoder = trainable_copy(self.representation_) if self.train == "network" else None
        return ClassifierNetwork(LinearHead(self.representation_.channels, self.seed), encoder)

    def objective(self, network: nn.Module) -> ClassifierObjective:
        """Focal loss of the augmented images."""
        return ClassifierObjective(
            network,
            frozen=self._warm_up() if self.train == "head" else None,
            gamma=self.gamma,
            alpha=self.alpha,
            augment=self.augmentation == "weak",
            sgd=functools.partial(
                torch.optim.SGD,
                lr=self.learning_rate,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
            ),
            seed=self.seed,
        )

    def scorer(self) -> ClassifierScorer:
        """The linear head, position by position."""
        return ClassifierScorer(self.network_.head, self.centres)

    def _scoring_representation(self) -> Representation:
        """The trained copy, once there is one."""
        network = getattr(self, "network_", None)
        return self.representation_ if network is None or network.encoder is None else network.encoder

    def _check_samples(self, samples: SampleStore) -> None:
        good, anomalous, unknown = (int((samples.labels == label).sum()) for label in (0, 1, -1))
        if unknown:
            raise UsageError(
                f"{unknown} of {len(samples)} images have no label, and a classifier learns from labels. "
                "Give Samples or Batches with label 0 (good) or 1 (anomalous) in every row."
            )
        if not good or not anomalous:
            raise UsageError(
                f"A classifier learns from good and anomalous images, got {good} good and {anomalous} "
                "anomalous. Give both (protocols.two_class divides a data set so), or take a detector that "
                "learns from good ones alone."
            )


class LinearHead(nn.Module):
    """FeatureMaps [(B, C_l, h_l, w_l)] -> one grid of logits (B, h_l, w_l) a level.

    The logit of an image is the sum over levels of the grids' means: global average pooling of all levels and
    one linear layer, whose sum over channels is done before the mean over positions. channels: C_l. seed: of
    the weights, uniform in +-1/sqrt(sum of C_l) as those of nn.Linear."""

    def __init__(self, channels: tuple[int, ...], seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.levels = nn.ModuleList(
            nn.Conv2d(width, 1, 1, bias=number == 0) for number, width in enumerate(channels)
        )
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(sum(channels) ** -0.5), sum(channels) ** -0.5, generator=generator)

    def forward(self, features: FeatureMaps) -> FeatureMaps:
        """Grids of logits; the bias is in those of the first level."""
        return [layer(level)[:, 0] for layer, level in zip(self.levels, features, strict=True)]


def image_logits(grids: FeatureMaps) -> Tensor:
    """Sum over levels of the means of the grids [(B, h_l, w_l)] -> (B,), float32.

    >>> image_logits([torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[0.5]]])])
    tensor([2.5000])
    """
    return torch.stack([grid.float().mean(dim=(1, 2)) for grid in grids]).sum(0)


class ClassifierNetwork(nn.Module):
    """What is trained: `head`, and `encoder` where the representation learns as well (else None)."""

    def __init__(self, head: LinearHead, encoder: Representation | None) -> None:
        super().__init__()
        self.head, self.encoder = head, encoder


class ClassifierObjective(Objective):
    """Focal loss of the images' logits.

    network: a ClassifierNetwork. frozen: images -> features without gradient, where the network has no
    encoder. augment: whether images pass views.weak, by draws from `seed` and the position in the run. sgd:
    parameters -> optimiser."""

    def __init__(
        self,
        network: Any,
        *,
        frozen: Callable[[Tensor], FeatureMaps] | None,
        gamma: float,
        alpha: float | None,
        augment: bool,
        sgd: Callable[..., torch.optim.Optimizer],
        seed: int,
    ) -> None:
        super().__init__()
        self.network: ClassifierNetwork = network
        self._frozen, self._gamma, self._alpha = frozen, gamma, alpha
        self._augment, self._sgd, self._seed = augment, sgd, seed

    def prepare(self, batch: dict[str, Any], position: Position) -> tuple[Tensor | FeatureMaps, Tensor]:
        """(images, or their features where the encoder is frozen; labels), each image by its own draws."""
        images = batch["images"]
        if self._augment:
            images = weak(images, generator=position.generators(self._seed))
        if self._frozen is None:
            return images, batch["labels"]
        return [level.clone() for level in self._frozen(images)], batch["labels"]  # out of inference mode

    def loss(self, batch: tuple[Any, Tensor]) -> dict[str, Tensor]:
        """The focal loss; "correct" is the share of images on the right side of 0."""
        given, labels = batch
        features = given if self.network.encoder is None else self.network.encoder(given)
        logits = image_logits(self.network.head(features))
        correct = ((logits.detach() > 0) == (labels == 1)).float().mean()
        return {"loss": focal(logits, labels, gamma=self._gamma, alpha=self._alpha), "correct": correct}

    def optimiser(self) -> torch.optim.Optimizer:
        """SGD for all of the network."""
        return self._sgd(self.network.parameters())


class ClassifierScorer(nn.Module):
    """FeatureMaps -> (map (B, H, W), score (B,)): the map of logits; the mean of its grids is the score."""

    def __init__(self, head: LinearHead, centres: Centres | None = None) -> None:
        super().__init__()
        self.head, self.centres = head, centres

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """[(B, C_l, h_l, w_l)] of images of `size` (H, W). Without centres, where h_l divides H and w_l
        divides W, bilinear upsampling keeps the mean, so the mean of the map is the score as well."""
        grids = self.head(features)
        return maps.upsample_levels(grids, size, sigma=0.0, centres=self.centres), image_logits(grids)
