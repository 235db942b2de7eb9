"""What flows between the rooms, and the glossary of shape letters.

    B images in a batch      C channels             H W  pixels of the detector's input
    h w patches (grid)       L levels               N    patches in a bank
    D feature size           K neighbours or shots  Q    queries
    P pixels or positions    n images in a set      R    ground-truth regions

Images are float32 in [0, 1], RGB, (B, 3, H, W); normalising them is the representation's business.
Scores and maps are raw float32, higher is more anomalous: no sigmoid, clamp or min-max before a metric.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

FeatureMaps: TypeAlias = "list[Tensor]"
"""One (B, C_l, h_l, w_l) tensor per level, finest first."""
Grids: TypeAlias = tuple[tuple[int, int], ...]
"""(h, w) of each level."""
Progress: TypeAlias = Callable[[int, str], None]
"""Called with (images or steps done so far, what is being done)."""


Centre: TypeAlias = "tuple[float, float]"
"""(stride, offset) of a level in pixels: cell i looks around pixel offset + stride i."""
Centres: TypeAlias = "tuple[Centre, ...]"
"""That of each level."""


def grids_of(features: FeatureMaps) -> Grids:
    """(h, w) of each level."""
    return tuple((int(level.shape[2]), int(level.shape[3])) for level in features)


@dataclass(frozen=True)
class Batch:
    """Some images, and what is known of them. At least one of `images` and `features` is there.

    images: (B, 3, H, W) float32 in [0, 1], RGB.   features: the representation's maps of these very images,
    [(B, C_l, h_l, w_l)], when they were computed before (a cache); they are then not computed again.
    labels: (B,) int64, 0 good, 1 anomalous, -1 unknown; None: not given.
    masks: (B, H, W) bool, True = defect.
    paths: their files.   rows: their row numbers in the Samples.   size: (H, W), needed without images.
    digests: what identifies each image (kizu.images.values_digest), where it is known.
    file_sizes: (H, W) of each image before it was resized, where it came as an array or as bytes.
    """

    images: Tensor | None = None
    features: list[Tensor] | None = None
    labels: Tensor | None = None
    masks: Tensor | None = None
    paths: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    size: tuple[int, int] = (0, 0)
    digests: tuple[str, ...] = ()
    file_sizes: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        from kizu.errors import UsageError

        if self.images is not None:
            object.__setattr__(self, "size", (int(self.images.shape[2]), int(self.images.shape[3])))
        elif self.features is None:
            raise UsageError("A Batch holds images, or their features, or both; it got neither.")
        elif min(self.size) < 1:
            raise UsageError("A Batch of features alone says the size (H, W) of the images: size=(256, 256).")
        given = [
            one for one in (self.images, self.labels, self.masks, *(self.features or ())) if one is not None
        ]
        if any(len(one) != len(given[0]) for one in given):
            raise UsageError(
                f"All of a Batch is for the same images, got {[len(one) for one in given]} of them."
            )
        if self.labels is not None and not set(self.labels.tolist()) <= {-1, 0, 1}:
            raise UsageError(
                f"labels are 0 (good), 1 (anomalous) or -1 (unknown), got {self.labels.tolist()[:8]}."
            )

    def __len__(self) -> int:
        first = self.images if self.images is not None else (self.features or [])[0]
        return int(first.shape[0])

    def require_images(self) -> Tensor:
        """(B, 3, H, W). Raises UsageError when the batch carries features without the images."""
        from kizu.errors import UsageError

        if self.images is None:
            raise UsageError("Images are needed here; the batch carries features without the images.")
        return self.images

    def split(self, size: int) -> list[Batch]:
        """The same images, in order, in batches of at most `size`; views, not copies."""
        if size >= len(self):
            return [self]
        return [self._part(slice(start, start + size)) for start in range(0, len(self), size)]

    def _part(self, rows: slice) -> Batch:
        images, labels, masks = (
            None if one is None else one[rows] for one in (self.images, self.labels, self.masks)
        )
        features = None if self.features is None else [level[rows] for level in self.features]
        paths, numbers, digests = self.paths[rows], self.rows[rows], self.digests[rows]
        sizes = self.file_sizes[rows]
        return Batch(images, features, labels, masks, paths, numbers, self.size, digests, sizes)


@dataclass(frozen=True)
class Prediction:
    """What a detector says of B images.

    map: (B, H, W) float32, higher is more anomalous.   score: (B,) float32, higher is more anomalous.
    p_value: (B,) conformal p-value in (0, 1], or None before calibration.
    is_anomalous: (B,) bool at the promised false-alarm rate, or None before calibration.
    paths: names of the images when they came from disk.
    errors: (path, reason) of images that could not be read.
    unlike: (B,) bool, whether the image as a whole looks unlike the good ones of the calibration (one good
    image of twenty does); None where that is not known.

    Raises NotFinite when a map or a score holds NaN or infinity: no decision can be built on that.
    """

    map: Tensor
    score: Tensor
    p_value: Tensor | None = None
    is_anomalous: Tensor | None = None
    paths: tuple[str, ...] = ()
    errors: tuple[tuple[str, str], ...] = field(default=())
    unlike: Tensor | None = None

    def __post_init__(self) -> None:
        from kizu.errors import NotFinite

        finite = self.score.isfinite() & self.map.isfinite().flatten(1).all(1)
        if not bool(finite.all()):
            row = finite.tolist().index(False)
            image = self.paths[row] if self.paths else f"image {row} of the batch"
            raise NotFinite(
                f"The detector gives NaN or infinity for {image}: the model is damaged, or was fitted "
                "on images of another kind. Fit it again."
            )

    def __len__(self) -> int:
        return int(self.score.shape[0])
