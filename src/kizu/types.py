"""What flows between the rooms, and the glossary of shape letters.

    B images in a batch      C channels             H W  pixels of the detector's input
    h w patches (grid)       L levels               N    patches in a bank
    D feature size           K neighbours or shots  Q    queries
    P pixels or positions    n images in a set      R    ground-truth regions

Images are float32 in [0, 1], RGB, (B, 3, H, W); normalising them is the representation's business.
Scores and maps are raw float32, higher is more anomalous: no sigmoid, clamp or min-max before a metric.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

FeatureMaps: TypeAlias = "list[Tensor]"
"""One (B, C_l, h_l, w_l) tensor per level, finest first."""


@dataclass(frozen=True)
class Batch:
    """Images on their way to a detector. `images` (B, 3, H, W) float32 in [0, 1]; `paths` names each; `rows`
    their row numbers.

    features: the representation's maps of these very images, [(B, C_l, h_l, w_l)] float32, when they are
    known already; a detector then does not compute them again and of `images` only the size counts."""

    images: Tensor
    paths: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    features: list[Tensor] | None = None

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def split(self, size: int) -> list[Batch]:
        """The same images, in order, in batches of at most `size`; views, not copies."""
        parts = [slice(start, start + size) for start in range(0, len(self), size)]
        features = [
            None if self.features is None else [level[part] for level in self.features] for part in parts
        ]
        return [
            Batch(self.images[part], self.paths[part], self.rows[part], known)
            for part, known in zip(parts, features, strict=True)
        ]


@dataclass(frozen=True)
class Prediction:
    """What a detector says of B images.

    map: (B, H, W) float32, higher is more anomalous.   score: (B,) float32, higher is more anomalous.
    p_value: (B,) conformal p-value in (0, 1], or None before calibration.
    is_anomalous: (B,) bool at the promised false-alarm rate, or None before calibration.
    paths: names of the images when they came from disk.   errors: images that could not be read: (path, reason).
    """

    map: Tensor
    score: Tensor
    p_value: Tensor | None = None
    is_anomalous: Tensor | None = None
    paths: tuple[str, ...] = ()
    errors: tuple[tuple[str, str], ...] = field(default=())

    def __len__(self) -> int:
        return int(self.score.shape[0])
