"""What CutPaste trains beside its encoder, what it minimises and how it scores."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kizu import maps
from kizu.detectors._density_scorer import DensityScorer
from kizu.detectors._image_encoder import ImageEncoder
from kizu.nn.density import pool
from kizu.nn.floats import at_least_float32
from kizu.nn.patches import align_levels, finest_centre
from kizu.nn.windows import random_windows, spread, windows
from kizu.representations.grad_cam import grad_cam
from kizu.training import Objective, Position, cosine_schedule
from kizu.types import FeatureMaps
from kizu.views import colour_jitter, cutpaste

TASKS = {"3way": ("patch", "scar"), "binary": ("patch",), "scar": ("scar",), "union": ("both",)}
"""Task -> the kinds of paste that are classes beside the good one."""
LOCALISE = ("share", "grad_cam")
LAST = 128
"""Width of the head's last layer before the classes."""
AT_ONCE = 64
"""Windows that pass the network together, where several images are scored."""


class Head(nn.Module):
    """Pooled features (B, D) -> class scores (B, classes): `layers` of width `hidden` and one of 128, each
    with batch norm and ReLU, then the classes."""

    def __init__(self, D: int, hidden: int, layers: int, classes: int) -> None:
        super().__init__()
        widths = [D, *[hidden] * layers, LAST]
        steps: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            steps += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
        self.layers = nn.Sequential(*steps, nn.Linear(LAST, classes))

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, D) -> (B, classes), the first of which is good."""
        scores: Tensor = self.layers(pooled)
        return scores


class CutPasteObjective(Objective):
    """Cross-entropy over each image as it is (0) and with each kind of paste (1, 2).

    network: an EncoderNetwork. kinds: of paste. crop: side of the window that is cut from an image in each
    step, None for all of it. frozen: first steps in which the encoder's weights stay. sgd: learning rate,
    momentum and weight decay. All is drawn from `seed` and the position in the run."""

    def __init__(
        self,
        network: Any,
        kinds: tuple[str, ...],
        *,
        crop: int | None,
        jitter: float,
        frozen: int,
        sgd: tuple[float, float, float],
        seed: int,
    ) -> None:
        super().__init__()
        self.network = network
        self._kinds, self._crop, self._jitter, self._frozen = kinds, crop, jitter, frozen
        self._sgd, self._seed = sgd, seed

    def prepare(self, batch: dict[str, Any], position: Position) -> tuple[Tensor, Tensor, bool]:
        """(views (B classes, 3, H, W), classes (B classes,), whether the encoder is frozen), class by
        class."""
        images, generators = batch["images"], position.generators(self._seed)
        if self._crop is not None:
            images = random_windows(images, self._crop, generators)
        good = colour_jitter(images, generator=generators, jitter=(self._jitter,) * 4)
        pasted = [cutpaste(good, generator=generators, kind=kind) for kind in self._kinds]
        classes = torch.arange(1 + len(pasted), device=good.device).repeat_interleave(len(good))
        return torch.cat([good, *pasted]), classes, position.step < self._frozen  # type: ignore[list-item]

    def loss(self, batch: tuple[Tensor, Tensor, bool]) -> dict[str, Tensor]:
        """The cross-entropy; "correct" is the share of views that were recognised."""
        views, classes, frozen = batch
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            pooled = pool(self.network.encoder(views))[0]
        logits = self.network.head(pooled)
        logits = at_least_float32(logits)
        correct = (logits.detach().argmax(1) == classes).float().mean()
        return {"loss": functional.cross_entropy(logits, classes), "correct": correct}

    def optimiser(self) -> torch.optim.Optimizer:
        """SGD; what has no gradient, as the encoder while it is frozen, is left as it is."""
        rate, momentum, decay = self._sgd
        return torch.optim.SGD(self.network.parameters(), lr=rate, momentum=momentum, weight_decay=decay)

    def lr_scale(self, step: int, steps: int) -> float:
        """Half a cosine."""
        return cosine_schedule(step, steps)


class CutPasteScorer(nn.Module):
    """FeatureMaps -> (map (B, H, W) at least 0, score (B,)): the density's score, and Grad-CAM of the
    logarithm of the odds that anything was pasted.

    Features are pooled before the head, so the gradient is the same at all positions of a level: it is that
    of the head alone, divided by the number of positions."""

    def __init__(self, density: DensityScorer, head: Head) -> None:
        super().__init__()
        self.density, self.head = density, copy.deepcopy(head)

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """[(B, C_l, h_l, w_l)] of images of `size` (H, W)."""
        score, _, _ = self.density.distance(features)
        grid = align_levels(features)
        gradient = self._gradient(pool(features)[0])[:, :, None, None] / (grid.shape[2] * grid.shape[3])
        attention = grad_cam(grid, gradient.expand_as(grid))
        centre = finest_centre(features, self.density.centres)
        return maps.upsample(attention, size, sigma=self.density.sigma, centre=centre), score

    def _gradient(self, pooled: Tensor) -> Tensor:
        """(B, D) -> (B, D). Scoring runs in inference mode, where nothing is differentiated: it is left for
        the head, a few small layers."""
        with torch.inference_mode(False), torch.enable_grad():
            pooled = pooled.clone().requires_grad_(True)
            logits = self.head(pooled)
            odds = logits[:, 1:].logsumexp(1) - logits[:, 0]
            (gradient,) = torch.autograd.grad(odds.sum(), pooled)
        return gradient


class WindowScorer(nn.Module):
    """[images (B, 3, H, W)] -> (map (B, H, W), score (B,)): the density's score of each window, spread over
    what the window shows, and the largest of them."""

    def __init__(self, encoder: ImageEncoder, density: DensityScorer, side: int, stride: int) -> None:
        super().__init__()
        self.encoder, self.density, self.side, self.stride = encoder, density, side, stride

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Windows pass the network image by image, a few at a time: memory does not grow with the batch."""
        scores = torch.stack([self._scores(image[None]) for image in features[-1]])
        return spread(scores, size, self.side, self.stride), scores.flatten(1).amax(1)

    def _scores(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) -> (h, w)."""
        cut, (h, w) = windows(image, self.side, self.stride)
        parts = [self.density.distance(self.encoder(part))[0] for part in cut.split(AT_ONCE)]
        return torch.cat(parts).reshape(h, w)
