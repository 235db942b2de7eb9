"""How TDG's pyramids are trained: one scale after the other, discriminator and generator in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kizu.nn.patch_pyramid import PatchPyramid, resized
from kizu.nn.transformations import Transformation, every_one
from kizu.training import Objective, Position

SHIFT = 0.15
"""Of the side, of the transformations that shift."""
BETAS = (0.5, 0.999)
DECAY, DECAY_AFTER = 0.1, 0.5
"""The discriminator's rate falls tenfold halfway through a scale: step 500 of 1,000 in the released code."""


@dataclass(frozen=True)
class Place:
    """Where a step lies: in which scale, whose turn it is, and how much of the scale's steps are over."""

    scale: int
    discriminates: bool
    share: float


def place_of(step: int, steps: int, scales: int, turns: int) -> Place:
    """Step `step` (from 0) of `steps`, shared evenly among the scales; the discriminator has `turns` steps,
    then the generator, and so on.

    >>> [(place.scale, place.discriminates) for place in (place_of(step, 8, 2, 2) for step in range(5))]
    [(0, True), (0, True), (0, False), (0, False), (1, True)]
    """
    scale = step * scales // steps
    first, following = (-(-n * steps // scales) for n in (scale, scale + 1))
    within = step - first
    return Place(scale, within % (2 * turns) < turns, within / (following - first))


class TDGObjective(Objective):
    """D: cross-entropy of real patches with their transformation, of generated ones with the class "fake".
    G: cross-entropy of generated patches with their transformation + reconstruction * MSE(G(fixed), image).

    network: a ModuleList of PatchPyramids; image number n trains pyramid n mod their number. steps: of the
    whole run. turns: steps of each side in turn. noise: strength of the noise, times what is missing. rate:
    of Adam. seed: of the noise. The side whose turn it is not has no gradient at all: Adam then leaves its
    moments alone as well."""

    def __init__(
        self,
        network: nn.Module,
        *,
        transforms: tuple[Transformation, ...],
        steps: int,
        turns: int,
        reconstruction: float,
        noise: float,
        rate: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.network: Any = network
        self.size = list(self._pyramids[0].sizes)
        self._transforms, self._steps, self._turns = transforms, steps, turns
        self._reconstruction, self._noise, self._rate, self._seed = reconstruction, noise, rate, seed

    @property
    def _pyramids(self) -> list[PatchPyramid]:
        return list(self.network)

    def place(self, step: int) -> Place:
        """Where a step lies."""
        return place_of(step, self._steps, len(self.size), self._turns)

    def prepare(self, batch: dict[str, Any], position: Position) -> dict[str, Any]:
        """Each training image once, at its scale, with what the trained scales below make of noise."""
        place = self.place(position.step)
        numbers: list[int] = batch["numbers"].tolist()
        chosen = sorted({number: row for row, number in enumerate(numbers)}.items())
        generator = position.generators(self._seed)[0]
        groups = []
        for index, pyramid in enumerate(self._pyramids):
            _set_modes(pyramid, place.scale)
            own = [(number, row) for number, row in chosen if number % len(self._pyramids) == index]
            if own:
                images = batch["images"][[row for _, row in own]]
                plane = torch.tensor([number // len(self._pyramids) for number, _ in own])
                group = self._inputs(pyramid, images, plane.to(images.device), place.scale, generator)
                groups.append({"pyramid": index, **group})
        return {"scale": place.scale, "discriminates": place.discriminates, "groups": groups}

    def _inputs(
        self, pyramid: PatchPyramid, images: Tensor, numbers: Tensor, n: int, generator: torch.Generator
    ) -> dict[str, Any]:
        reals = scaled(images, pyramid.sizes[: n + 1], pyramid.sizes[-1])
        rebuilt, strengths = pyramid.reconstruct(reals, numbers, n, self._noise)
        previous, noise = pyramid.draw(strengths, numbers, n, generator)
        fixed = strengths[n] * pyramid[n].fixed
        known = {"real": reals[n], "numbers": numbers, "previous": previous, "noise": noise}
        return {**known, "rebuilt": rebuilt, "fixed": fixed}

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The side whose turn it is. "good" and "fake" are the discriminator's cross-entropies, "fooled" and
        "missing" the generator's terms; 0 where they have no part."""
        terms = []
        for pyramid in self._pyramids:
            _choose_side(pyramid, batch["scale"], discriminates=batch["discriminates"])
        for group in batch["groups"]:
            scale = self._pyramids[group["pyramid"]][batch["scale"]]
            side = self._discriminator_terms if batch["discriminates"] else self._generator_terms
            terms.append(side(scale, group))
        named = ("good", "fake") if batch["discriminates"] else ("fooled", "missing")
        sums = dict(zip(named, torch.stack(terms).sum(0), strict=True))
        zero = torch.zeros((), device=terms[0].device)
        logged = {name: sums[name].detach() if name in sums else zero for name in LOGGED}
        return {"loss": torch.stack(list(sums.values())).sum(), **logged}

    def _discriminator_terms(self, scale: Any, group: dict[str, Any]) -> Tensor:
        with torch.no_grad():
            fakes = scale.generate(group["noise"], group["previous"], group["numbers"])
        good = self._cross_entropy(scale, group["real"])
        return torch.stack([good, self._cross_entropy(scale, fakes, fake=True)])

    def _generator_terms(self, scale: Any, group: dict[str, Any]) -> Tensor:
        fakes = scale.generate(group["noise"], group["previous"], group["numbers"])
        rebuilt = scale.generate(group["fixed"], group["rebuilt"], group["numbers"])
        missing = (rebuilt.float() - group["real"].float()).square().mean()
        return torch.stack([self._cross_entropy(scale, fakes), self._reconstruction * missing])

    def _cross_entropy(self, scale: Any, images: Tensor, *, fake: bool = False) -> Tensor:
        """Mean over the patches of the images under every transformation."""
        logits = scale.discriminator(every_one(images, self._transforms, SHIFT)).float()
        classes = torch.arange(len(self._transforms), device=logits.device)
        truth = torch.full_like(classes, len(classes)) if fake else classes
        rows = truth.repeat_interleave(len(images))[:, None, None]
        return functional.cross_entropy(logits, rows.expand(-1, *logits.shape[2:]))

    def optimiser(self) -> torch.optim.Optimizer:
        """Adam; discriminators and generators are groups of their own."""
        sides: list[list[nn.Parameter]] = [[], []]
        for pyramid in self._pyramids:
            for n in range(len(self.size)):
                sides[0] += pyramid[n].discriminator.parameters()
                sides[1] += pyramid[n].generator.parameters()
        return torch.optim.Adam([{"params": side} for side in sides], lr=self._rate, betas=BETAS)

    def lr_scale(self, step: int, steps: int) -> list[float]:
        """Of discriminators and generators."""
        return [DECAY if self.place(step).share >= DECAY_AFTER else 1.0, 1.0]

    def after_step(self, step: int, steps: int) -> None:
        """A scale that is about to begin takes over the weights of the one below."""
        done, begins = self.place(step).scale, self.place(step + 1).scale if step + 1 < steps else 0
        for pyramid in self._pyramids:
            for n in range(done + 1, begins + 1):
                pyramid[n].continue_from(pyramid[n - 1])


LOGGED = ("good", "fake", "fooled", "missing")


def scaled(images: Tensor, sizes: list[tuple[int, int]], top: tuple[int, int]) -> list[Tensor]:
    """Images (B, 3, H, W) in [0, 1] -> the same in [-1, 1] at every size, made from the size `top`."""
    finest = resized(images, top) * 2 - 1
    return [resized(finest, size) for size in sizes]


def _set_modes(pyramid: PatchPyramid, n: int) -> None:
    """Scale n is in training, those below are what they have become."""
    for below in range(n):
        pyramid[below].eval()
    pyramid[n].train()


def _choose_side(pyramid: PatchPyramid, n: int, *, discriminates: bool) -> None:
    """Only one network of one scale gets gradients."""
    pyramid.requires_grad_(False)
    side = pyramid[n].discriminator if discriminates else pyramid[n].generator
    side.requires_grad_(True)
