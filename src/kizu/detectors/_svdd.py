"""What Deep SVDD minimises, and the parts of its network: centre, radius, embedding, contrast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kizu.nn.floats import at_least_float32
from kizu.nn.global_contrast import global_contrast
from kizu.nn.image_decoder import ImageDecoder, require_grid
from kizu.representations.base import Representation
from kizu.training import Objective, Position, multistep
from kizu.types import FeatureMaps

MILESTONE, PRETRAINING_MILESTONE = 50 / 150, 250 / 350
"""Where the learning rate falls to a tenth, as a share of either phase: epochs of the released CIFAR-10
runs."""


class SvddHead(nn.Module):
    """The encoder's last level (B, C, h, w) -> f (B, D): mean over positions, or a bias-free linear layer of
    all values.

    centre (D,), radius (): of the sphere. centred: whether the centre is set. spread (): total variance of f
    over the good images when it was set. bounds (2,): least and largest value of the good images after
    contrast normalisation; (0, 1) without it."""

    centre: Tensor
    radius: Tensor
    centred: Tensor
    spread: Tensor
    bounds: Tensor

    def __init__(self, channels: int, grid: tuple[int, int], embedding: int | None) -> None:
        super().__init__()
        self.grid = grid
        self.embedding = nn.Conv2d(channels, embedding, grid, bias=False) if embedding else None
        self.register_buffer("centre", torch.zeros(embedding or channels))
        for name in ("radius", "spread"):
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("centred", torch.zeros((), dtype=torch.bool))
        self.register_buffer("bounds", torch.tensor([0.0, 1.0]))

    def forward(self, feature: Tensor) -> Tensor:
        """f in float32, or float64."""
        if self.embedding is None:
            return at_least_float32(feature).mean(dim=(2, 3))
        require_grid(feature, self.grid)
        return at_least_float32(self.embedding(feature).flatten(1))

    def shares(self, feature: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D, h, w), whose mean over positions is f."""
        if self.embedding is None:
            return feature
        require_grid(feature, self.grid)
        positions = self.grid[0] * self.grid[1]
        return positions * torch.einsum("bchw,dchw->bdhw", feature, self.embedding.weight)


