"""What GLASS minimises, and the anomalies that it makes: global ones of features, local ones of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kizu.detectors._patch_discriminator import Network
from kizu.image_files import find_images
from kizu.images import open_image
from kizu.losses.focal import focal
from kizu.nn.floats import at_least_float32
from kizu.nn.patches import to_rows
from kizu.synthetic.scenes import SceneGenerator
from kizu.training import Objective, Position
from kizu.types import FeatureMaps
from kizu.views.perlin import perlin
from kizu.views.strong import strong

PROJECTED_EVERY = 5
"""Steps of the ascent after which anomalies are brought back into their shell (released code)."""
ADAPTER_DECAY = 1e-5
"""Weight decay of the adapter (released code)."""
EPS = 1e-10
"""Added to lengths that are divided by."""


def unit_rows(vectors: Tensor) -> Tensor:
    """Rows (N, D) divided by their lengths; a row of zeros stays.

    >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return vectors / (vectors.norm(dim=1, keepdim=True) + EPS)


def truncate(points: Tensor, origins: Tensor, least: Tensor | float, most: Tensor | float) -> Tensor:
    """Truncated projection: points (N, D) moved towards or away from their origins (N, D) until the distance
    is between `least` and `most`.

    Source: GLASS, the projection onto the shell in which global anomalies lie.

    >>> truncate(torch.tensor([[1.0, 0.0], [0.0, 9.0]]), torch.zeros(2, 2), 2.0, 4.0)
    tensor([[2., 0.],
            [0., 4.]])
    """
    away = points - origins
    distance = away.norm(dim=1, keepdim=True)
    return origins + away * (distance.clamp(least, most) / (distance + EPS))


def hard_examples(logits: Tensor, targets: Tensor, share: float) -> Tensor:
    """(N,) bool: those whose squared error (sigmoid(logit) - target)^2 is not below its `share`-quantile.

    >>> hard_examples(torch.tensor([9.0, 0.0, -9.0]), torch.tensor([1, 1, 1]), 0.5)
    tensor([False,  True,  True])
    """
    errors = (at_least_float32(logits.detach()).sigmoid() - targets).square()
    return errors >= quantile(errors, share)


