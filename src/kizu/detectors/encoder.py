"""Detectors that train a copy of the representation itself: what they share.

    images -> objective(encoder + head) -> trained encoder -> features -> what is computed from them -> scorer

A member writes `head()`, `objective(network)`, `scorer()`, and `_complete(samples)` where something, a
density or a bank, is computed from the features of the good images after training."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from kizu import engine
from kizu.detectors.learned import LearnedDetector
from kizu.nn.density import pool
from kizu.representations.base import Representation
from kizu.representations.trainable import trainable_copy
from kizu.training import SampleStore


class EncoderNetwork(nn.Module):
    """What is trained: `encoder`, a copy of the representation, and `head` after it."""

    def __init__(self, encoder: Representation, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head


class EncoderDetector(LearnedDetector):
    """Base of the detectors whose encoder learns. The representation that was given stays as it is."""

    trains_on: ClassVar[Literal["features", "images"]] = "images"
    preferred_levels: ClassVar[tuple[int, ...]] = (4,)
    network_: Any

    @abstractmethod
    def head(self) -> nn.Module:
        """What is trained beside the encoder; called with torch's generator seeded by `seed`."""

    def network(self) -> EncoderNetwork:
        """A copy of the representation, and the head drawn from `seed`."""
        encoder = trainable_copy(self.representation_)
        with engine.seeded(self.seed):
            return EncoderNetwork(encoder, self.head())

    def _scoring_representation(self) -> Representation:
        """The trained encoder."""
        return self.network_.encoder

    def _pooled_features(self, samples: SampleStore) -> Tensor:
        """(n, sum C_l) float64 on the CPU: the trained encoder's features of all samples, averaged over
        positions."""
        rows = [pool(self._features(batch))[0].double().cpu() for batch in samples.batches(self.batch_size)]
        return torch.cat(rows)
