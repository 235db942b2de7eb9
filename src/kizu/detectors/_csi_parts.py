"""What CSI trains beside its encoder, what it minimises and how it scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kizu import maps
from kizu.detectors._image_encoder import ImageEncoder
from kizu.losses import nt_xent
from kizu.nn.density import pool
from kizu.nn.floats import at_least_float32
from kizu.nn.patches import align_levels, finest_centre
from kizu.nn.transformations import require_square
from kizu.training import Objective, Position, cosine_schedule
from kizu.types import Centres, FeatureMaps
from kizu.views import strong

DUPLICATES = ("mask", "negatives")
TURNS = 4
WARMUP = 0.01
"""Fraction of the run: 10 of 1,000 epochs."""


class CSIHead(nn.Module):
    """Pooled features (..., D) -> projection (..., d) and logits of the turn (..., 4)."""

    def __init__(self, D: int, dimensions: int) -> None:
        super().__init__()
        self.projection = nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Linear(D, dimensions))
        self.turn = nn.Linear(D, TURNS)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Projections are not normalised: their length is part of the score."""
        return self.projection(pooled), self.turn(pooled)


class CSIObjective(Objective):
    """NT-Xent over two views of every image in every turn, 8 B views, plus cross-entropy of the turn.

    network: an EncoderNetwork. mask_duplicates: whether views of the same image, twice in the batch, in the
    same turn are no negatives. Views are drawn from `seed` and the position in the run."""

    def __init__(
        self,
        network: Any,
        *,
        temperature: float,
        mask_duplicates: bool,
        rate: float,
        weight_decay: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.network = network
        self._temperature, self._mask = temperature, mask_duplicates
        self._rate, self._weight_decay, self._seed = rate, weight_decay, seed

    def prepare(self, batch: dict[str, Any], position: Position) -> tuple[Tensor, Tensor]:
        """(views (8 B, 3, H, H), groups (4 B,)): the first views of all images in each turn, then the second;
        equal groups are the same image in the same turn."""
        images, generators = batch["images"], position.generators(self._seed)
        views = [
            strong(torch.rot90(images, turn, (2, 3)), generator=generators, recipe="csi")
            for _ in range(2)
            for turn in range(TURNS)
        ]
        _, image = torch.unique(images.flatten(1), dim=0, return_inverse=True)
        turns = torch.arange(TURNS, device=image.device)[:, None]
        return torch.cat(views), (image[None] * TURNS + turns).flatten()

    def loss(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The sum, and both parts; "correct" is the share of turns that were recognised."""
        views, groups = batch
        projected, logits = self.network.head(pool(self.network.encoder(views))[0])
        logits = at_least_float32(logits)
        first, second = projected.chunk(2)
        contrast = nt_xent(
            first, second, temperature=self._temperature, groups=groups if self._mask else None
        )
        turns = torch.arange(TURNS, device=groups.device).repeat_interleave(len(groups) // TURNS).repeat(2)
        shift = functional.cross_entropy(logits, turns)
        correct = (logits.detach().argmax(1) == turns).float().mean()
        parts = {"contrast": contrast.detach(), "shift": shift.detach()}
        return {"loss": contrast + shift, **parts, "correct": correct}

    def optimiser(self) -> torch.optim.Optimizer:
        """LARS."""
        from lightly.utils.lars import LARS

        return LARS(self.network.parameters(), lr=self._rate, momentum=0.9, weight_decay=self._weight_decay)

    def lr_scale(self, step: int, steps: int) -> float:
        """Linear warm-up, then half a cosine."""
        return cosine_schedule(step, steps, warmup=int(WARMUP * steps))


class CSIScorer(nn.Module):
    """[images (B, 3, H, H)] -> (map (B, H, H), score (B,)).

    bank: (4, n, d) of unit length. weights: (2, 4), of inner products and of logits in each turn. copies:
    augmented looks whose projections and logits are averaged; every image gets the same draws."""

    bank: Tensor
    weights: Tensor

    def __init__(
        self,
        encoder: ImageEncoder,
        head: CSIHead,
        bank: Tensor,
        weights: Tensor,
        *,
        copies: int,
        seed: int,
        sigma: float,
        centres: Centres | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.head, self.copies, self.seed = encoder, head, copies, seed
        self.sigma, self.centres = sigma, centres
        self.register_buffer("bank", bank)
        self.register_buffer("weights", weights)

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Higher is more anomalous. Raises ShapeError for images that are not square."""
        images = features[-1]
        require_square(size)
        projected, logits = self.look(images)
        score = sum(self._strange(projected[turn], logits[turn], turn) for turn in range(TURNS))
        assert isinstance(score, Tensor)
        return maps.upsample(self._map(images, size), size, sigma=self.sigma), score / TURNS

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Projections (4, B, d) and logits (4, B, 4) of images in every turn, the mean of all copies."""
        total: list[tuple[Tensor, Tensor]] = []
        for number in range(max(self.copies, 1)):
            seeds = [torch.Generator().manual_seed(_seed(self.seed, number)) for _ in images]
            for turn in range(TURNS):
                view = torch.rot90(images, turn, (2, 3))
                if self.copies:
                    view = strong(view, generator=seeds, recipe="csi_fixed")
                total.append(self.head(pool(self.encoder(view))[0]))
        projected, logits = (
            torch.stack(every).unflatten(0, (-1, TURNS)).mean(0) for every in zip(*total, strict=True)
        )
        return projected, logits

    def _map(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, H, H): every position scored by its own feature, images as they are."""
        total = torch.zeros(len(images), *size, device=images.device)
        for turn in range(TURNS):
            levels = self.encoder(torch.rot90(images, turn, (2, 3)))
            grid = align_levels(levels).permute(0, 2, 3, 1)
            B, h, w, D = grid.shape
            projected, logits = self.head(grid.reshape(-1, D))
            strange = self._strange(projected, logits, turn).reshape(B, h, w)
            wide = maps.upsample(strange, size, sigma=0.0, centre=finest_centre(levels, self.centres))
            total += torch.rot90(wide, -turn, (1, 2))
        return total / TURNS

    def _strange(self, projected: Tensor, logits: Tensor, turn: int) -> Tensor:
        """(N, d), (N, 4) -> (N,)."""
        near = (projected @ self.bank[turn].T).amax(1)
        return -(self.weights[0, turn] * near + self.weights[1, turn] * logits[:, turn])


def _seed(seed: int, number: int) -> int:
    """Of a copy's draws; seeds start far apart, as those of a training's positions."""
    return (seed * 2_654_435_761 + number) % 2**32
