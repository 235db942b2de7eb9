"""What the adaptations that train share: the copy that learns, the loop, and the card of the result."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from kizu import checks
from kizu.errors import NotFinite, UnknownName
from kizu.nn.density import pool
from kizu.representations.base import Representation
from kizu.representations.trainable import adapted_card, lay_out
from kizu.representations.weights import digest
from kizu.training import FitOptions, Objective, Position, SampleStore, train

BATCH_NORMS = ("train", "eval")
BATCH = 16
"""Images a forward pass where nothing is learned."""


def check_training(
    *, iterations: int, batch_size: int, learning_rate: float, training_precision: str
) -> None:
    """Raise UsageError, UnknownName for what is out of range."""
    checks.whole_numbers(iterations=iterations)
    checks.whole_numbers(least=2, batch_size=batch_size)
    checks.numbers(least=0.0, above=True, learning_rate=learning_rate)
    if training_precision not in ("auto", "fp32", "bf16"):
        raise UnknownName("training_precision", training_precision, ("auto", "fp32", "bf16"))


class EncoderObjective(Objective):
    """An objective over a copy of a representation, `encoder`, whose batch norms learn statistics or keep
    them; the copy is laid out for training."""

    def __init__(self, encoder: Representation, *, batch_norm: str) -> None:
        super().__init__()
        lay_out(encoder, channels_last=True)
        self.encoder = encoder
        self._learns_norms = batch_norm == "train"

    def train(self, mode: bool = True) -> EncoderObjective:
        """Training mode, but for batch norms that keep their statistics."""
        super().train(mode)
        if not self._learns_norms:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm) and self._in_encoder(module):
                    module.eval()
        return self

    def embed(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> pooled features of the encoder (B, sum C_l), float32."""
        return pool(self.encoder(images))[0]

    def _in_encoder(self, module: nn.Module) -> bool:
        return any(module is inner for inner in self.encoder.modules())


def run(
    objective: EncoderObjective,
    base: Representation,
    good: SampleStore,
    *,
    method: str,
    settings: dict[str, Any],
    iterations: int,
    batch_size: int,
    training_precision: str,
    seed: int,
    options: FitOptions,
    with_replacement: bool = False,
    clip: float | None = None,
) -> Representation:
    """Train `objective.encoder` in place; the adapted representation. Raises what `train` raises.

    settings: all that decides the result, for the checkpoint. with_replacement: images of a batch are drawn
    independently, instead of in shuffled passes. `options.evaluate` gets (step, a copy of the representation
    as it is by then)."""

    def result(encoder: Representation) -> Representation:
        made = copy.deepcopy(encoder).cpu().eval().requires_grad_(False)
        lay_out(made, channels_last=False)
        made.card = {**adapted_card(base.card, method, len(good)), "offsets": list(base.offsets)}
        return made

    def on_step_end(step: int, steps: int) -> dict[str, float] | None:
        if options.progress is not None:
            options.progress(len(good), f"adapting, step {step} of {steps}")
        if options.evaluate is None or (step % options.evaluate_every and step < steps):
            return None
        return options.evaluate(step, result(objective.encoder))

    def stream(position: Position) -> dict[str, Any]:
        if not with_replacement:
            return good.stream(position, seed=seed)
        drawn = [int(torch.randint(len(good), (), generator=g)) for g in position.generators(seed)]
        return {"images": good.take(drawn).require_images()}

    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    train(
        objective,
        stream,
        steps=iterations,
        batch_size=batch_size,
        clip=clip,
        folder=options.folder,
        recipe={"adaptation": method, **plain, "seed": seed, "images": len(good), "weights": digest(base)},
        resume=options.resume,
        checkpoint_every=options.checkpoint_every,
        precision=training_precision,
        devices=1,  # an adaptation stays in its process, whatever started the program
        nodes=1,
        title=method,
        show=options.progress is None,
        on_step_end=on_step_end,
    )
    return _finite(result(objective.encoder), good, method)


@torch.inference_mode()
def _finite(made: Representation, good: SampleStore, method: str) -> Representation:
    """What was made, if its features are numbers. Raises NotFinite."""
    if not bool(pool(made(good.take([0]).require_images()))[0].isfinite().all()):
        raise NotFinite(
            f"The network that {method} trained gives NaN or infinity. Take a smaller learning_rate, or "
            "training_precision='fp32'."
        )
    return made


@torch.inference_mode()
def pooled_features(base: Representation, good: SampleStore) -> Tensor:
    """(n, sum C_l) float32: features of each good image before any training, averaged over positions.

    Raises NotFinite."""
    extract = base.inference_copy("fp32", "cpu")
    rows = torch.cat([pool(extract(batch.require_images()))[0] for batch in good.batches(BATCH)]).clone()
    if not bool(rows.isfinite().all()):
        raise NotFinite(f"{base.card['name']} gives NaN or infinity for the good images: nothing to adapt.")
    return rows


def seed_from(generator: torch.Generator) -> int:
    """A seed for all that is drawn on the way."""
    return int(torch.randint(2**31, (), generator=generator))
