"""The loop: Lightning Fabric places it (device, precision, processes), the position in the run decides all
that is random.

A step's images and its chances are pure functions of the step. So a resumed run goes on exactly where it
stopped, two processes of half the batch see what one of the whole would see, and batches can be prepared
ahead by a thread."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kizu import store
from kizu.engine import device_named, has_bf16
from kizu.errors import NotFinite, UsageError
from kizu.training import checkpoint
from kizu.training.distributed import launched, total
from kizu.training.log import Log, Progress
from kizu.training.prefetch import Position, Prefetch, Stream, signals

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


class Objective(nn.Module):
    """What is minimised, and how. Subclasses give `loss` and `optimiser`; the other hooks do nothing unless
    overridden."""

    def prepare(self, batch: Any, position: Position) -> Any:
        """Batch on the device -> what `loss` takes: views, planted flaws. Without gradient and in full
        precision."""
        return batch

    def loss(self, batch: Any) -> dict[str, Tensor]:
        """Scalars by name: "loss" is minimised, the others are logged."""
        raise NotImplementedError

    def optimiser(self) -> torch.optim.Optimizer:
        """The optimiser, its learning rates at their base values."""
        raise NotImplementedError

    def factor(self, step: int, steps: int) -> float | list[float]:
        """Factor on the base learning rate at a step, one for all parameter groups or one each."""
        return 1.0

    def after_step(self, step: int, steps: int) -> dict[str, float] | None:
        """After each optimiser step: moving averages, queues, resets. Figures that it returns are logged with
        this step."""

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """`loss`, by the name that wrappers of many processes expect."""
        return self.loss(batch)


def train(
    objective: Objective,
    stream: Stream,
    *,
    steps: int,
    batch_size: int,
    accumulate: int = 1,
    clip: float | None = None,
    folder: Path | str | None = None,
    recipe: dict[str, Any] | None = None,
    resume: bool = False,
    precision: str = "auto",
    device: str = "auto",
    devices: int | None = None,
    nodes: int | None = None,
    log_every: int = 10,
    checkpoint_every: int = 200,
    title: str = "training",
    show: bool = True,
    on_step_end: Callable[[int, int], dict[str, float] | None] | None = None,
) -> list[dict[str, Any]]:
    """Train `objective` in place for `steps` optimiser steps; the rows of the log.

    batch_size: images of one optimiser step, over all processes and `accumulate` parts. clip: largest norm
    of the gradient. folder: for log.jsonl and checkpoint.kizu, replaced atomically every `checkpoint_every`
    steps, at the end, and when SIGTERM or Ctrl-C comes; None keeps neither. recipe: plain settings; a
    checkpoint of others is refused. resume: go on from folder's checkpoint. precision: "auto" is bf16
    (autocast) where the machine has it, else fp32. devices, nodes: processes on this machine and machines (by
    default what torchrun set, or 1). Same seed, same result, bit for bit on one CPU process; interrupted or
    not. Raises UsageError for settings that cannot be meant or another recipe's checkpoint; NotFinite when
    the loss is NaN or infinite: the last checkpoint is kept and the batch is beside it. SIGTERM ends in
    SystemExit(143), Ctrl-C in KeyboardInterrupt, both after saving."""
    check_counts(
        steps=steps,
        batch_size=batch_size,
        accumulate=accumulate,
        log_every=log_every,
        checkpoint_every=checkpoint_every,
    )
    if precision not in ("auto", *PRECISIONS):
        raise UsageError(f"precision is auto, {' or '.join(PRECISIONS)}, got {precision!r}.")
    fabric = _fabric(precision, device, devices, nodes)
    parts = fabric.world_size * accumulate
    if batch_size % parts:
        raise UsageError(
            f"A batch of {batch_size} cannot be shared by {fabric.world_size} processes x {accumulate} "
            "parts: give a multiple."
        )
    settings = {**(recipe or {}), "steps": steps, "batch_size": batch_size, "accumulate": accumulate}
    run = _Run(objective, fabric, None if folder is None else Path(folder), settings, accumulate, clip)
    run.on_step_end = on_step_end
    first = run.begin(resume)
    positions = list(_shares(batch_size, fabric.global_rank, fabric.world_size, accumulate))
    progress = Progress(title, first, steps, show=show and fabric.is_global_zero)
    try:
        with Prefetch(stream, positions, first, steps, batch_size) as ahead, signals() as stopped:
            run.loop(first, steps, ahead, stopped, progress, log_every, checkpoint_every)
    finally:
        progress.close()
    return run.log.rows


def check_counts(**given: int) -> None:
    """Raise UsageError for a count that is no whole number above 0."""
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{name} is a whole number from 1 on, got {value!r}.")


def _fabric(precision: str, device: str, devices: int | None, nodes: int | None) -> Any:
    from lightning_fabric import Fabric

    kind = device_named(device)
    here, machines = launched()
    count, machines = devices or here, nodes or machines
    if precision == "auto":
        precision = "bf16" if has_bf16(kind) else "fp32"
    fabric = Fabric(
        accelerator=kind.type,
        devices=[kind.index] if kind.index is not None and count == 1 else count,
        num_nodes=machines,
        strategy="ddp" if count * machines > 1 else "auto",
        precision=PRECISIONS[precision],  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def _shares(batch_size: int, rank: int, world: int, accumulate: int) -> Iterator[tuple[int, int]]:
    """(offset, count) in the batch of each part that this process works on."""
    count = batch_size // (world * accumulate)
    for part in range(accumulate):
        yield (part * world + rank) * count, count


class _Run:
    """One run: the objective as Fabric set it up, its optimiser and its log."""

    def __init__(
        self,
        objective: Objective,
        fabric: Any,
        folder: Path | None,
        recipe: dict[str, Any],
        parts: int,
        clip: float | None,
    ) -> None:
        self.objective, self.fabric, self.folder, self.recipe, self.parts, self.clip = (
            objective,
            fabric,
            folder,
            recipe,
            parts,
            clip,
        )
        self.on_step_end: Callable[[int, int], dict[str, float] | None] | None = None
        self.plain = objective.optimiser()
        self.module, self.optimiser = fabric.setup(objective, self.plain)
        self.base = [float(group["lr"]) for group in self.plain.param_groups]
        self.log = Log(folder if fabric.is_global_zero else None)

    def begin(self, resume: bool) -> int:
        """Steps done already."""
        step = 0
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        if resume:
            if self.folder is None:
                raise UsageError("resume needs the folder of the run.")
            step = checkpoint.step_of(self.folder, self.recipe)
            checkpoint.restore(self.folder, self.objective, self.plain)
        self.log.begin(step)
        self.objective.train()
        return step

    def loop(
        self,
        first: int,
        steps: int,
        ahead: Prefetch,
        stopped: list[int],
        progress: Progress,
        log_every: int,
        checkpoint_every: int,
    ) -> None:
        """Steps `first` to `steps`."""
        sums: dict[str, float] = {}
        since, counted, images = time.perf_counter(), 0, int(self.recipe["batch_size"])
        for step in range(first, steps):
            values = self._step(step, steps, ahead)
            paused = time.perf_counter()
            noted = {**(self.objective.after_step(step, steps) or {})}
            if self.on_step_end is not None:
                noted |= self.on_step_end(step + 1, steps) or {}
            since += time.perf_counter() - paused if noted else 0.0  # looking at the model is not training it
            counted += 1
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value
            done, stop = step + 1, bool(self._agree(len(stopped)))
            if noted or done % log_every == 0 or done == steps or stop:
                rate = counted * images / max(time.perf_counter() - since, 1e-9)
                means = {name: value / counted for name, value in sums.items()}
                facts = {"lr": float(self.plain.param_groups[0]["lr"]), "images_per_s": round(rate, 1)}
                self.log.add({"step": done, **means, **noted, **facts})
                progress.step(done, f"loss {means['loss']:.4f}  {rate:.0f} images/s")
                sums, since, counted = {}, time.perf_counter(), 0
            else:
                progress.step(done)
            if done % checkpoint_every == 0 or done == steps or stop:
                self._save(done)
            if stop and done < steps:
                raise KeyboardInterrupt if stopped == [signal.SIGINT] else SystemExit(143)

    def _step(self, step: int, steps: int, ahead: Prefetch) -> dict[str, float]:
        factors = self.objective.factor(step, steps)
        for index, group in enumerate(self.plain.param_groups):
            group["lr"] = self.base[index] * (factors[index] if isinstance(factors, list) else factors)
        sums: dict[str, Tensor] = {}
        self.optimiser.zero_grad()
        for part in range(self.parts):
            batch, position = ahead.next()
            with torch.no_grad():
                batch = self.objective.prepare(self.fabric.to_device(batch), position)
            with (
                self._chances(position),
                self.fabric.no_backward_sync(self.module, enabled=part < self.parts - 1),
            ):
                terms = self.module(batch)
                self.fabric.backward(terms["loss"] / self.parts)
            for name, value in terms.items():
                sums[name] = (
                    sums.get(name, torch.zeros((), device=value.device)) + value.detach().float() / self.parts
                )
            self._check(float(terms["loss"].detach()), batch, step)
        if self.clip is not None:
            self.fabric.clip_gradients(
                self.module, self.optimiser, max_norm=self.clip, error_if_nonfinite=False
            )
        self.optimiser.step()
        values = total(torch.stack(list(sums.values()))) / self.fabric.world_size
        return dict(zip(sums, values.tolist(), strict=True))

    @contextlib.contextmanager
    def _chances(self, position: Position) -> Iterator[None]:
        """What a network draws from torch's own generators (dropout) is a function of the position; the
        caller's are put back."""
        device = self.fabric.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.default_generator.manual_seed(position.first)
            if device.type == "cuda":
                torch.cuda.manual_seed(position.first)
            yield

    def _agree(self, value: int) -> float:
        return (
            float(total(torch.tensor(float(value), device=self.fabric.device)))
            if self.fabric.world_size > 1
            else value
        )

    def _check(self, loss: float, batch: Any, step: int) -> None:
        bad = not abs(loss) < float("inf")
        if not self._agree(int(bad)):
            return
        what, said = f"is {loss}" if bad else "of another process is not finite", ""
        if bad and self.folder is not None:
            path = self.folder / f"not_finite_{self.fabric.global_rank}.kizu"
            store.save(
                path,
                dict(_tensors(batch)),
                {"kind": "batch", "step": step, "loss": str(loss)},
                overwrite=True,
            )
            said = f" The batch is in {path}; the last good checkpoint is kept beside it."
        raise NotFinite(
            f"The loss {what} at step {step}: training stopped.{said} Try a smaller learning rate, or "
            "precision fp32."
        )

    def _save(self, step: int) -> None:
        if self.folder is not None and self.fabric.is_global_zero:
            checkpoint.save(self.folder, self.objective, self.plain, step, self.recipe)
        self.fabric.barrier()


def _tensors(batch: Any, name: str = "batch") -> Iterator[tuple[str, Tensor]]:
    if isinstance(batch, Tensor):
        yield name, batch
    elif isinstance(batch, dict):
        for key, value in batch.items():
            yield from _tensors(value, f"{name}.{key}")
    elif isinstance(batch, (list, tuple)):
        for index, value in enumerate(batch):
            yield from _tensors(value, f"{name}.{index}")
