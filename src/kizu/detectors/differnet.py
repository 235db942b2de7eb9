"""DifferNet: how likely the pooled features of an image are, at three sizes and from all sides, by a flow.

Card. Paper: Rudolph, Wandt and Rosenhahn, "Same Same But DifferNet: Semi-Supervised Defect Detection with
Normalizing Flows", WACV 2021, section 3. Official code: marco-rudolph/differnet (MIT); nothing of it is used.
The flow is built of FrEIA's blocks, of which the code holds an older copy. Source of the constants: three
sizes, each half of the one before, 8 blocks, clamp 3, sub-networks of 3 hidden layers of 2,048, 4 random
turns of an image in training and 64 in testing, Adam 2e-4 with betas 0.8 and 0.8, epsilon 1e-4 and weight
decay 1e-5, loss (z^2 / 2 - log det) / D, Gaussian of 3 pixels over the gradients (released code). Where paper
and code differ: the code reports the best epoch on the test set; here the last step counts. Differences:
AlexNet at 448 pixels there, any representation and `image_size` here; the turns of testing are the same for
every image, evenly spread (the code draws them, and spreads them for maps only); what comes in from outside
when an image is turned is its mirror image, not black; smaller images are made with an antialiased bilinear
filter, the code takes every second pixel; outputs of a block are not cut at 1e6; a number of steps instead of
192 passes. The map of the code is squared for display; here it is not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from kizu import checks, engine, maps
from kizu.adaptation.base import Adaptation
from kizu.detectors.learned import LearnedDetector
from kizu.detectors.runtime import Runtime
from kizu.errors import UnknownName
from kizu.nn.flows import Flow, log_normal, permuted_flow
from kizu.nn.pyramid import Encode, check_size, pooled_pyramid
from kizu.nn.rotation import rotate
from kizu.representations.base import Representation
from kizu.representations.pixels import Pixels
from kizu.training import Objective, Position, SampleStore
from kizu.types import FeatureMaps

LOCALISE = ("gradient", "none")
MAP_ROTATIONS, SIGMA = 8, 3.0
"""Defaults of what has an effect with localise="gradient" alone."""


class DifferNet(LearnedDetector):
    """Image score = mean of z^2 over dimensions and turned copies, z the flow of its pooled features.

    scales: sizes at which an image is looked at, each half of the one before. coupling_blocks, clamp: of the
    flow. hidden, layers: width and number of the hidden layers of its sub-networks. train_rotations:
    random turns of each image in a step. test_rotations: evenly spread turns, 1 being the image as it is.
    localise: the map is made of the "gradient" of the negative log-likelihood with respect to the pixels,
    or "none": it is the score of the image everywhere. map_rotations: turns of which gradients are taken.
    sigma: smoothing of the gradients in pixels. learning_rate: per step. iterations: steps of batch_size
    images. training_precision: "auto", "fp32", or "bf16", in which the sub-networks alone compute in it.
    Learned: network_, a Flow."""

    trains_on: ClassVar[Literal["features", "images"]] = "images"
    preferred_levels: ClassVar[tuple[int, ...]] = (4,)
    network_: Any

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        scales: int = 3,
        coupling_blocks: int = 8,
        clamp: float = 3.0,
        hidden: int = 2048,
        layers: int = 3,
        train_rotations: int = 4,
        test_rotations: int = 64,
        localise: str = "gradient",
        map_rotations: int = MAP_ROTATIONS,
        sigma: float = SIGMA,
        learning_rate: float = 2e-4,
        iterations: int = 1000,
        seed: int = 0,
        training_precision: str = "auto",
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(representation, adaptation=adaptation, runtime=runtime)
        checks.whole_numbers(scales=scales, coupling_blocks=coupling_blocks, hidden=hidden, layers=layers)
        checks.whole_numbers(train_rotations=train_rotations, test_rotations=test_rotations)
        checks.whole_numbers(map_rotations=map_rotations)
        checks.numbers(least=0.0, above=True, clamp=clamp, learning_rate=learning_rate)
        checks.numbers(least=0.0, sigma=sigma)
        if localise not in LOCALISE:
            raise UnknownName("localise", localise, LOCALISE)
        if localise == "none":
            unused = {"map_rotations": (map_rotations, MAP_ROTATIONS), "sigma": (sigma, SIGMA)}
            checks.without_effect("with localise='none'", **unused)
        self.scales, self.coupling_blocks, self.clamp = scales, coupling_blocks, clamp
        self.hidden, self.layers = hidden, layers
        self.train_rotations, self.test_rotations = train_rotations, test_rotations
        self.localise, self.map_rotations, self.sigma = localise, map_rotations, sigma
        self.learning_rate, self.iterations = learning_rate, iterations
        self.seed, self.training_precision = seed, training_precision
        self._check_training()

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """64 pixels, 2 sizes, 2 blocks, 2 turns, 40 steps."""
        return cls(
            representation,
            scales=2,
            coupling_blocks=2,
            hidden=32,
            layers=1,
            train_rotations=1,
            test_rotations=2,
            map_rotations=1,
            learning_rate=2e-3,
            iterations=40,
            training_precision="fp32",
            adaptation=adaptation,
            runtime=Runtime(image_size=64, precision="fp32", batch_size=8),
        )

    def network(self) -> Flow:
        """The flow, drawn from `seed`. Raises UsageError where there is one feature only."""
        with engine.seeded(self.seed):
            return permuted_flow(
                self.scales * sum(self.representation_.channels),
                blocks=self.coupling_blocks,
                clamp=self.clamp,
                width=self.hidden,
                layers=self.layers,
            )

    def objective(self, network: nn.Module) -> DifferNetObjective:
        """Negative log-likelihood of features of turned images, in the precision in which they are scored."""
        return DifferNetObjective(
            network,
            self.representation_.inference_copy(self._precision.precision, self.device),
            coarsest=max(self.representation_.strides),
            scales=self.scales,
            rotations=self.train_rotations,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )

    def scorer(self) -> DifferNetScorer:
        """The flow and the frozen network; a second one in float32 where gradients are to pass through it."""
        frozen = self.representation_
        return DifferNetScorer(
            self.network_,
            frozen.for_inference(self._precision.dtype, self._device).cpu(),
            copy.deepcopy(frozen).eval().requires_grad_(False) if self.localise == "gradient" else None,
            coarsest=max(frozen.strides),
            scales=self.scales,
            rotations=self.test_rotations,
            map_rotations=self.map_rotations,
            sigma=self.sigma,
        )

    def _scoring_representation(self) -> Representation:
        """The image: the scorer turns and shrinks it, and holds the network itself."""
        return Pixels()

    def _check_samples(self, samples: SampleStore) -> None:
        check_size(samples.size, self.scales, max(self.representation_.strides))


class DifferNetObjective(Objective):
    """mean of (|z|^2 / 2 - log |det dz/dy|) / D, y the pooled features of turned images.

    network: a Flow. encode: the frozen network, which is not trained. coarsest: its largest stride.
    rotations: turns of each image. seed: of their angles."""

    def __init__(
        self,
        network: Any,
        encode: Encode,
        *,
        coarsest: int,
        scales: int,
        rotations: int,
        learning_rate: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.network: Flow = network
        self._encode, self._coarsest, self._scales = encode, coarsest, scales
        self._rotations, self._learning_rate, self._seed = rotations, learning_rate, seed

    def prepare(self, batch: dict[str, Any], position: Position) -> Tensor:
        """(B rotations, D): features of each image turned by angles that depend on its place in the run."""
        turned = [
            rotate(image[None], degrees)
            for image, generator in zip(batch["images"], position.generators(self._seed), strict=True)
            for degrees in (360.0 * torch.rand(self._rotations, generator=generator)).tolist()
        ]
        pooled = pooled_pyramid(self._encode, torch.cat(turned), self._scales, self._coarsest)
        return pooled.clone()  # what an inference copy computes cannot be part of a gradient

    def loss(self, batch: Tensor) -> dict[str, Tensor]:
        """ "distance": mean of z^2, which is the score."""
        z, log_determinant = self.network(batch)
        loss = (0.5 * z.square().sum(1) - log_determinant).mean() / z.shape[1]
        return {"loss": loss, "distance": z.detach().square().mean()}

    def optimiser(self) -> torch.optim.Optimizer:
        """Adam with the constants of the released code; the permutations stay."""
        learned = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        return torch.optim.Adam(
            learned, lr=self._learning_rate, betas=(0.8, 0.8), eps=1e-4, weight_decay=1e-5
        )


class DifferNetScorer(nn.Module):
    """Images as one level [(B, 3, H, W)] -> (map (B, H, W), score (B,)).

    flow: a Flow. frozen: the network for scores. differentiable: the same network for maps, plain modules in
    float32; None: a map is the score everywhere. coarsest: its largest stride. rotations,
    map_rotations: evenly spread turns of the score and of the map. sigma: of the map."""

    def __init__(
        self,
        flow: Any,
        frozen: nn.Module,
        differentiable: nn.Module | None,
        *,
        coarsest: int,
        scales: int,
        rotations: int,
        map_rotations: int,
        sigma: float,
    ) -> None:
        super().__init__()
        self.flow: Flow = flow
        self.frozen, self.differentiable = frozen, differentiable
        self.coarsest, self.scales, self.sigma = coarsest, scales, sigma
        self.rotations, self.map_rotations = rotations, map_rotations

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Images of `size` (H, W). Raises ShapeError where the smallest copy is less than a cell."""
        images = features[-1]
        check_size((images.shape[2], images.shape[3]), self.scales, self.coarsest)
        score = self._distance(images)
        if self.differentiable is None:
            return score[:, None, None].expand(-1, *size).contiguous(), score
        return self._map(images), score

    def _distance(self, images: Tensor) -> Tensor:
        """Mean of z^2 over turns and dimensions (B,). All turns pass the flow at once: its weights are much
        larger than what passes."""
        turned = (rotate(images, turn) for turn in turns(self.rotations))
        y = torch.stack([pooled_pyramid(self.frozen, part, self.scales, self.coarsest) for part in turned])
        z: Tensor = self.flow(y.flatten(0, 1))[0]
        return z.square().mean(1).reshape(y.shape[:2]).mean(0)

    def _map(self, images: Tensor) -> Tensor:
        """Mean of |smoothed gradient| over colours and turns (B, H, W)."""
        B, C, H, W = images.shape
        total = torch.zeros(B, H, W, device=images.device)
        for turn in turns(self.map_rotations):
            gradient = self.gradient(images, turn).reshape(B * C, H, W)
            smooth = maps.upsample(gradient, (H, W), sigma=self.sigma).reshape(B, C, H, W)
            total += smooth.abs().mean(1)
        return total / self.map_rotations

    def gradient(self, images: Tensor, degrees: float) -> Tensor:
        """(B, 3, H, W): of -log p of the images turned by `degrees`, with respect to the images as they are.

        The turn is part of what is differentiated, so the gradient lies as the image does. Each image is
        taken alone: a gradient jumps where a ReLU opens, and rounding differs with the size of a batch."""
        return torch.cat([self._gradient(image, degrees) for image in images.split(1)])

    def _gradient(self, image: Tensor, degrees: float) -> Tensor:
        assert self.differentiable is not None
        with torch.inference_mode(False), torch.enable_grad():
            leaf = image.clone().requires_grad_()
            y = pooled_pyramid(self.differentiable, rotate(leaf, degrees), self.scales, self.coarsest)
            z, log_determinant = self.flow(y)
            unlikely = -(log_normal(z) + log_determinant).sum()
            (gradient,) = torch.autograd.grad(unlikely, leaf)
        return gradient


def turns(count: int) -> list[float]:
    """Degrees of `count` evenly spread turns, beginning with none.

    >>> turns(4)
    [0.0, 90.0, 180.0, 270.0]
    """
    return [360.0 * number / count for number in range(count)]
