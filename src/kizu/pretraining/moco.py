"""MoCo: a query must find its key, which a slowly moving encoder computes, among a queue of keys of earlier
images.

Card. Papers: He, Fan, Wu, Xie and Girshick, Momentum Contrast, CVPR 2020 (v1); Chen, Fan, Girshick and He,
Improved Baselines with Momentum Contrastive Learning, 2020 (v2). Code: facebookresearch/moco (CC BY-NC);
nothing of it is used. Constants: queue 65,536 x 128, key momentum 0.999, SGD 0.03 x batch / 256, momentum
0.9, weight decay 1e-4, batch 256. v1: one linear layer, temperature 0.07, rate / 10 at 120 and 160 of 200
epochs, views without blur. v2 (default: the usual release; SPD's paper says only "MoCo"): two layers,
temperature 0.2, cosine, views of v2. With several processes, the batches of the key encoder are shuffled
between them (section 3.3, shuffling BN), and batch norms keep the statistics of their process: shared ones
would tell a query its key. With SPD, all three of its views pass the query encoder; see
docs/methods/pretraining.md."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from kizu.checks import numbers, whole_numbers
from kizu.errors import UnknownName, UsageError
from kizu.losses.info_nce import info_nce
from kizu.nn.ema import ema_update
from kizu.pretraining.base import Pretraining
from kizu.training import Position, cosine_schedule, gather, multistep, rank_and_world

TEMPERATURES = {"v1": 0.07, "v2": 0.2}
"""Version -> its temperature."""


@dataclass(kw_only=True, eq=False, repr=False)
class MoCo(Pretraining):
    """InfoNCE against a queue (Eq. 1); the key encoder is a moving average of the query encoder (Eq. 2).

    version: "v1" or "v2". queue: keys that are kept, a multiple of batch_size. dimensions: width of the
    projector's output. momentum: of the average. temperature: of InfoNCE; None is that of the version. The
    other parameters: see `kizu.pretraining.base.Pretraining`."""

    learning_rate: float = 0.03
    version: str = "v2"
    queue: int = 65536
    dimensions: int = 128
    momentum: float = 0.999
    temperature: float | None = None

    sync_batch_norm: ClassVar[bool] = False
    queue_keys: Tensor = field(init=False)
    queue_position: Tensor = field(init=False)

    def check_parameters(self) -> None:
        """Raise UsageError, UnknownName for a value out of range."""
        super().check_parameters()
        if self.version not in TEMPERATURES:
            raise UnknownName("version of MoCo", str(self.version), TEMPERATURES)
        whole_numbers(queue=self.queue, dimensions=self.dimensions)
        if self.queue % self.batch_size:
            raise UsageError(f"queue is a multiple of batch_size ({self.batch_size}), got {self.queue}.")
        numbers(least=0, most=1, momentum=self.momentum)
        if self.temperature is not None:
            numbers(least=0, above=True, temperature=self.temperature)
        self.augmentation = f"moco_{self.version}"

    def build(self) -> None:
        """Create the heads, the key encoder and the queue, filled with random unit keys."""
        from lightly.models.modules.heads import MoCoProjectionHead

        if self.version == "v1":
            self.projector: nn.Module = nn.Linear(self.width, self.dimensions)
        else:
            self.projector = MoCoProjectionHead(self.width, self.width, self.dimensions)
        self.key_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.key_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.register_buffer(
            "queue_keys", nn.functional.normalize(torch.randn(self.queue, self.dimensions), dim=1)
        )
        self.register_buffer("queue_position", torch.zeros((), dtype=torch.int64))
        self._fresh: list[Tensor] = []

    def on_encoder_loaded(self) -> None:
        """The key encoder starts from the same weights."""
        self.key_encoder.load_state_dict(self.encoder.state_dict())

    def check_data(self, count: int | None, classes: int) -> None:
        """Raise UsageError when the queue would hold keys of an image among its negatives."""
        super().check_data(count, classes)
        if count is not None and count < self.queue + self.batch_size:
            largest = max((count // self.batch_size - 1) * self.batch_size, self.batch_size)
            raise UsageError(
                f"The queue of {self.queue} keys and a batch of {self.batch_size} need as many images, "
                f"there are {count}: give --set queue={largest} or less, or more images."
            )

    def project(self, feature: Tensor) -> Tensor:
        """The query projector's output (B, dimensions)."""
        return self.projector(feature)

    def prepare(self, batch: tuple[Tensor, Tensor], position: Position) -> dict[str, Tensor]:
        """The views, and the order in which the keys are shuffled between processes."""
        views = super().prepare(batch, position)
        world = rank_and_world()[1]
        if world > 1:
            order = torch.randperm(
                world * position.count, generator=torch.Generator().manual_seed(position.step)
            )
            views["order"] = order.to(views["labels"].device)
        return views

    def ssl_loss(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Eq. 1: query of view 1 against its key of view 2 and the queue."""
        query = self.project(self.encoder(batch["view1"]))
        with torch.no_grad():
            key = self._keys(batch["view2"], batch.get("order"))
        self._fresh.append(gather(key))
        temperature = self.temperature or TEMPERATURES[self.version]
        # a copy: the queue moves on before the gradient of an accumulated part is used
        loss = info_nce(query, key, self.queue_keys.clone(), temperature=temperature)
        return {"loss": loss}, query

    def _keys(self, images: Tensor, order: Tensor | None) -> Tensor:
        """Unit keys (B, dimensions). With several processes, each batch of the key encoder mixes images of
        all."""
        if order is None:
            return nn.functional.normalize(self.key_projector(self.key_encoder(images)).float(), dim=1)
        rank, world = rank_and_world()
        mixed = gather(images)[order.view(world, -1)[rank]].contiguous(memory_format=torch.channels_last)
        keys = gather(nn.functional.normalize(self.key_projector(self.key_encoder(mixed)).float(), dim=1))
        return keys[order.argsort().view(world, -1)[rank]]

    @torch.no_grad()
    def after_step(self, step: int, steps: int) -> None:
        """Replace the oldest keys of the queue by those of this step, then move the key encoder (Eq. 2)."""
        for keys in self._fresh:
            rows = (self.queue_position + torch.arange(len(keys), device=keys.device)) % self.queue
            self.queue_keys[rows] = keys.to(self.queue_keys.dtype)
            self.queue_position.add_(len(keys)).remainder_(self.queue)
        self._fresh.clear()
        ema_update(self.key_encoder, self.encoder, 1.0 - self.momentum)
        ema_update(self.key_projector, self.projector, 1.0 - self.momentum)

    def optimiser(self) -> torch.optim.Optimizer:
        """SGD."""
        return torch.optim.SGD(self.parameter_groups(), lr=self.scaled_rate, momentum=0.9)

    def lr_scale(self, step: int, steps: int) -> float:
        """v1: / 10 at 60 % and 80 %; v2: half a cosine."""
        if self.version == "v1":
            return multistep(step, steps, milestones=(0.6, 0.8))
        return cosine_schedule(step, steps)
