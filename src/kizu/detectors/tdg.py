"""TDG: a pyramid of GANs whose discriminators name the transformation of each patch, for few good images.

Card. Paper: Sheynin, Benaim and Wolf, "A Hierarchical Transformation-Discriminating Generative Model for
Few Shot Anomaly Detection", ICCV 2021 (called HTDG there). Official code:
shellysheynin/A-Hierarchical-Transformation-Discriminating-Generative-Model-for-Few-Shot-Anomaly-Detection
(no licence); nothing of it is used. Source of the constants, all of its code: scales from 25 to 64 pixels
about 0.75 apart, networks of 5 layers 3 x 3 of 32 channels, 54 transformations (42 for grey images), Adam
5e-4 with beta1 0.5, 3 steps of either side in turn, 1,000 rounds a scale (so 30,000 steps for 5 scales),
reconstruction weight 100, noise 0.1, the lowest 10 % of the patches. It has no gradient penalty.
Differences: random noise is drawn anew for every step (there the generator's three share the
discriminator's last); noise strengths are root mean squares, as SinGAN has them (there mean absolute
differences, under that name); MVTec's training images are not equalised; the number of scales does not
depend on the size of the file. pyramids: the paper speaks of the largest value over models of the training
images; the released code trains one pyramid on all images, whose generator is told which image is meant,
and its maximum is over that one. That is pyramids=1; pyramids=k trains one for each of k images and takes
the maximum. Map: the paper shows maps, the code has none; here the mean of 1 - p over the transformations
that shift nothing, turned back, and over the scales. It looks at pixels alone: another representation, or
an adaptation of one, would have no effect and is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from kizu import checks, engine, maps
from kizu.adaptation.base import Adaptation
from kizu.detectors._tdg_objective import SHIFT, TDGObjective, place_of, scaled
from kizu.detectors.learned import LearnedDetector
from kizu.detectors.runtime import Runtime
from kizu.errors import TooFewImages, UnknownName, UsageError
from kizu.nn.patch_pyramid import FIELD, REACH, PatchPyramid, pyramid_sizes
from kizu.nn.transformations import DISCRIMINATED, Transformation, every_one, transformations, undo
from kizu.representations.base import Representation
from kizu.representations.pixels import Pixels
from kizu.representations.sources import open_representation
from kizu.training import SampleStore
from kizu.types import FeatureMaps


class TDG(LearnedDetector):
    """Score = mean over scales and transformations of 1 - p, p the mean of the lowest `fraction` of the
    patches' probabilities of the transformation that was applied.

    transforms: "colour" (54) or "grey" (42). coarsest, finest: sides of the first and the last scale in
    pixels. scale_factor: between scales, at least. width: channels of the first four scales. pyramids: how
    many, of which image n trains number n mod pyramids. fraction: of the patches. iterations: steps of either
    side in all, shared evenly among scales; each looks at every image of its batch once. inner_steps: of a
    side before the other. reconstruction: weight of that loss. noise: strength, times what a scale has still
    to add. learning_rate: per step. sigma: smoothing of the map in pixels. training_precision: "auto", "fp32"
    or "bf16". Learned: network_, a ModuleList of PatchPyramids."""

    trains_on = "images"

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        transforms: str = "colour",
        coarsest: int = 25,
        finest: int = 64,
        scale_factor: float = 0.75,
        width: int = 32,
        pyramids: int = 1,
        fraction: float = 0.1,
        iterations: int = 30_000,
        inner_steps: int = 3,
        reconstruction: float = 100.0,
        noise: float = 0.1,
        learning_rate: float = 5e-4,
        sigma: float = 4.0,
        seed: int = 0,
        training_precision: str = "auto",
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        named = Pixels() if representation is None else open_representation(representation)
        if not isinstance(named, Pixels) or adaptation is not None:
            raise UsageError(
                "TDG looks at the pixels of images: a representation or an adaptation has no effect on it. "
                "Leave both away, or say representation pixels."
            )
        super().__init__(named, adaptation=None, runtime=runtime)
        self.transforms, self.coarsest, self.finest = transforms, coarsest, finest
        self.scale_factor, self.width, self.pyramids = scale_factor, width, pyramids
        self.fraction, self.iterations, self.inner_steps = fraction, iterations, inner_steps
        self.reconstruction, self.noise, self.learning_rate = reconstruction, noise, learning_rate
        self.sigma, self.seed, self.training_precision = sigma, seed, training_precision
        self._check()

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """Two scales of 16 and 24 pixels; of pixels, whatever is named."""
        return cls(
            None,
            transforms="grey",
            coarsest=16,
            finest=24,
            scale_factor=0.6,
            width=16,
            iterations=120,
            learning_rate=5e-3,
            sigma=2.0,
            training_precision="fp32",
            runtime=Runtime(image_size=64, precision="fp32", batch_size=2),
        )

    def _check(self) -> None:
        checks.whole_numbers(width=self.width, pyramids=self.pyramids, inner_steps=self.inner_steps)
        checks.whole_numbers(least=FIELD, coarsest=self.coarsest)
        checks.whole_numbers(least=self.coarsest, finest=self.finest)
        checks.numbers(least=0.1, most=0.95, scale_factor=self.scale_factor)
        checks.numbers(least=0.0, above=True, most=1.0, fraction=self.fraction)
        checks.numbers(least=0.0, above=True, learning_rate=self.learning_rate)
        checks.numbers(least=0.0, reconstruction=self.reconstruction, noise=self.noise, sigma=self.sigma)
        self._check_training()
        if self.transforms not in DISCRIMINATED:
            raise UnknownName("transforms", self.transforms, DISCRIMINATED)
        shortest = min(self._sizes[0])
        if shortest < FIELD:
            raise UsageError(
                f"image_size {self.image_size} has a scale of {shortest} pixels, and a patch has {FIELD}: "
                "take larger images, less elongated ones, or a larger finest."
            )
        if self.iterations < len(self._sizes):
            raise UsageError(f"iterations={self.iterations} are fewer than the {len(self._sizes)} scales.")

    @property
    def _sizes(self) -> list[tuple[int, int]]:
        return pyramid_sizes(
            self.image_size, coarsest=self.coarsest, finest=self.finest, factor=self.scale_factor
        )

    # -- learning --------------------------------------------------------------------------------------------

    def network(self) -> nn.ModuleList:
        """The pyramids, drawn from `seed`."""
        classes = len(transformations(self.transforms)) + 1
        with engine.seeded(self.seed):
            return nn.ModuleList(
                PatchPyramid(self._sizes, width=self.width, classes=classes) for _ in range(self.pyramids)
            )

    def objective(self, network: nn.Module) -> TDGObjective:
        """One scale after the other, discriminator and generator in turn."""
        return TDGObjective(
            network,
            transforms=transformations(self.transforms),
            steps=self.iterations,
            turns=self.inner_steps,
            reconstruction=self.reconstruction,
            noise=self.noise,
            rate=self.learning_rate,
            seed=self.seed,
        )

    def _check_samples(self, samples: SampleStore) -> None:
        if len(samples) < self.pyramids:
            raise TooFewImages(
                f"pyramids={self.pyramids} share the good images, and there are {len(samples)}: give more "
                f"images, or at most pyramids={len(samples)}."
            )

    # -- scoring ---------------------------------------------------------------------------------------------

    def _scoring_representation(self) -> Representation:
        """The image itself."""
        return Pixels()

    def scorer(self) -> TDGScorer:
        """The discriminators of the scales whose training has begun: all, once it is over."""
        scales = place_of(self.steps_ - 1, self.iterations, len(self._sizes), self.inner_steps).scale + 1
        chosen = transformations(self.transforms)
        return TDGScorer(
            self.network_, scales=scales, transforms=chosen, fraction=self.fraction, sigma=self.sigma
        )


class TDGScorer(nn.Module):
    """Images -> (map (B, H, W), score (B,)), one image after the other: each becomes 54.

    network: a ModuleList of PatchPyramids. scales: how many of them count."""

    def __init__(
        self,
        network: Any,
        *,
        scales: int,
        transforms: tuple[Transformation, ...],
        fraction: float,
        sigma: float,
    ) -> None:
        super().__init__()
        self.sizes: list[tuple[int, int]] = list(network[0].sizes)
        self.discriminators = nn.ModuleList(
            nn.ModuleList(pyramid[n].discriminator for pyramid in network) for n in range(scales)
        )
        self.transforms, self.fraction, self.sigma = transforms, fraction, sigma

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """[(B, 3, H, W)] in [0, 1]: the pixels."""
        parts = [self._scored(image[None], size) for image in features[-1]]
        return torch.cat([map_ for map_, _ in parts]), torch.stack([score for _, score in parts])

    def _scored(self, image: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(map (1, H, W), score ()) of one image (1, 3, H, W)."""
        scales = len(self.discriminators)
        grids, scores = [], []
        for real, discriminators in zip(
            scaled(image, self.sizes[:scales], self.sizes[-1]), self.discriminators, strict=True
        ):
            every = every_one(real, self.transforms, SHIFT)
            found = [right_probabilities(net(every)) for net in discriminators.children()]
            normal = torch.stack([lowest(right, self.fraction) for right in found])
            best = int(normal.argmax())
            scores.append(1 - normal[best])
            grids.append(maps.upsample(self._grid(found[best]), size, sigma=self.sigma))
        return torch.stack(grids).mean(0), torch.stack(scores).mean()

    def _grid(self, right: Tensor) -> Tensor:
        """Probabilities (T, h, w) -> (1, H, W): the mean of what is missing to 1 in the frame of the image;
        the border, which is no patch's middle, has the value of its neighbour."""
        still = [n for n, one in enumerate(self.transforms) if not one.shifts]
        missing = [undo(1 - right[n][None], self.transforms[n])[0] for n in still]
        mean = torch.cat(missing).mean(0, keepdim=True)
        return functional.pad(mean, (REACH,) * 4, mode="replicate")


def right_probabilities(logits: Tensor) -> Tensor:
    """Logits (T, T + 1, h, w) of an image under T transformations -> (T, h, w): the probability of the right
    one, the class "fake" (the last) left out.

    >>> right_probabilities(torch.zeros(2, 3, 1, 1))[:, 0, 0]
    tensor([0.5000, 0.5000])
    """
    known = logits[:, :-1].float().softmax(1)
    return known.diagonal(dim1=0, dim2=1).permute(2, 0, 1)


def lowest(right: Tensor, fraction: float) -> Tensor:
    """Probabilities (T, h, w) -> (): the mean over T of the mean of the lowest `fraction` of the patches, at
    least one.

    >>> lowest(torch.tensor([[[0.1, 0.3, 0.9, 1.0]]]), 0.5)
    tensor(0.2000)
    """
    flat = right.flatten(1)
    count = max(int(flat.shape[1] * fraction), 1)
    return flat.topk(count, dim=1, largest=False).values.mean()
