"""Learning-rate schedules: pure functions of the step, so a resumed run needs no memory of them; all give a
factor on the base rate."""

from __future__ import annotations

import math


def constant(step: int, steps: int, *, warmup: int = 0) -> float:
    """1, after a linear rise over the first `warmup` steps."""
    return _rise(step, warmup)


def cosine(step: int, steps: int, *, warmup: int = 0, final: float = 0.0) -> float:
    """Half a cosine from 1 at the end of the warm-up to `final` at the end of the run (Loshchilov and Hutter,
    SGDR, 2017)."""
    if step < warmup:
        return _rise(step, warmup)
    share = (step - warmup) / max(steps - warmup, 1)
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))


def steps_down(
    step: int, steps: int, *, at: tuple[float, ...] = (1 / 3, 2 / 3), factor: float = 0.1, warmup: int = 0
) -> float:
    """Multiplied by `factor` at each share `at` of the run: (1/3, 2/3) are epochs 30 and 60 of 90."""
    passed = sum(step >= share * steps for share in at)
    return _rise(step, warmup) * float(factor**passed)


def _rise(step: int, warmup: int) -> float:
    return min((step + 1) / warmup, 1.0) if warmup > 0 else 1.0
