"""Batches in the order of the run, prepared in advance by a thread; and signals, noted until a step is
complete."""

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

DEPTH = 2
"""Batches that are prepared in advance."""


@dataclass(frozen=True)
class Position:
    """Where a batch lies in the run: images `first` to `first + count` of an endless sequence, in optimiser
    step `step`."""

    step: int
    first: int
    count: int

    def generators(self, seed: int) -> list[torch.Generator]:
        """One CPU generator for each image, a function of the seed and the image's number alone.

        A CPU generator uses only the low 32 bits of its seed. So seeds start far apart (by the golden
        ratio), and the images of one seed do not repeat those of another.

        >>> first, second = (Position(0, 5, 1).generators(seed)[0] for seed in (0, 1))
        >>> first.initial_seed() == second.initial_seed()
        False
        """
        start = 2**31 + seed * 2_654_435_761 + self.first
        return [torch.Generator().manual_seed((start + i) % 2**32) for i in range(self.count)]


Stream = Callable[[Position], Any]
"""Position -> batch (a tensor, or a tuple or dict of tensors), on the CPU. It is called by a thread and
must depend on nothing but the position."""


class Prefetch:
    """Batches of the run in order, prepared in advance by one thread whose torch operations use one core.

    parts: (offset, count) in each step's batch of what this process works on."""

    def __init__(
        self, stream: Stream, parts: list[tuple[int, int]], first: int, steps: int, batch_size: int
    ) -> None:
        self._stream = stream
        self._positions: Iterator[Position] = (
            Position(step, step * batch_size + offset, count)
            for step in range(first, steps)
            for offset, count in parts
        )
        self._pool = single_threaded_pool(1, "kizu-train")
        self._pending: list[tuple[Future[Any], Position]] = []

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *_: object) -> None:
        self._positions = iter(())
        self._pool.shutdown(wait=True, cancel_futures=True)

    def next(self) -> tuple[Any, Position]:
        """The next batch and its position."""
        while len(self._pending) <= DEPTH:
            position = next(self._positions, None)
            if position is None:
                break
            self._pending.append((self._pool.submit(self._stream, position), position))
        future, position = self._pending.pop(0)
        return future.result(), position


@contextlib.contextmanager
def noted_signals() -> Iterator[list[int]]:
    """A list to which SIGTERM and Ctrl-C are added instead of stopping the program.

    A second Ctrl-C stops at once. Outside the main thread signals keep their meaning."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, _: FrameType | None) -> None:
        if number in received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