def quantile(values: Tensor, share: float) -> Tensor:
    """torch.quantile of values (N,) of any number, which takes 16 million at most: of every k-th beyond."""
    return torch.quantile(values[:: -(-len(values) // 2**24)], share)


class FixedDiscriminator:
    """A Network's discriminator as a function that stays: its batch norm has the statistics of `rows` (M, D).

    logit(x) = v . leaky(A x + b), with the batch norm within A (hidden, D) and b, and so its gradient is
    (slope + (1 - slope) [A x + b > 0]) V with V the rows of A times v."""

    @torch.no_grad()
    def __init__(self, discriminator: Any, rows: Tensor) -> None:
        first, norm, activation, last = discriminator
        variance, mean = torch.var_mean(at_least_float32(first(rows)), dim=0, unbiased=False)
        scale = norm.weight / (variance + norm.eps).sqrt()
        self.A, self.b = scale[:, None] * first.weight, (first.bias - mean) * scale + norm.bias
        V = last.weight.T * self.A
        self._below = activation.negative_slope * V.sum(0)
        self._above = (1 - activation.negative_slope) * V

    @torch.no_grad()
    def gradient(self, points: Tensor) -> Tensor:
        """That of the logit of each point (N, D): (N, D)."""
        active = functional.linear(points, self.A, self.b).gt_(0)
        return at_least_float32(active @ self._above) + self._below


@dataclass(frozen=True)
class Synthesis:
    """How anomalies are made. hypersphere: whether features of good images lie around a centre, or else on a
    manifold. noise: standard deviation of what is added to features. steps, step: number and length of the
    steps of the ascent. radius: quantile of the distances to the centre that is the sphere's radius.
    distance: least displacement of a global anomaly on a manifold, the largest is twice as much. hard: share
    of the patches of a planted image that are left out, the easiest ones. gamma: of the focal loss."""

    hypersphere: bool
    noise: float
    steps: int
    step: float
    radius: float
    distance: float
    hard: float
    gamma: float

    def ascend(
        self, judge: FixedDiscriminator, points: Tensor, origins: Tensor, least: Tensor | float
    ) -> Tensor:
        """Gradient ascent of the loss that calls points (N, D) anomalous: each moves step by step to where
        the discriminator takes it for good, along its own unit gradient; every fifth step it is brought into
        the shell `least` to 2 `least` around its origin (N, D).

        The gradient of that loss is the logit's times a negative number, which a unit gradient forgets."""
        for number in range(1, self.steps + 1):
            points = points - self.step * unit_rows(judge.gradient(points))
            if number % PROJECTED_EVERY == 0:
                points = truncate(points, origins, least, 2 * least)
        return points


class Textures:
    """Foreign images that are blended in: those of a folder, at any depth, or drawn by kizu's generator of
    scenes, strongly augmented. size: (H, W). Raises EmptyData for a folder without images."""

    def __init__(self, folder: str | None, size: tuple[int, int]) -> None:
        self.size = size
        self._paths = None if folder is None else find_images([Path(folder)]).images
        self._scenes = None if folder is not None else SceneGenerator(size=max(size))

    def drawn(self, generators: Sequence[torch.Generator]) -> Tensor:
        """One texture for each generator, (B, 3, H, W) in [0, 1]. Raises ImageError for a damaged file."""
        numbers = [int(torch.randint(2**31, (), generator=one)) for one in generators]
        images = torch.from_numpy(np.stack([self._image(number) for number in numbers]))
        return strong(images.permute(0, 3, 1, 2).float().div_(255.0), generator=list(generators))

    def _image(self, number: int) -> np.ndarray:
        if self._paths is not None:
            return open_image(self._paths[number % len(self._paths)], size=self.size)
        assert self._scenes is not None
        return self._scenes.image(number)[0][: self.size[0], : self.size[1]]


class GlassObjective(Objective):
    """BCE(good, 0) + BCE(global anomalies, 1) + focal(patches of planted images, their mask).

    network: a Network. extract: images -> features of the frozen representation. mean (P, D): mean of the
    good images' patches at each position. rates: learning rates of adapter and discriminator, per step.
    weight_decay: of the discriminator. seed: of textures, masks and noise."""

    mean: Tensor

    def __init__(
        self,
        network: Any,
        synthesis: Synthesis,
        *,
        extract: Callable[[Tensor], FeatureMaps],
        textures: Textures,
        mean: Tensor,
        rates: tuple[float, float],
        weight_decay: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.network: Network = network
        self.synthesis, self.textures = synthesis, textures
        self._extract, self._rates, self._weight_decay, self._seed = extract, rates, weight_decay, seed
        self.register_buffer("mean", mean)

    def prepare(self, batch: dict[str, Any], position: Position) -> dict[str, Tensor]:
        """Patches (N, D) of the images ("good") and of the images with planted texture ("planted"), with the
        mask (N,) of the latter, and noise (N, D). N = B P, image by image."""
        images, generators = batch["images"], position.generators(self._seed)
        textures = self.textures.drawn(generators).to(images.device)
        planted, where = perlin(images, textures, generator=generators, recipe="glass", return_mask=True)
        good, grid = (self.network.patches(self._extract(one)).clone() for one in (images, planted))
        mask = functional.adaptive_max_pool2d(where[:, None].float(), grid.shape[2:]) > 0
        rows = to_rows(good)
        P, D = grid.shape[2] * grid.shape[3], grid.shape[1]
        noise = torch.cat([torch.randn(P, D, generator=one) for one in generators])
        return {
            "good": rows,
            "planted": to_rows(grid),
            "mask": mask.flatten(),
            "noise": noise.to(rows.device).mul_(self.synthesis.noise),
        }

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The sum and its terms; "radius" is that of the sphere, in hypersphere mode."""
        good = at_least_float32(self.network.adapter(batch["good"]))
        planted = at_least_float32(self.network.adapter(batch["planted"]))
        centres, radius = self._sphere(good, planted, batch["mask"])
        displaced = self._global(good, batch["noise"], centres, radius)
        both = self.network.discriminate(torch.cat([good, good + displaced]))
        of_good, of_global = at_least_float32(both).chunk(2)
        terms = {
            "good": functional.binary_cross_entropy_with_logits(of_good, torch.zeros_like(of_good)),
            "global": functional.binary_cross_entropy_with_logits(of_global, torch.ones_like(of_global)),
            "local": self._local(planted, batch["mask"], centres, radius),
        }
        shown = {name: term.detach() for name, term in terms.items()}
        if self.synthesis.hypersphere:
            shown["radius"] = radius
        return {"loss": torch.stack(list(terms.values())).sum(), **shown}

    def optimiser(self) -> torch.optim.Optimizer:
        """AdamW; the adapter with the released weight decay."""
        adapter, discriminator = self.network.adapter.parameters(), self.network.discriminator.parameters()
        groups = [
            {"params": list(discriminator), "lr": self._rates[1], "weight_decay": self._weight_decay},
            {"params": list(adapter), "lr": self._rates[0], "weight_decay": ADAPTER_DECAY},
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]])

    @torch.no_grad()
    def _sphere(self, good: Tensor, planted: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Centres (N, D), one for each position, and the radius (): the quantile of the distances of all
        patches that are good, those of planted images outside the mask too."""
        centre = at_least_float32(self.network.adapter(self.mean))
        centres = centre.repeat(len(good) // len(centre), 1)
        kept = ~mask
        distances = torch.cat([(good - centres).norm(dim=1), (planted - centres)[kept].norm(dim=1)])
        return centres, quantile(distances, self.synthesis.radius)

    @torch.no_grad()
    def _global(self, good: Tensor, noise: Tensor, centres: Tensor, radius: Tensor) -> Tensor:
        """What is added to patches (N, D) to make global anomalies of them, without gradient."""
        made, noisy = self.synthesis, good + noise
        judge = FixedDiscriminator(self.network.discriminator, torch.cat([good, noisy]))
        origins, least = (centres, radius) if made.hypersphere else (good, made.distance)
        return made.ascend(judge, noisy, origins, least) - good

    def _local(self, planted: Tensor, mask: Tensor, centres: Tensor, radius: Tensor) -> Tensor:
        """Focal loss of the hard ones of the patches of planted images; in hypersphere mode those in the mask
        are first brought to 2 to 4 radii from the centre."""
        made = self.synthesis
        if made.hypersphere:
            projected = truncate(planted, centres, 2 * radius, 4 * radius)
            planted = torch.where(mask[:, None], projected, planted)
        logits = at_least_float32(self.network.discriminate(planted))
        kept = hard_examples(logits, mask.float(), made.hard)
        return focal(logits[kept], mask[kept].long(), gamma=made.gamma)
