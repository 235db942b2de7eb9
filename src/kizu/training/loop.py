"""The loop. Lightning Fabric places a run on its devices; the position in the run decides all that is random.

The images of a step and its random draws are pure functions of the step. So a resumed run goes on exactly
where it stopped, two processes with half of the batch each see what one process with all of it would see,
and a thread can prepare batches in advance."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kizu import store
from kizu.checks import numbers, switches, whole_numbers
from kizu.errors import NotFinite, UsageError
from kizu.launchers import is_one_of_many, world_size
from kizu.training import checkpoint
from kizu.training._trial import training_precision
from kizu.training.distributed import total
from kizu.training.fabric import launch_fabric, precision_of_many
from kizu.training.log import Log, Progress
from kizu.training.objective import Objective
from kizu.training.prefetch import Position, Prefetch, Stream, noted_signals
from kizu.training.sync_batch_norm import synchronise_batch_norms

OnStepEnd = Callable[[int, int], dict[str, float] | None]
"""(steps done, steps in all) -> figures to log with this step, or None."""


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
    sync_batch_norm: bool | None = None,
    log_every: int = 10,
    checkpoint_every: int = 200,
    title: str = "training",
    show: bool = True,
    on_step_end: OnStepEnd | None = None,
) -> list[dict[str, Any]]:
    """Train `objective` in place for `steps` optimiser steps; return the rows of the log.

    batch_size: images of one optimiser step, over all processes and all `accumulate` parts. clip: largest
    norm of the gradient; None does not clip. precision: "auto" is the faster one (kizu.precision; bf16 is
    autocast), or with several processes bf16 where the machine has it. A resumed run keeps the precision it
    began with; `objective.precision_` says which that was. devices, nodes: processes on this machine, and
    machines; None is what torchrun set, or 1; both 1 is this process alone, whoever started it.
    sync_batch_norm: whether several processes share the statistics of batch norms, and so give what one
    process would; None is what the objective says (`Objective.sync_batch_norm`). log_every,
    checkpoint_every: steps between two rows of the log and between two checkpoints.

    folder: gets log.jsonl and checkpoint.kizu, which is replaced atomically every `checkpoint_every` steps,
    at the end, and on SIGTERM or Ctrl-C. None writes neither. recipe: plain settings, kept in the
    checkpoint; a checkpoint of another recipe is refused. resume: go on from the checkpoint in `folder`.

    on_step_end: called after each step; figures that it returns are logged with the step.

    The same seed gives the same result, bit for bit on one CPU process, interrupted or not. Raises
    UsageError for settings out of range and for another recipe's checkpoint; NotFinite when the loss is NaN
    or infinite (the last checkpoint stays, and the batch is written beside it). After saving, SIGTERM ends
    in SystemExit(143) and Ctrl-C in KeyboardInterrupt."""
    whole_numbers(steps=steps, batch_size=batch_size, accumulate=accumulate)
    whole_numbers(log_every=log_every, checkpoint_every=checkpoint_every)
    whole_numbers(none=True, devices=devices, nodes=nodes)
    if clip is not None:
        numbers(least=0, above=True, clip=clip)
    shares_norms = objective.sync_batch_norm if sync_batch_norm is None else sync_batch_norm
    switches(sync_batch_norm=shares_norms)
    _check_shares(batch_size, world_size(devices, nodes), accumulate)  # before processes are started
    many = is_one_of_many(devices, nodes)
    chosen = checkpoint.precision_of(folder) if resume and precision == "auto" and folder else None
    if chosen is None and not many:
        chosen = training_precision(objective, stream, precision, device, batch_size // accumulate)
    fabric = launch_fabric(chosen.precision if chosen else precision, device, devices, nodes)
    objective.precision_ = chosen or precision_of_many(precision, device)
    _check_shares(batch_size, fabric.world_size, accumulate)
    settings = {**(recipe or {}), "steps": steps, "batch_size": batch_size, "accumulate": accumulate}
    if fabric.world_size > 1 and shares_norms:
        synchronise_batch_norms(objective, fabric.device)
    run = _Run(objective, fabric, None if folder is None else Path(folder), settings, accumulate, clip)
    run.on_step_end = on_step_end
    first = run.begin(resume)
    parts = _parts(batch_size, fabric.global_rank, fabric.world_size, accumulate)
    progress = Progress(title, first, steps, show=show and fabric.is_global_zero)
    try:
        with Prefetch(stream, parts, first, steps, batch_size) as batches, noted_signals() as received:
            run.loop(first, steps, batches, received, progress, log_every, checkpoint_every)
    finally:
        progress.close()
    return run.log.rows


def _check_shares(batch_size: int, processes: int, accumulate: int) -> None:
    if batch_size % (processes * accumulate):
        raise UsageError(
            f"A batch of {batch_size} cannot be shared by {processes} processes x {accumulate} parts: give a "
            "multiple."
        )


def _parts(batch_size: int, rank: int, world: int, accumulate: int) -> list[tuple[int, int]]:
    """(offset, count) in the batch of each part that this process works on."""
    count = batch_size // (world * accumulate)
    return [((part * world + rank) * count, count) for part in range(accumulate)]


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
        self.objective, self.fabric, self.folder = objective, fabric, folder
        self.recipe, self.parts, self.clip = recipe, parts, clip
        self.on_step_end: OnStepEnd | None = None
        self.precision = objective.precision_
        self.plain_optimiser = objective.optimiser()
        self.module, self.optimiser = fabric.setup(objective, self.plain_optimiser)
        self.base_rates = [float(group["lr"]) for group in self.plain_optimiser.param_groups]
        self.log = Log(folder if fabric.is_global_zero else None)

    def begin(self, resume: bool) -> int:
        """Prepare folder, log and checkpoint; the number of steps that are done already."""
        step = 0
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        if resume:
            if self.folder is None:
                raise UsageError("resume needs the folder of the run.")
            step = checkpoint.step_of(self.folder, self.recipe)
            checkpoint.restore(self.folder, self.objective, self.plain_optimiser)
        self.log.begin(step)
        self.objective.train()
        return step

    def loop(
        self,
        first: int,
        steps: int,
        batches: Prefetch,
        received: list[int],
        progress: Progress,
        log_every: int,
        checkpoint_every: int,
    ) -> None:
        """Steps `first` to `steps`; `received` grows by the signals that arrive."""
        sums: dict[str, float] = {}
        since, counted, images = time.perf_counter(), 0, int(self.recipe["batch_size"])
        for step in range(first, steps):
            values = self._step(step, steps, batches)
            before_hook = time.perf_counter()
            extra = {**(self.objective.after_step(step, steps) or {})}
            if self.on_step_end is not None:
                extra |= self.on_step_end(step + 1, steps) or {}
            since += time.perf_counter() - before_hook if extra else 0.0  # evaluating is not training
            counted += 1
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value
            done, stop = step + 1, bool(self._sum_over_processes(len(received)))
            saves = done % checkpoint_every == 0 or done == steps or stop
            if extra or done % log_every == 0 or saves:  # rows end at checkpoints: a resumed log is the same
                rate = counted * images / max(time.perf_counter() - since, 1e-9)
                means = {name: value / counted for name, value in sums.items()}
                facts = {
                    "lr": float(self.plain_optimiser.param_groups[0]["lr"]),
                    "images_per_s": round(rate, 1),
                }
                self.log.add({"step": done, **means, **extra, **facts})
                progress.step(done, f"loss {means['loss']:.4f}  {rate:.0f} images/s")
                sums, since, counted = {}, time.perf_counter(), 0
            else:
                progress.step(done)
            if saves:
                self._save(done)
            if stop and done < steps:
                raise KeyboardInterrupt if received == [signal.SIGINT] else SystemExit(143)

    def _step(self, step: int, steps: int, batches: Prefetch) -> dict[str, float]:
        """One optimiser step; the means of its scalars over parts and processes."""
        scale = self.objective.lr_scale(step, steps)
        for index, group in enumerate(self.plain_optimiser.param_groups):
            group["lr"] = self.base_rates[index] * (scale[index] if isinstance(scale, list) else scale)
        sums: dict[str, Tensor] = {}
        self.optimiser.zero_grad()
        for part in range(self.parts):
            batch, position = batches.next()
            with torch.no_grad():
                batch = self.objective.prepare(self.fabric.to_device(batch), position)
            with (
                self._seeded(position),
                self.fabric.no_backward_sync(self.module, enabled=part < self.parts - 1),
            ):
                terms = self.module(batch)
                self.fabric.backward(terms["loss"] / self.parts)
            for name, value in terms.items():
                zero = torch.zeros((), device=value.device)
                sums[name] = sums.get(name, zero) + value.detach().float() / self.parts
            self._check_finite(float(terms["loss"].detach()), batch, step)
        if self.clip is not None:
            self.fabric.clip_gradients(
                self.module, self.optimiser, max_norm=self.clip, error_if_nonfinite=False
            )
        self.optimiser.step()
        values = torch.stack(list(sums.values()))
        if self.fabric.world_size > 1:  # else a caller's own processes, which train apart, would be added up
            values = total(values) / self.fabric.world_size
        return dict(zip(sums, values.tolist(), strict=True))

    @contextlib.contextmanager
    def _seeded(self, position: Position) -> Iterator[None]:
        """What a network draws from torch's own generators (dropout) becomes a function of the position; the
        generators' states are put back afterwards."""
        device = self.fabric.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.default_generator.manual_seed(position.first)
            if device.type == "cuda":
                torch.cuda.manual_seed(position.first)
            yield

    def _sum_over_processes(self, value: int) -> float:
        if self.fabric.world_size == 1:
            return value
        return float(total(torch.tensor(float(value), device=self.fabric.device)))

    def _check_finite(self, loss: float, batch: Any, step: int) -> None:
        """Raise NotFinite in every process when the loss of one is NaN or infinite; that one saves its
        batch."""
        bad = not abs(loss) < float("inf")
        if not self._sum_over_processes(int(bad)):
            return
        state, where = f"is {loss}" if bad else "of another process is not finite", ""
        if bad and self.folder is not None:
            path = self.folder / f"not_finite_{self.fabric.global_rank}.kizu"
            card = {"kind": "batch", "step": step, "loss": str(loss)}
            store.save(path, dict(_tensors(batch)), card, overwrite=True)
            where = f" The batch is in {path}; the last good checkpoint is kept beside it."
        raise NotFinite(
            f"The loss {state} at step {step}: training stopped.{where} Try a smaller learning rate, or "
            "precision fp32."
        )

    def _save(self, step: int) -> None:
        if self.folder is not None and self.fabric.is_global_zero:
            checkpoint.save(
                self.folder, self.objective, self.plain_optimiser, step, self.recipe, self.precision
            )
        self.fabric.barrier()


def _tensors(batch: Any, name: str = "batch") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a nested batch, named by their path in it: "batch.view1", "batch.0"."""
    if isinstance(batch, Tensor):
        yield name, batch
    elif isinstance(batch, dict):
        for key, value in batch.items():
            yield from _tensors(value, f"{name}.{key}")
    elif isinstance(batch, (list, tuple)):
        for index, value in enumerate(batch):
            yield from _tensors(value, f"{name}.{index}")