class ContrastNormalised(Representation):
    """An encoder that is shown images after global contrast normalisation, brought to [0, 1] by the bounds
    (2,) of the good images.

    Within a fitted detector only; no file holds it."""

    bounds: Tensor

    def __init__(self, encoder: Representation, bounds: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("bounds", bounds)
        self.channels, self.strides = encoder.channels, encoder.strides
        self.card = {**encoder.card, "kind": "contrast_normalised"}

    def forward(self, images: Tensor) -> FeatureMaps:
        """Images (B, 3, H, W) in [0, 1]."""
        return self.encoder(normalised(images, self.bounds))

    def for_inference(self, dtype: torch.dtype, device: torch.device) -> Representation:
        """The encoder as its kind bears it."""
        return ContrastNormalised(self.encoder.for_inference(dtype, device), self.bounds.to(device)).eval()


def normalised(images: Tensor, bounds: Tensor) -> Tensor:
    """Global contrast normalisation, and then from bounds (2,) to (0, 1).

    >>> image = torch.tensor([0.25, 0.75]).reshape(1, 1, 1, 2)
    >>> normalised(image, torch.tensor([-1.0, 3.0])).flatten()
    tensor([0.0000, 0.5000])
    """
    low, high = bounds
    return (global_contrast(images) - low) / (high - low).clamp_min(1e-8)


@dataclass(frozen=True)
class SvddRules:
    """pretraining: steps of the auto-encoder before. nu, warm_up: of the soft boundary, None for the
    one-class objective; warm_up: share of the steps without a radius. least_centre: see `moved_from_zero`.
    contrast: whether images are contrast-normalised. frozen_norms: whether batch norms keep their
    statistics."""

    pretraining: int
    nu: float | None
    warm_up: float
    least_centre: float
    contrast: bool
    frozen_norms: bool
    learning_rate: float
    weight_decay: float


class SvddObjective(Objective):
    """Auto-encoder steps, then mean |f - c|^2, or R^2 + mean max(0, |f - c|^2 - R^2) / nu.

    network: `encoder` and an SvddHead. decoder: f -> image, None without pretraining. images: a function that
    goes through all good images in batches (B, 3, H, W), for the centre; no bound method, for a trial copies
    the objective."""

    def __init__(
        self,
        network: Any,
        rules: SvddRules,
        decoder: ImageDecoder | None,
        images: Callable[[], Iterator[Tensor]],
    ) -> None:
        super().__init__()
        self.network, self.decoder = network, decoder
        self._rules, self._images = rules, images
        self._optimiser: torch.optim.Optimizer | None = None
        self._distances: Tensor | None = None
        if rules.contrast:
            self._set_bounds()

    @property
    def head(self) -> SvddHead:
        """That of the network."""
        head: SvddHead = self.network.head
        return head

    def train(self, mode: bool = True) -> SvddObjective:
        """Training mode, but for batch norms that keep their statistics."""
        super().train(mode)
        if self._rules.frozen_norms:
            self.network.encoder.eval()
        return self

    def prepare(self, batch: dict[str, Tensor], position: Position) -> tuple[Tensor, bool]:
        """Images as the encoder gets them, and whether this is a step of the auto-encoder. Sets the centre
        before the first other step."""
        pretrains = position.step < self._rules.pretraining
        if not pretrains and not bool(self.head.centred):
            self._set_centre()
        return self._shown(batch["images"]), pretrains

    def loss(self, batch: tuple[Tensor, bool]) -> dict[str, Tensor]:
        """ "spread": total variance of f within the batch; "radius": R."""
        images, pretrains = batch
        f = self.head(self.network.encoder(images)[-1])
        spread = f.detach().var(dim=0, correction=0).sum()
        shown = {"spread": spread, "radius": self.head.radius.detach().clone()}
        if pretrains:
            assert self.decoder is not None  # there is one where there are such steps
            rebuilt = self.decoder(f, (int(images.shape[2]), int(images.shape[3])))
            return {"loss": functional.mse_loss(rebuilt.to(images.dtype), images), **shown}
        distances = (f - self.head.centre).square().sum(dim=1)
        self._distances = distances.detach()
        return {"loss": sphere_loss(distances, self.head.radius, self._rules.nu), **shown}

    def optimiser(self) -> torch.optim.Optimizer:
        """Adam."""
        self._optimiser = torch.optim.Adam(
            self.parameters(), lr=self._rules.learning_rate, weight_decay=self._rules.weight_decay
        )
        return self._optimiser

    def lr_scale(self, step: int, steps: int) -> float:
        """A tenth after the milestone of either phase."""
        first = self._rules.pretraining
        if step < first:
            return multistep(step, first, milestones=(PRETRAINING_MILESTONE,))
        return multistep(step - first, steps - first, milestones=(MILESTONE,))

    def after_step(self, step: int, steps: int) -> None:
        """A new optimiser after the auto-encoder; R, after the warm-up, from the distances of this step."""
        first = self._rules.pretraining
        if step + 1 == first and self._optimiser is not None:
            self._optimiser.state.clear()
        warm = step - first >= self._rules.warm_up * (steps - first)
        if self._rules.nu is not None and step >= first and warm and self._distances is not None:
            self.head.radius.copy_(radius_of(self._distances, self._rules.nu))

    def _shown(self, images: Tensor) -> Tensor:
        return normalised(images, self.head.bounds) if self._rules.contrast else images

    @torch.no_grad()
    def _set_bounds(self) -> None:
        """Least and largest value of all good images, so that most of [0, 1] is used."""
        ends = [torch.stack(torch.aminmax(global_contrast(part))) for part in self._images()]
        low, high = torch.stack(ends).T
        self.head.bounds.copy_(torch.stack([low.min(), high.max()]))

    @torch.no_grad()
    def _set_centre(self) -> None:
        """c: the mean of f over all good images, in evaluation mode, moved away from 0."""
        self.eval()
        device = self.head.centre.device
        outputs = [
            self.head(self.network.encoder(self._shown(part.to(device)))[-1]) for part in self._images()
        ]
        self.train()
        f = torch.cat(outputs).double()
        self.head.centre.copy_(moved_from_zero(f.mean(dim=0), self._rules.least_centre))
        self.head.spread.copy_(f.var(dim=0, correction=0).sum())
        self.head.centred.fill_(True)


def sphere_loss(distances: Tensor, radius: Tensor, nu: float | None) -> Tensor:
    """Squared distances (B,) from the centre -> their mean (nu None), or the soft boundary's loss.

    >>> far = torch.tensor([1.0, 9.0])
    >>> sphere_loss(far, torch.tensor(2.0), None), sphere_loss(far, torch.tensor(2.0), 0.5)
    (tensor(5.), tensor(9.))
    """
    if nu is None:
        return distances.mean()
    return radius.square() + functional.relu(distances - radius.square()).mean() / nu


def radius_of(distances: Tensor, nu: float) -> Tensor:
    """The (1 - nu)-quantile of the distances, given squared (B,): a share nu of them lies outside.

    >>> radius_of(torch.tensor([1.0, 4.0, 9.0]), 0.5)
    tensor(2.)
    """
    return torch.quantile(distances.sqrt(), 1 - nu)


def moved_from_zero(centre: Tensor, least: float) -> Tensor:
    """Components nearer to 0 than `least` become +-least: one at 0 could be met by zero weights.

    >>> moved_from_zero(torch.tensor([-0.02, 0.0, 0.5]), 0.1)
    tensor([-0.1000,  0.1000,  0.5000])
    """
    sign = torch.where(centre < 0, -1.0, 1.0).to(centre)
    return torch.where(centre.abs() < least, least * sign, centre)
