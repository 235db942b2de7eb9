"""What reverse distillation and ReContrast minimise: the cosine distance of rebuilt features, from regional
to fully contrastive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kizu import checks
from kizu.errors import UnknownName
from kizu.losses.cosine import ALPHA_START, SCOPES, cosine, hard_mining, mining_alpha
from kizu.nn.batch_norm import stabilise
from kizu.nn.diversity import feature_diversity
from kizu.nn.rebuilder import Rebuilder
from kizu.training import Objective, Position
from kizu.types import FeatureMaps

BATCH_NORMS = ("stable", "train", "eval")
PROBED = 1
"""Index of the level whose diversity is logged: the second, as in figure 5b (the last when there is one
only)."""


@dataclass(frozen=True)
class Rules:
    """How the distance is taken. steps: iterations in all. alpha: where mining ends, None for no mining;
    ramp: share of the iterations in which it rises from -3. reset_every: steps after which the optimiser
    forgets its moments, 0 for never; pause: steps after such a reset in which the encoder does not learn."""

    steps: int
    scope: str = "global"
    stop_gradient: bool = True
    alpha: float | None = None
    ramp: float = 0.1
    reset_every: int = 0
    pause: int = 0

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise UnknownName("loss", self.scope, SCOPES)
        checks.switches(stop_gradient=self.stop_gradient)
        checks.whole_numbers(steps=self.steps)
        checks.whole_numbers(least=0, reset_every=self.reset_every, pause=self.pause)
        checks.numbers(least=0.0, most=1.0, ramp=self.ramp)
        if self.alpha is not None:
            checks.numbers(least=ALPHA_START, alpha=self.alpha)


class ReconstructionObjective(Objective):
    """Frozen encoder alone: reverse distillation. Trained encoder alone: Config C and D. Both: contrastive
    pairs, C+cp and E.

    net rebuilds; frozen: images -> features without gradient, or None; encoder: the network in training, or
    None; make: parameter groups -> optimiser; rates: base learning rates of net and encoder, per step."""

    def __init__(
        self,
        net: Rebuilder,
        rules: Rules,
        make: Callable[[list[dict[str, object]]], torch.optim.Optimizer],
        rates: tuple[float, float],
        *,
        frozen: Callable[[Tensor], FeatureMaps] | None = None,
        encoder: nn.Module | None = None,
        batch_norm: str = "eval",
    ) -> None:
        super().__init__()
        self.net, self.rules, self.encoder = net, rules, encoder
        self._make, self._rates, self._frozen = make, rates, frozen
        self._optimiser: torch.optim.Optimizer | None = None
        self.encoder_learns_norms = batch_norm != "eval"
        if encoder is not None and batch_norm == "stable":
            stabilise(encoder)

    def train(self, mode: bool = True) -> ReconstructionObjective:
        """Training mode, but for an encoder whose batch norms keep the pretrained statistics."""
        super().train(mode)
        if self.encoder is not None and not self.encoder_learns_norms:
            self.encoder.eval()
        return self

    def prepare(self, batch: dict[str, Tensor], position: Position) -> tuple[Tensor, float | None]:
        """Images, and the alpha of this step."""
        rules = self.rules
        alpha = (
            None
            if rules.alpha is None
            else mining_alpha(position.step, rules.steps, end=rules.alpha, ramp=rules.ramp)
        )
        return batch["images"], alpha

    def loss(self, batch: tuple[Tensor, float | None]) -> dict[str, Tensor]:
        """Sum over levels, mean over images and pairs; and the "diversity" of the encoder's second level."""
        images, alpha = batch
        pairs = self.pairs(images)
        losses = [self._distance(rebuilt, target, alpha) for rebuilt, target in pairs]
        target = pairs[-1][1]
        probed = target[min(PROBED, len(target) - 1)]
        return {"loss": torch.stack(losses).mean(), "diversity": feature_diversity(probed)}

    def pairs(self, images: Tensor) -> list[tuple[FeatureMaps, FeatureMaps]]:
        """(rebuilt, target) features; the pair whose target is the trained encoder's comes last."""
        frozen = (
            [] if self._frozen is None else [level.clone() for level in self._frozen(images)]
        )  # out of inference mode
        if self.encoder is None:
            return [(self.net(frozen), frozen)]
        trained = self.encoder(images)
        if not frozen:
            return [(self.net(trained), trained)]
        like_frozen, like_trained = self.net.cross_reconstruct(trained, frozen)
        return [(like_frozen, frozen), (like_trained, trained)]

    def optimiser(self) -> torch.optim.Optimizer:
        """One optimiser; the encoder is its second group."""
        groups: list[dict[str, object]] = [{"params": list(self.net.parameters()), "lr": self._rates[0]}]
        if self.encoder is not None:
            groups.append({"params": list(self.encoder.parameters()), "lr": self._rates[1]})
        self._optimiser = self._make(groups)
        return self._optimiser

    def lr_scale(self, step: int, steps: int) -> list[float]:
        """Constant rates; the encoder's is 0 in a pause."""
        every = self.rules.reset_every
        paused = bool(every) and step >= every and step % every < self.rules.pause
        return [1.0] if self.encoder is None else [1.0, 0.0 if paused else 1.0]

    def after_step(self, step: int, steps: int) -> None:
        """Forget the optimiser's moments every `reset_every` steps."""
        if (
            self.rules.reset_every
            and (step + 1) % self.rules.reset_every == 0
            and self._optimiser is not None
        ):
            self._optimiser.state.clear()

    def _distance(self, rebuilt: FeatureMaps, target: FeatureMaps, alpha: float | None) -> Tensor:
        total = []
        for decoded, wanted in zip(rebuilt, target, strict=True):
            kept = decoded if alpha is None else hard_mining(decoded, wanted, alpha)
            total.append(cosine(kept, wanted, scope=self.rules.scope, stop_gradient=self.rules.stop_gradient))
        return torch.stack(total).sum()
