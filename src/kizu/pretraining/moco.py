"""MoCo: a query must find its key, made by a slowly moving encoder, among a queue of keys of earlier
images.

Card. Papers: He, Fan, Wu, Xie and Girshick, Momentum Contrast, CVPR 2020 (v1); Chen, Fan, Girshick and He,
Improved Baselines with Momentum Contrastive Learning, 2020 (v2). Code: facebookresearch/moco (CC BY-NC);
nothing of it is used. Constants: queue 65,536 x 128, key momentum 0.999, SGD 0.03 x batch / 256, momentum
0.9, weight decay 1e-4, batch 256. v1: one linear layer, temperature 0.07, rate / 10 at 120 and 160 of 200
epochs, views without blur. v2 (default: the usual release; SPD's paper says only "MoCo"): two layers,
temperature 0.2, cosine, views of v2. On several processes the keys' batches are shuffled between them
(section 3.3, shuffling BN). With spd=True: SPD, all three of its views through the query encoder; see
pretraining.md in docs/methods."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from kizu.errors import UnknownName, UsageError
from kizu.losses.info_nce import info_nce
from kizu.pretraining.base import Difference, Pretraining, follow
from kizu.training import Position, cosine, gather, rank_and_world, steps_down

VERSIONS = ("v1", "v2")


class MoCo(Pretraining):
    """InfoNCE against a queue (Eq. 1), the key encoder a moving average of the query encoder (Eq. 2).

    version: "v1" or "v2"; temperature None is the version's. queue: keys kept, a multiple of batch_size.
    momentum: of the average."""

    queue_keys: Tensor
    place: Tensor

    def __init__(
        self,
        *,
        backbone: str = "resnet50",
        stages: int = 4,
        size: int = 224,
        batch_size: int = 256,
        seed: int = 0,
        spd: bool = False,
        eta: float = 0.1,
        perturbation: str = "smooth_blend",
        spd_loss: str = "cosine",
        spd_anchor: str = "view",
        spd_share: float = 1.0,
        spd_forward: str = "joint",
        version: str = "v2",
        queue: int = 65536,
        dimensions: int = 128,
        momentum: float = 0.999,
        temperature: float | None = None,
        learning_rate: float = 0.03,
        weight_decay: float = 1e-4,
    ) -> None:
        if version not in VERSIONS:
            raise UnknownName("version of MoCo", version, VERSIONS)
        if queue < batch_size or queue % batch_size:
            raise UsageError(f"queue is a multiple of batch_size ({batch_size}), got {queue}.")
        self.version, self.queue, self.dimensions, self.momentum = version, queue, dimensions, momentum
        self.temperature = temperature if temperature is not None else (0.07 if version == "v1" else 0.2)
        self.learning_rate, self.weight_decay, self.recipe = learning_rate, weight_decay, f"moco_{version}"
        difference = (
            Difference(eta, perturbation, spd_loss, spd_anchor, spd_share, spd_forward) if spd else None
        )
        super().__init__(
            backbone=backbone, stages=stages, size=size, batch_size=batch_size, seed=seed, spd=difference
        )

    def build(self) -> None:
        """Heads, the key encoder and the queue, of random unit keys."""
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
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self._fresh: list[Tensor] = []

    def encoder_replaced(self) -> None:
        """The moving copy begins where the encoder does."""
        self.key_encoder.load_state_dict(self.encoder.state_dict())

    def check_data(self, count: int | None, classes: int) -> None:
        """Raise UsageError when the queue would hold an image's own keys as its negatives."""
        super().check_data(count, classes)
        if count is not None and count < self.queue + self.batch_size:
            raise UsageError(
                f"The queue of {self.queue} keys and a batch of {self.batch_size} need as many images, "
                f"there are {count}: "
                f"give --set queue={max((count // self.batch_size - 1) * self.batch_size, self.batch_size)} "
                "or less, or more images."
            )

    def embed(self, feature: Tensor) -> Tensor:
        """The query projector's output (B, dimensions)."""
        return self.projector(feature)

    def prepare(self, batch: tuple[Tensor, Tensor], position: Position) -> dict[str, Tensor]:
        """The views, and the order in which the keys are shuffled between processes."""
        made = super().prepare(batch, position)
        world = rank_and_world()[1]
        if world > 1:
            order = torch.randperm(
                world * position.count, generator=torch.Generator().manual_seed(position.step)
            )
            made["order"] = order.to(made["labels"].device)
        return made

    def method(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Eq. 1: query of view 1 against its key of view 2 and the queue."""
        query = self.embed(self.encoder(batch["view1"]))
        with torch.no_grad():
            key = self._keys(batch["view2"], batch.get("order"))
        self._fresh.append(gather(key))
        # a copy: the queue moves on before the gradient of an accumulated part is used
        return {"loss": info_nce(query, key, self.queue_keys.clone(), temperature=self.temperature)}, query

    def _keys(self, images: Tensor, order: Tensor | None) -> Tensor:
        """Unit keys (B, dimensions); on several processes each batch of the key encoder is a mixture of all."""
        if order is None:
            return nn.functional.normalize(self.key_projector(self.key_encoder(images)).float(), dim=1)
        rank, world = rank_and_world()
        mine = order.view(world, -1)[rank]
        mixed = gather(images)[mine].contiguous(memory_format=torch.channels_last)
        keys = gather(nn.functional.normalize(self.key_projector(self.key_encoder(mixed)).float(), dim=1))
        return keys[order.argsort().view(world, -1)[rank]]

    @torch.no_grad()
    def after_step(self, step: int, steps: int) -> None:
        """Move the key encoder (Eq. 2) and put the step's keys into the queue, the oldest leave."""
        for keys in self._fresh:
            where = (self.place + torch.arange(len(keys), device=keys.device)) % self.queue
            self.queue_keys[where] = keys.to(self.queue_keys.dtype)
            self.place.add_(len(keys)).remainder_(self.queue)
        self._fresh.clear()
        follow(self.key_encoder, self.encoder, 1.0 - self.momentum)
        follow(self.key_projector, self.projector, 1.0 - self.momentum)

    def optimiser(self) -> torch.optim.Optimizer:
        """SGD."""
        return torch.optim.SGD(
            self.groups(self.weight_decay), lr=self.learning_rate * self.batch_size / 256, momentum=0.9
        )

    def factor(self, step: int, steps: int) -> float:
        """v1: / 10 at 60 % and 80 %; v2: half a cosine."""
        return steps_down(step, steps, at=(0.6, 0.8)) if self.version == "v1" else cosine(step, steps)
