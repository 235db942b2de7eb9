"""The network that reverse distillation and ReContrast train: one-class bottleneck, mirrored decoder, twin
projections if asked for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kizu.nn.decoders import MirroredDecoder, TwinProjections
from kizu.nn.mirror import DecoderSpec
from kizu.nn.one_class import OneClassEmbedding
from kizu.nn.residual import initialise_like_resnet
from kizu.types import FeatureMaps


class Rebuilder(nn.Module):
    """Features -> features rebuilt from a compact embedding of them.

    twin: with the projections of ReContrast, for `cross_reconstruct`. blocks, width: see MirroredDecoder.
    Weights are drawn from `seed` alone; None leaves them undefined, for loading."""

    def __init__(
        self,
        plan: DecoderSpec,
        *,
        twin: bool,
        blocks: str = "code",
        width: int | None = None,
        seed: int | None = 0,
    ) -> None:
        super().__init__()
        with torch.device("meta"):  # torch's own draws would cost time and touch the global generator
            self.embedding = OneClassEmbedding(plan, width)
            self.decoder = MirroredDecoder(plan, blocks=blocks, width=width)
            self.projections = TwinProjections(plan.channels) if twin else None
        self.to_empty(device=torch.get_default_device())
        if seed is not None:
            initialise_like_resnet(self, torch.Generator().manual_seed(seed))

    def forward(self, features: FeatureMaps) -> FeatureMaps:
        """[(B, C_l, h_l, w_l)] -> the same shapes."""
        rebuilt: FeatureMaps = self.decoder(self.embedding(features), features)
        return rebuilt

    def cross_reconstruct(self, trained: FeatureMaps, frozen: FeatureMaps) -> tuple[FeatureMaps, FeatureMaps]:
        """(frozen features rebuilt from the trained, trained ones rebuilt from the frozen).

        Both go through in one batch of 2B, so that batch norms see both domains (appendix C's released code).
        """
        if self.projections is None:
            raise RuntimeError("A Rebuilder without twin projections rebuilds one encoder's features only.")
        both = [torch.cat(pair) for pair in zip(trained, frozen, strict=True)]
        first, second = self.projections(self(both))
        return first, second


def smallest_grid(features: list[Tensor]) -> int:
    """Positions of the one-class embedding of one image: ceil(h_L / 2) * ceil(w_L / 2)."""
    height, width = features[-1].shape[2:]
    return -(-height // 2) * (-(-width // 2))
