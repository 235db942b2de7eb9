"""CFLOW-AD: how likely each feature is at its place, by a conditional normalising flow for each level.

Card. Paper: Gudovskiy, Ishizaka and Kozuka, "CFLOW-AD: Real-Time Unsupervised Anomaly Detection with
Localization via Conditional Normalizing Flows", WACV 2022, sections 4 and 5. Official code:
gudovskiy/cflow-ad (BSD 3-clause); nothing of it is used. The flows are built of FrEIA's blocks, as there.
Source of the constants: levels 2, 3 and 4, 8 coupling blocks, position code of 128, clamp 1.9, fibres in
chunks of N = 256, Adam 2e-4, loss -log sigmoid(log p / C), cosine to a thousandth after a warm-up of 2 of 25
meta-epochs (released code). Where paper and code differ: the code reports the best epoch on the test set;
here the last step counts. Differences: the code divides the likelihoods of a level by their maximum over the
whole TEST set, so that a map depends on other test images; here it is the maximum over the training images.
The map is -log of the mean of the levels' likelihoods, which orders pixels as the code's (maximum - sum)
does, without its saturation. A step takes N fibres of every level from one batch of images, drawn at random,
instead of all fibres of the batch in as many steps; no random turns by up to 5 degrees, since features are
computed once; the learning rate rises from 0 instead of a tenth. Few-shot contrastive fine-tuning (section
4.2) and ADPretrain (table 1, N = 4096) use it on other representations: it takes any levels."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from kizu import checks, engine, maps
from kizu.adaptation.base import Adaptation
from kizu.detectors.learned import LearnedDetector
from kizu.detectors.runtime import Runtime
from kizu.errors import UnknownName, UsageError
from kizu.nn.flows import conditional_flow, position_encoding
from kizu.nn.patches import to_rows
from kizu.representations.base import Representation
from kizu.training import Objective, Position, SampleStore
from kizu.training.schedule import cosine_schedule
from kizu.types import Centres, FeatureMaps

COMBINATIONS = ("likelihoods", "logarithms")
WARMUP, FINAL = 2 / 25, 1e-3
"""Share of the steps in which the learning rate rises; what is left of it at the end."""
LEAST = -80.0
"""Logarithm of the smallest likelihood that is told from none: exp of it is still a normal float32."""


class CFlow(LearnedDetector):
    """Cell score = how unlikely its feature is under the flow of its level, given where it lies.

    coupling_blocks: of each flow. clamp: of the logarithm of a scale in a coupling. condition: values of the
    position code, a multiple of 4. fibres: cells of each level in a step (N). combine: the map is -log of the
    mean over levels of the "likelihoods", each relative to the largest in training, or the mean of their
    "logarithms". learning_rate: highest. iterations: steps of `fibres` cells out of batch_size images. sigma:
    smoothing of the map in pixels. training_precision: "auto", "fp32", or "bf16", in which the sub-networks
    alone compute in it. Learned: network_, a ConditionalFlows; peaks_ (L,), the largest log p / C of each
    level in training."""

    trains_on: ClassVar[Literal["features", "images"]] = "features"
    preferred_levels: ClassVar[tuple[int, ...]] = (2, 3, 4)
    _shapes: ClassVar[dict[str, str]] = {"steps": "1", "peaks": "L"}
    network_: Any
    peaks_: Tensor

    def __init__(
        self,
        representation: Representation | str | Path | None = None,
        *,
        coupling_blocks: int = 8,
        clamp: float = 1.9,
        condition: int = 128,
        fibres: int = 256,
        combine: str = "likelihoods",
        learning_rate: float = 2e-4,
        iterations: int = 4000,
        sigma: float = 0.0,
        seed: int = 0,
        training_precision: str = "auto",
        adaptation: Adaptation | str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(representation, adaptation=adaptation, runtime=runtime)
        checks.whole_numbers(coupling_blocks=coupling_blocks, condition=condition, fibres=fibres)
        checks.numbers(least=0.0, above=True, clamp=clamp, learning_rate=learning_rate)
        checks.numbers(least=0.0, sigma=sigma)
        if condition % 4:
            raise UsageError(f"condition is a multiple of 4 (sine, cosine; row, column), got {condition}.")
        if combine not in COMBINATIONS:
            raise UnknownName("combine", combine, COMBINATIONS)
        self.coupling_blocks, self.clamp, self.condition = coupling_blocks, clamp, condition
        self.fibres, self.combine, self.learning_rate = fibres, combine, learning_rate
        self.iterations, self.sigma = iterations, sigma
        self.seed, self.training_precision = seed, training_precision
        self._check_training()

    @classmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """64 pixels, 2 blocks, 60 steps."""
        return cls(
            representation,
            coupling_blocks=2,
            condition=8,
            fibres=128,
            learning_rate=5e-3,
            iterations=60,
            training_precision="fp32",
            adaptation=adaptation,
            runtime=Runtime(image_size=64, precision="fp32", batch_size=8),
        )

    def network(self) -> ConditionalFlows:
        """A flow for each level, drawn from `seed`. Raises UsageError for a level of one channel."""
        with engine.seeded(self.seed):
            return ConditionalFlows(
                self.representation_.channels,
                condition=self.condition,
                blocks=self.coupling_blocks,
                clamp=self.clamp,
            )

    def objective(self, network: nn.Module) -> CFlowObjective:
        """-log sigmoid of the likelihood per channel."""
        return CFlowObjective(network, fibres=self.fibres, learning_rate=self.learning_rate, seed=self.seed)

    def scorer(self) -> CFlowScorer:
        """The flows and the map."""
        return CFlowScorer(
            self.network_, self.peaks_, combine=self.combine, sigma=self.sigma, centres=self.centres
        )

    @torch.no_grad()
    def _complete(self, samples: SampleStore) -> None:
        """The largest log p / C of each level over all cells of the training images."""
        network = self.network_.to(self._device)
        peaks = [
            torch.stack([level.amax() for level in network(_on(batch.features, self._device))]).cpu()
            for batch in samples.batches(self.batch_size)
        ]
        self.network_, self.peaks_ = network.cpu(), torch.stack(peaks).amax(0)

    def _state(self) -> dict[str, Tensor]:
        return {**super()._state(), "peaks": self.peaks_}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        super()._restore(tensors)
        self.peaks_ = tensors["peaks"].float()
        levels = len(self.representation_.channels)
        if len(self.peaks_) != levels:
            raise ValueError(f"{len(self.peaks_)} peaks for {levels} levels")


class ConditionalFlows(nn.Module):
    """[(B, C_l, h_l, w_l)] -> log p / C_l of each cell, [(B, h_l, w_l)], in nats; a flow for each level.

    channels: C_l of each level. condition: values of the position code. blocks, clamp: of each flow."""

    def __init__(self, channels: tuple[int, ...], *, condition: int, blocks: int, clamp: float) -> None:
        super().__init__()
        self.condition = condition
        self.flows = nn.ModuleList(
            conditional_flow(C, condition=condition, blocks=blocks, clamp=clamp) for C in channels
        )

    def forward(self, features: FeatureMaps) -> list[Tensor]:
        """Every cell of every level."""
        return [self._of_level(number, level) for number, level in enumerate(features)]

    def of_rows(self, number: int, rows: Tensor, codes: Tensor) -> Tensor:
        """log p / C (N,) of rows (N, C) of one level with their position codes (N, condition)."""
        likelihood: Tensor = self.flows[number].log_likelihood(rows, codes)  # type: ignore[operator]
        return likelihood / rows.shape[1]

    def codes(self, level: Tensor) -> Tensor:
        """(h w, condition): the position code of each cell of a level (B, C, h, w)."""
        code = position_encoding(level.shape[2], level.shape[3], self.condition)
        return code.flatten(1).T.to(level.device, level.dtype)

    def _of_level(self, number: int, level: Tensor) -> Tensor:
        B, _, h, w = level.shape
        codes = self.codes(level).repeat(B, 1)
        return self.of_rows(number, to_rows(level), codes).reshape(B, h, w)


class CFlowObjective(Objective):
    """Sum over levels of mean -log sigmoid(log p / C), over `fibres` cells of each level.

    The flows of two levels share nothing, so each is trained as if it were alone. network: a
    ConditionalFlows. seed: of the choice of cells."""

    def __init__(self, network: Any, *, fibres: int, learning_rate: float, seed: int) -> None:
        super().__init__()
        self.network: ConditionalFlows = network
        self._fibres, self._learning_rate, self._seed = fibres, learning_rate, seed

    def prepare(self, batch: dict[str, Any], position: Position) -> list[tuple[Tensor, Tensor]]:
        """Of each level (rows (N, C_l), position codes (N, condition)): cells of all images of the batch,
        none twice; all of them where there are fewer than `fibres`."""
        generator, chosen = position.generators(self._seed)[0], []
        for level in batch["features"]:
            rows, codes = to_rows(level), self.network.codes(level)
            cells = torch.randperm(len(rows), generator=generator)[: self._fibres].to(level.device)
            chosen.append((rows[cells], codes[cells % len(codes)]))
        return chosen

    def loss(self, batch: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """ "level_1", ...: the terms of the sum."""
        terms = [
            -functional.logsigmoid(self.network.of_rows(number, rows, codes)).mean()
            for number, (rows, codes) in enumerate(batch)
        ]
        named = {f"level_{number}": term.detach() for number, term in enumerate(terms, 1)}
        return {"loss": torch.stack(terms).sum(), **named}

    def optimiser(self) -> torch.optim.Optimizer:
        """Adam; the random rotations stay."""
        learned = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        return torch.optim.Adam(learned, lr=self._learning_rate)

    def lr_scale(self, step: int, steps: int) -> float:
        """Half a cosine after the warm-up."""
        return cosine_schedule(step, steps, warmup=round(WARMUP * steps), final=FINAL)


class CFlowScorer(nn.Module):
    """FeatureMaps -> (map (B, H, W), score (B,)). The score is the largest value of the map.

    With a_l = log p_l / C_l - peak_l of a cell, upsampled by U: the map is -log mean_l U(exp a_l) with
    combine "likelihoods", or mean_l U(-a_l) with "logarithms". Likelihoods below exp(LEAST) count as that."""

    def __init__(
        self, network: Any, peaks: Tensor, *, combine: str, sigma: float, centres: Centres | None = None
    ) -> None:
        super().__init__()
        self.network: ConditionalFlows = network
        self.combine, self.sigma, self.centres = combine, sigma, centres
        self.peaks: Tensor
        self.register_buffer("peaks", peaks)

    def forward(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """[(B, C_l, h_l, w_l)] of images of `size` (H, W)."""
        relative = [level - peak for level, peak in zip(self.network(features), self.peaks, strict=True)]
        if self.combine == "logarithms":
            map_ = self._mean([-level for level in relative], size)
        else:
            map_ = -self._mean([level.clamp_min(LEAST).exp() for level in relative], size).log()
        map_ = maps.upsample(map_, size, sigma=self.sigma) if self.sigma else map_
        return map_, maps.image_score(map_)

    def _mean(self, levels: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Mean over the levels of their maps (B, H, W); without centres the grids' corners are the image's,
        as in the released code."""
        total = maps.upsample_levels(levels, size, sigma=0.0, align_corners=True, centres=self.centres)
        return total / len(levels)


def _on(features: FeatureMaps | None, device: torch.device) -> FeatureMaps:
    """The levels on a device; none where there are none."""
    return [level.to(device, torch.float32) for level in features or []]
