"""In which precision a training computes where none is named: a step of it, tried in both."""

from __future__ import annotations

import copy
import functools
import json
from typing import Any

import torch

from kizu.engine import device_named
from kizu.precision import Choice, Run, choose
from kizu.training.objective import Objective
from kizu.training.prefetch import Position, Stream

IMAGES = 8
"""Of the step that is tried, at most."""


def training_precision(
    objective: Objective, stream: Stream, asked: str, device: str, batch_size: int
) -> Choice:
    """The precision of a run of one process: what is asked for, or for "auto" the faster one, by forward and
    backward pass of a copy of `objective` on the first images. Raises UsageError."""
    first = Position(0, 0, min(IMAGES, batch_size))
    return choose(
        asked,
        device_named(device),
        functools.partial(_network, objective, first.count),
        functools.partial(_step, objective, stream, first),
    )


def _network(objective: Objective, count: int) -> str:
    """What identifies the work of a step: method, shapes, image size, threads."""
    shapes = [tuple(parameter.shape) for parameter in objective.parameters()]
    sizes = {name: getattr(objective, name) for name in ("size",) if hasattr(objective, name)}
    return json.dumps([type(objective).__qualname__, shapes, sizes, count, torch.get_num_threads()])


def _step(objective: Objective, stream: Stream, first: Position, dtype: torch.dtype) -> Run:
    """A forward and a backward pass of a copy, which is thrown away."""
    twin = copy.deepcopy(objective).train()
    with torch.no_grad():
        batch: Any = twin.prepare(stream(first), first)
    half = dtype == torch.bfloat16

    def run() -> None:
        with torch.random.fork_rng(devices=[]):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = twin(batch)["loss"]
            loss.backward()

    return run
