"""What RotNet minimises and how it scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kizu import maps
from kizu.detectors._image_encoder import ImageEncoder
from kizu.nn.density import pool
from kizu.nn.floats import at_least_float32
from kizu.nn.patches import align_levels, finest_centre
from kizu.nn.transformations import Transformation, require_square, transform, undo
from kizu.training import Objective, Position, cosine_schedule
from kizu.types import Centres, FeatureMaps
from kizu.views import weak

SCORES = ("softmax", "dirichlet", "gaussian")
AUGMENTATIONS = ("none", "weak")
OPTIMISERS = ("adam", "sgd")
MOMENTUM = 0.9


class RotNetObjective(Objective):
    """Cross-entropy of the transformation, from the pooled features of the transformed image.

    network: an EncoderNetwork with a linear head. drawn: transformations an image passes in a step, all of
    them or some without repetition, drawn from `seed` and the position in the run."""

    def __init__(
        self,
        network: Any,
        ways: tuple[Transformation, ...],
        *,
        shift: float,
        drawn: int,
        augment: bool,
        optimiser: str,
        rate: float,
        weight_decay: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.network = network
        self._ways, self._shift, self._drawn, self._augment = ways, shift, drawn, augment
        self._kind, self._rate, self._weight_decay, self._seed = optimiser, rate, weight_decay, seed

    def prepare(self, batch: dict[str, Any], position: Position) -> tuple[Tensor, Tensor]:
        """(transformed images (B drawn, 3, H, H), which transformation (B drawn,)), image by image.

        A flip is no augmentation where it is one of the transformations."""
        images, generators = batch["images"], position.generators(self._seed)
        if self._augment:
            flips = any(way.flip for way in self._ways)
            images = weak(images, generator=generators, flip_chance=0.0 if flips else 0.5)
        views, labels = [], []
        for image, generator in zip(images, generators, strict=True):
            order = torch.rand(len(self._ways), generator=generator).argsort()[: self._drawn]
            views += [transform(image[None], self._ways[label], self._shift) for label in order.tolist()]
            labels.append(order)
        return torch.cat(views), torch.cat(labels).to(images.device)

    def loss(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The cross-entropy; "correct" is the share of transformations that were recognised."""
        images, labels = batch
        logits = self.network.head(pool(self.network.encoder(images))[0])
        logits = at_least_float32(logits)
        correct = (logits.detach().argmax(1) == labels).float().mean()
        return {"loss": functional.cross_entropy(logits, labels), "correct": correct}

    def optimiser(self) -> torch.optim.Optimizer:
        """Adam, or SGD with momentum, for encoder and head."""
        parameters, decay = self.network.parameters(), self._weight_decay
        if self._kind == "adam":
            return torch.optim.Adam(parameters, lr=self._rate, weight_decay=decay)
        return torch.optim.SGD(parameters, lr=self._rate, momentum=MOMENTUM, weight_decay=decay)

    def lr_scale(self, step: int, steps: int) -> float:
        """Constant for Adam, half a cosine for SGD."""
        return 1.0 if self._kind == "adam" else cosine_schedule(step, steps)


class RotNetScorer(nn.Module):
    """[images (B, 3, H, H)] -> (map (B, H, H), score (B,)).

    With y_k the network's answer to the image under transformation k: without `concentration` the score is
    the mean of 1 - y_k[k], with it (K, K) minus the mean of sum_j (a_k[j] - 1) log y_k[j]. In the map y_k is
    what the head says of each position."""

    concentration: Tensor | None

    def __init__(
        self,
        encoder: ImageEncoder,
        head: nn.Linear,
        ways: tuple[Transformation, ...],
        *,
        shift: float,
        sigma: float,
        concentration: Tensor | None = None,
        centres: Centres | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.head, self.ways, self.shift = encoder, head, ways, shift
        self.sigma, self.centres = sigma, centres
        self.register_buffer("concentration", concentration)

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Higher is more anomalous. Raises ShapeError for images that are not square."""
        images = features[-1]
        require_square(size)
        score, total = (
            torch.zeros(len(images), device=images.device),
            torch.zeros(len(images), *size, device=images.device),
        )
        seen = torch.zeros(size, device=images.device)
        for number, way in enumerate(self.ways):
            levels = self.encoder(transform(images, way, self.shift))
            score += self._unsure(self._log(pool(levels)[0]), number)
            log = self._log(align_levels(levels).permute(0, 2, 3, 1))  # (B, h, w, K)
            centre = finest_centre(levels, self.centres)
            wide = maps.upsample(self._unsure(log, number), size, sigma=0.0, centre=centre)
            back, shown = undo(wide, way, self.shift)
            total, seen = total + back, seen + shown
        smooth = maps.upsample(total / seen, size, sigma=self.sigma)
        return smooth, score / len(self.ways)

    def answers(self, images: Tensor) -> Tensor:
        """(B, K, K) float32: logarithms of the probabilities (last dimension) by the transformation that was
        applied."""
        logs = [self._log(pool(self.encoder(transform(images, way, self.shift)))[0]) for way in self.ways]
        return torch.stack(logs, dim=1)

    def _log(self, features: Tensor) -> Tensor:
        """(..., D) -> (..., K)."""
        return functional.log_softmax(self.head(features), dim=-1)

    def _unsure(self, log: Tensor, number: int) -> Tensor:
        """(..., K) of transformation `number` -> (...). 1 - y without loss where y is nearly 1."""
        if self.concentration is None:
            return -torch.expm1(log[..., number])
        return -((self.concentration[number] - 1) * log).sum(-1)
