"""ReContrast: what the training loop costs beside its own networks written plainly, and what bfloat16 brings
at inference.

Training: the loop of kizu.training (batches prepared, log, checks) against forward, backward and optimiser of
the very same objective on a batch at hand, in turn in one run. Inference: `detector.predict` in bf16 (where
the machine has it) against float32.

    python benchmarks/reconstruction.py [--rounds 5] [--steps 6] [--size 256] [--batch-size 8]
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from typing import Any

import _harness
import torch
from kizu.detectors._images import Images

import kizu
from kizu.engine import has_bf16
from kizu.training import Position, train
from kizu.types import Batch

CASES = ("reverse_distillation", "recontrast")
WARM = 2
"""Steps before the clock starts: the optimiser's moments are made in the first."""


def looped(detector: Any, pictures: Images, given: argparse.Namespace) -> Callable[[], float]:
    """Seconds of `steps` steps by the loop, once it is under way: from the end of its second step on."""
    objective = detector._objective(detector._new_net(0), None)
    real, stamps = objective.after_step, []

    def after_step(step: int, steps: int) -> Any:
        stamps.append(time.perf_counter())
        return real(step, steps)

    objective.after_step = after_step

    def run() -> float:
        stamps.clear()
        train(
            objective,
            lambda position: pictures.stream(position, seed=0),
            steps=given.steps + WARM,
            batch_size=given.batch_size,
            show=False,
        )
        return stamps[-1] - stamps[WARM - 1]

    return run


def plain(detector: Any, pictures: Images, given: argparse.Namespace) -> Callable[[], Any]:
    """The same steps without a loop around them."""
    objective = detector._objective(detector._new_net(0), None).train()
    optimiser = objective.optimiser()
    batch = pictures.take(list(range(given.batch_size)))
    native = has_bf16(torch.device("cpu"))

    def run() -> None:
        for step in range(given.steps):
            with torch.no_grad():
                ready = objective.prepare(batch, Position(step, 0, given.batch_size))
            with torch.autocast("cpu", dtype=torch.bfloat16) if native else contextlib.nullcontext():
                loss = objective.loss(ready)["loss"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            objective.after_step(step, given.steps)

    return run


def predicting(detector: Any, precision: str, images: torch.Tensor) -> Callable[[], Any]:
    """A batch through a fitted copy of the detector in this precision."""
    twin = type(detector)(detector.representation, **{**detector.parameters, "precision": precision})
    twin._restore(detector._state())
    twin.fitted_ = True
    return lambda: twin.predict(images)


def main() -> None:
    """Run and write benchmarks/results/reconstruction.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    given = parser.parse_args()
    images = torch.rand(
        2 * given.batch_size, 3, given.size, given.size, generator=torch.Generator().manual_seed(0)
    )
    pictures = Images()
    pictures.add(Batch((images * 255).round() / 255))
    rows = {}
    for name in CASES:
        detector: Any = kizu.detector(name, image_size=given.size, batch_size=given.batch_size, iterations=1)
        training = {"plain": plain(detector, pictures, given), "loop": looped(detector, pictures, given)}
        seconds = _harness.interleave(training, given.rounds)
        detector.fit(images)
        look = images[: given.batch_size]
        looking = _harness.interleave(
            {kind: predicting(detector, kind, look) for kind in ("fp32", "bf16")}, given.rounds
        )
        overhead = seconds["loop"]["median"] / seconds["plain"]["median"] - 1
        rows[name] = {"training": seconds, "inference": looking, "overhead": overhead}
        rows[name]["bf16_over_fp32"] = looking["fp32"]["median"] / looking["bf16"]["median"]
        print(
            f"{name}: loop overhead {100 * overhead:+.1f} %, bf16 {rows[name]['bf16_over_fp32']:.2f} times "
            "as fast as fp32"
        )
    workload = {
        "backbone": "kizu/starter",
        **{key: getattr(given, key) for key in ("size", "batch_size", "steps")},
    }
    print(_harness.write("reconstruction", workload=workload, rows=rows))


if __name__ == "__main__":
    main()
