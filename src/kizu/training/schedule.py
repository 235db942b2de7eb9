"""Learning-rate schedules: pure functions of the step, all giving a factor on the base rate.

A resumed run needs no memory of them."""

from __future__ import annotations

import math

from kizu.checks import numbers, whole_numbers
from kizu.errors import UsageError


def constant_schedule(step: int, steps: int, *, warmup: int = 0) -> float:
    """1, after a linear rise over the first `warmup` steps. Raises UsageError.

    >>> [constant_schedule(step, 9, warmup=4) for step in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    _check(step, steps, warmup)
    return _rise(step, warmup)


def cosine_schedule(step: int, steps: int, *, warmup: int = 0, final: float = 0.0) -> float:
    """Half a cosine from 1 at the end of the warm-up to `final` at the end of the run.

    Source: Loshchilov and Hutter, SGDR, ICLR 2017, Eq. 5, without restarts. Raises UsageError.

    >>> [round(cosine_schedule(step, 4), 2) for step in range(5)]
    [1.0, 0.85, 0.5, 0.15, 0.0]
    """
    _check(step, steps, warmup)
    numbers(least=0, most=1, final=final)
    if step < warmup:
        return _rise(step, warmup)
    progress = (step - warmup) / max(steps - warmup, 1)
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def multistep(
    step: int,
    steps: int,
    *,
    milestones: tuple[float, ...] = (1 / 3, 2 / 3),
    gamma: float = 0.1,
    warmup: int = 0,
) -> float:
    """Multiplied by `gamma` at each milestone, a fraction of the run: (1/3, 2/3) are epochs 30 and 60 of 90.

    Raises UsageError.

    >>> [round(multistep(step, 6), 2) for step in range(6)]
    [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    """
    _check(step, steps, warmup)
    numbers(least=0, above=True, most=1, gamma=gamma)
    if not all(0.0 <= fraction <= 1.0 for fraction in milestones):
        raise UsageError(f"milestones are fractions of the run, from 0 to 1, got {milestones}.")
    passed = sum(step >= fraction * steps for fraction in milestones)
    return _rise(step, warmup) * float(gamma**passed)


def _check(step: int, steps: int, warmup: int) -> None:
    whole_numbers(least=0, step=step)
    whole_numbers(steps=steps)
    whole_numbers(least=0, warmup=warmup)


def _rise(step: int, warmup: int) -> float:
    return min((step + 1) / warmup, 1.0) if warmup > 0 else 1.0
