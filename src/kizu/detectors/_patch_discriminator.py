"""The network that SimpleNet and GLASS train: an adapter of patch features, and a discriminator of these."""

from __future__ import annotations

from torch import Tensor, nn

from kizu.nn.patches import patch_features
from kizu.types import FeatureMaps


class Network(nn.Module):
    """Patch features (N, D) -> how good they look (SimpleNet) or how anomalous (GLASS), (N,): a discriminator
    of adapted features.

    D: width of a patch feature. hidden: width of the discriminator. neighbourhood, dimensions: of the patches
    (kizu.nn.patches.patch_features). adapts: whether there is an adapter, or features stay as they are."""

    def __init__(
        self, D: int, hidden: int, neighbourhood: int, *, dimensions: int | None = None, adapts: bool = True
    ) -> None:
        super().__init__()
        self.neighbourhood, self.dimensions = neighbourhood, dimensions
        self.adapter: nn.Module = nn.Linear(D, D) if adapts else nn.Identity()
        self.discriminator = nn.Sequential(
            nn.Linear(D, hidden),
            nn.BatchNorm1d(hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1, bias=False),
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)

    def patches(self, features: FeatureMaps) -> Tensor:
        """[(B, C_l, h_l, w_l)] -> (B, D, h, w) on the finest grid (SimpleNet, section 3.1)."""
        return patch_features(features, self.neighbourhood, self.dimensions)

    def discriminate(self, adapted: Tensor) -> Tensor:
        """D(q), (N,) of adapted features (N, D)."""
        decided: Tensor = self.discriminator(adapted)
        return decided[:, 0]
