"""What is minimised and how: the contract between a method and the training loop."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kizu.precision import Choice
from kizu.training.prefetch import Position


class Objective(nn.Module):
    """A network with its loss and its optimiser recipe, trained by `kizu.training.train`.

    A subclass writes `loss` and `optimiser`. The other hooks do nothing unless they are overridden. All
    that the training changes must be a parameter or a buffer: then a checkpoint holds it, and a resumed run
    is exact.

    sync_batch_norm: whether batch norms of several processes share their statistics, unless `train` is told.
    """

    sync_batch_norm: ClassVar[bool] = True
    precision_: Choice | None = None
    """In which it is trained, and why; set by `train`."""

    def prepare(self, batch: Any, position: Position) -> Any:
        """A batch of the stream, on the device -> what `loss` takes: views, planted defects.

        Called without gradient and in full precision. Draw random numbers from `position.generators(seed)`
        only.
        """
        return batch

    def loss(self, batch: Any) -> dict[str, Tensor]:
        """Scalars () by name. "loss" is minimised, the others are logged beside it."""
        raise NotImplementedError

    def optimiser(self) -> torch.optim.Optimizer:
        """A new optimiser over the trainable parameters, its learning rates at their base values (per
        step)."""
        raise NotImplementedError

    def lr_scale(self, step: int, steps: int) -> float | list[float]:
        """Factor on the base learning rate in step `step` (from 0) of `steps`: one for all parameter
        groups, or a list with one for each."""
        return 1.0

    def after_step(self, step: int, steps: int) -> dict[str, float] | None:
        """Called after each optimiser step: moving averages, queues, resets. Figures that it returns are
        logged with this step."""

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Same as `loss`, under the name that DistributedDataParallel calls."""
        return self.loss(batch)
