"""Schedules against closed forms."""

from __future__ import annotations

import math

import pytest

from kizu.training import constant_schedule, cosine_schedule, multistep


@pytest.mark.parametrize("final", [0.0, 0.1])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (10, 0), (10, 3), (100, 7), (5, 5)])
def test_cosine_schedule(steps: int, warmup: int, final: float) -> None:
    for step in range(steps):
        angle = math.pi * (step - warmup) / max(steps - warmup, 1)
        due = (step + 1) / warmup if step < warmup else final + (1 - final) * math.cos(angle / 2) ** 2
        assert cosine_schedule(step, steps, warmup=warmup, final=final) == pytest.approx(due, abs=1e-12)
    assert cosine_schedule(steps, steps, warmup=warmup, final=final) == pytest.approx(
        final if steps > warmup else 1.0
    )


def test_cosine_starts_at_one_and_falls() -> None:
    values = [cosine_schedule(step, 50) for step in range(50)]
    assert values[0] == 1
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(25.5), "a cosine and its mirror image add up to 1"


def test_steps_down() -> None:
    assert [multistep(step, 9) for step in range(9)] == pytest.approx(
        [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01]
    )
    assert [multistep(step, 10, milestones=(0.6, 0.8), gamma=0.5) for step in range(10)] == [1] * 6 + [
        0.5
    ] * 2 + [0.25] * 2
    assert [multistep(step, 90) for step in (29, 30, 59, 60)] == pytest.approx([1, 0.1, 0.1, 0.01]), (
        "epochs 30 and 60 of 90"
    )
    assert multistep(0, 100, warmup=4) == 0.25


def test_constant() -> None:
    assert [constant_schedule(step, 9) for step in range(3)] == [1, 1, 1]
    assert [constant_schedule(step, 9, warmup=4) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]
