"""Batches in the order of the run, prepared ahead by a thread; and signals, noted instead of obeyed until a
step is whole."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

from kizu.engine import single_threaded_pool

AHEAD = 2
"""Batches prepared ahead of their use."""


@dataclass(frozen=True)
class Position:
    """Where a batch lies in the run: images `first` to `first + count` of the endless sequence, in
    optimiser step `step`."""

    step: int
    first: int
    count: int

    def generators(self, seed: int) -> list[torch.Generator]:
        """One CPU generator an image, a function of seed and image alone.

        A CPU generator heeds the low 32 bits of its seed only, so these must differ: seeds start far apart
        (by the golden ratio)."""
        start = 2**31 + seed * 2_654_435_761 + self.first
        return [torch.Generator().manual_seed((start + i) % 2**32) for i in range(self.count)]


Stream = Callable[[Position], Any]
"""Position -> batch (a tensor, or a tuple or dict of tensors), on the CPU. Called by a thread; must not
depend on anything else."""


class Prefetch:
    """Batches of the run in order, prepared ahead by one thread, which works alone."""

    def __init__(
        self, stream: Stream, shares: list[tuple[int, int]], first: int, steps: int, batch_size: int
    ) -> None:
        self._stream = stream
        self._positions = (
            Position(step, step * batch_size + offset, count)
            for step in range(first, steps)
            for offset, count in shares
        )
        self._pool = single_threaded_pool(1, "kizu-train")
        self._waiting: list[tuple[Future[Any], Position]] = []

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *_: object) -> None:
        self._positions = iter(())  # type: ignore[assignment]
        self._pool.shutdown(wait=True, cancel_futures=True)

    def next(self) -> tuple[Any, Position]:
        """The next batch and its position."""
        while len(self._waiting) <= AHEAD:
            position = next(self._positions, None)
            if position is None:
                break
            self._waiting.append((self._pool.submit(self._stream, position), position))
        future, position = self._waiting.pop(0)
        return future.result(), position


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """A list that SIGTERM and Ctrl-C add themselves to; outside the main thread they do what they did before."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def note(number: int, _: FrameType | None) -> None:
        if number in came and number == signal.SIGINT:
            raise KeyboardInterrupt  # twice: at once
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
