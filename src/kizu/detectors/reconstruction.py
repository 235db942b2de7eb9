"""What reverse distillation and ReContrast share: the rebuilding network, its scores and checks."""

from __future__ import annotations

import copy
import functools
from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from kizu import accel, checks, maps
from kizu.accel.batch_norm_folding import fold_batch_norms
from kizu.detectors.learned import LearnedDetector
from kizu.errors import ShapeError, UnknownName, UsageError
from kizu.losses.cosine import distance_map
from kizu.nn.landscape import landscape
from kizu.nn.mirror import DecoderSpec, decoder_spec
from kizu.nn.rebuilder import Rebuilder, smallest_grid
from kizu.reader import Images
from kizu.representations.base import Representation
from kizu.training import SampleStore
from kizu.types import Centres, FeatureMaps

SCORE_RULES = ("max", "mean", "top")
DECODERS = ("code", "mirrored")
SIDES = (64, 96)
"""Of the images from whose noise it is seen which batch norms can be folded."""
PROBE = 256
"""Side of the largest image from which it is seen whether features have both signs."""
Pairs = list[tuple[FeatureMaps, FeatureMaps]]
"""(rebuilt, target) features."""


class Networks(nn.Module):
    """What is trained: `rebuilder`, and `encoder` where the encoder learns as well (else None)."""

    def __init__(self, rebuilder: Rebuilder, encoder: Representation | None = None) -> None:
        super().__init__()
        self.rebuilder, self.encoder = rebuilder, encoder


class ReconstructionDetector(LearnedDetector):
    """Base of the two. A member gives `objective` and `_rebuilding`; score_rule, sigma, decoder and
    embedding_width are parameters of both."""

    trains_on: ClassVar[Literal["features", "images"]] = "images"
    preferred_levels: ClassVar[tuple[int, ...]] = (1, 2, 3)
    contrastive: bool = False
    """Whether two encoders meet: the rebuilder then has twin projections."""
    decoder: str
    embedding_width: int | None
    score_rule: str
    sigma: float
    network_: Networks

    @abstractmethod
    def _rebuilding(self, rebuilder: Rebuilder) -> nn.Module:
        """Features as `_scoring_representation` gives them -> Pairs whose distances make the map."""

    def network(self) -> Networks:
        """Bottleneck and decoder after the representation's shape."""
        return Networks(self._new_rebuilder())

    def scorer(self) -> ReconstructionScorer:
        """The rebuilder in the precision of the features, its batch norms folded."""
        rebuilder: Any = copy.deepcopy(self.network_.rebuilder).eval().requires_grad_(False)
        if accel.enabled():
            fold_batch_norms(
                rebuilder, *(functools.partial(self._rebuild_noise, side=side) for side in SIDES)
            )
        rebuilder = rebuilder.to(self._precision.dtype)
        return ReconstructionScorer(
            self._rebuilding(rebuilder),
            self._precision.dtype,
            sigma=self.sigma,
            rule=self.score_rule,
            centres=self.centres,
        )

    def map_landscape(
        self, images: Images, *, distance: float = 1.0, steps: int = 50, seed: int = 0
    ) -> tuple[Tensor, Tensor]:
        """(offsets (steps,), values (steps, steps)): mean of the maps of `images` as bottleneck and decoder
        move about what was learned.

        Two random filter-normalised directions, drawn from `seed`; see nn.landscape (ReContrast's figure 4).
        The encoders stay. Raises NotFitted."""
        self._require_fit("map_landscape")

        def measure() -> float:
            self._prepare_scoring()
            return float(self.predict(images).map.double().mean())

        generator = torch.Generator().manual_seed(seed)
        try:
            return landscape(
                self.network_.rebuilder, measure, distance=distance, steps=steps, generator=generator
            )
        finally:
            self._prepare_scoring()

    def _rebuild_noise(self, rebuilder: Rebuilder, *, side: int) -> Any:
        """What the rebuilder makes of noise in the shape of the features of one image."""
        net, generator = self.representation_, torch.Generator().manual_seed(0)
        features = [
            torch.rand(1, width, -(-side // stride), -(-side // stride), generator=generator)
            for width, stride in zip(net.channels, net.strides, strict=True)
        ]
        return rebuilder.cross_reconstruct(features, features) if self.contrastive else rebuilder(features)

    def _check_shared(self) -> None:
        """Raise for parameters that cannot be meant."""
        for name, value, known in (
            ("score_rule", self.score_rule, SCORE_RULES),
            ("decoder", self.decoder, DECODERS),
        ):
            if value not in known:
                raise UnknownName(name, value, known)
        checks.whole_numbers(none=True, embedding_width=self.embedding_width)
        checks.numbers(least=0.0, sigma=self.sigma)
        self._check_training()

    def _check_samples(self, samples: SampleStore) -> None:
        if smallest_grid(self._first_features(samples)) * self.batch_size < 2:
            raise UsageError(
                f"Images of {samples.size} leave one number a channel to normalise: take larger images, or a "
                "larger batch_size."
            )

    def _new_rebuilder(self) -> Rebuilder:
        return Rebuilder(
            self._decoder_spec(),
            twin=self.contrastive,
            blocks=self.decoder,
            width=self.embedding_width,
            seed=self.seed,
        )

    def _decoder_spec(self) -> DecoderSpec:
        net: Any = self.representation_
        levels = getattr(net, "levels", range(1, len(net.channels) + 1))
        signed = has_both_signs(net, min(self.image_size))
        return decoder_spec(getattr(net, "net", net), levels, net.channels, net.strides, signed=signed)


class ReconstructionScorer(nn.Module):
    """FeatureMaps -> (map (B, H, W), score (B,)) from the cosine distances of rebuilt and target features.

    rebuilding: features in `dtype` -> Pairs. Levels are upsampled by their centres, or without these with
    align_corners=True, as the released code does, and summed; upsampling is linear, so the pairs of a level
    are added before it. rule: of the image score."""

    def __init__(
        self,
        rebuilding: nn.Module,
        dtype: torch.dtype,
        *,
        sigma: float,
        rule: str,
        centres: Centres | None = None,
    ) -> None:
        super().__init__()
        self.rebuilding, self.dtype, self.sigma, self.rule = rebuilding, dtype, sigma, rule
        self.centres = centres

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Features of images of `size` (H, W)."""
        pairs: Pairs = self.rebuilding([level.to(self.dtype) for level in features], features)
        distances = [
            [distance_map(*both) for both in zip(rebuilt, target, strict=True)] for rebuilt, target in pairs
        ]
        grids = [torch.stack(same).sum(0) for same in zip(*distances, strict=True)]
        total = maps.upsample_levels(grids, size, sigma=self.sigma, align_corners=True, centres=self.centres)
        return total, maps.image_score(total, self.rule)


def has_both_signs(representation: Representation, side: int) -> bool:
    """Whether features are negative anywhere: those of noise, of `side` pixels or of PROBE if that is less,
    for the side may come from a stranger's file. A network that takes no other size than its own is a
    transformer, whose features have both signs."""
    stride = max(representation.strides)
    side = max(min(side, PROBE) // stride, 1) * stride
    with torch.device("cpu"):
        noise = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        try:
            levels = representation.inference_copy("fp32", "cpu")(noise)
        except ShapeError:
            return True
    return any(bool((level < 0).any()) for level in levels)
