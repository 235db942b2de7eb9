"""ReContrast: what the training loop costs beside its own networks written plainly, and what bfloat16 brings
at inference.

Training: the loop of kizu.training (batches prepared, log, checks) against forward, backward and optimiser of
the very same objective on a batch at hand, in turn in one run. Inference: `detector.predict` in bf16 (where
the machine has it) against float32.

    python benchmarks/reconstruction.py [--rounds 5] [--steps 6] [--size 256] [--batch-size 8]
    [--representation NAME] [--quick --out FOLDER]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import _harness
import torch

import kizu
from kizu.engine import has_bf16
from kizu.training import Position, SampleStore, train
from kizu.types import Batch

CASES = ("reverse_distillation", "recontrast")
WARM = 2
"""Steps before the clock starts: the optimiser's moments are made in the first."""
QUICK = {
    "rounds": 1,
    "steps": 1,
    "size": 32,
    "batch_size": 2,
    "representation": "random/resnet10t@1,2",
}


def looped(detector: Any, samples: SampleStore, given: argparse.Namespace) -> Callable[[], float]:
    """Seconds of `steps` steps by the loop, once it is under way: from the end of its second step on."""
    objective = detector.objective(detector.network())
    stamps: list[float] = []

    def run() -> float:
        stamps.clear()
        train(
            objective,
            functools.partial(samples.stream, seed=0),
            steps=given.steps + WARM,
            batch_size=given.batch_size,
            show=False,
            on_step_end=lambda step, steps: stamps.append(time.perf_counter()),
        )
        return stamps[-1] - stamps[WARM - 1]

    return run


def plain(detector: Any, samples: SampleStore, given: argparse.Namespace) -> Callable[[], Any]:
    """The same steps without a loop around them."""
    objective = detector.objective(detector.network()).train()
    optimiser = objective.optimiser()
    batch = samples.stream(Position(0, 0, given.batch_size), seed=0)
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


def measure(name: str, images: torch.Tensor, given: argparse.Namespace) -> dict[str, Any]:
    """Medians of training and of inference of one detector."""
    make = functools.partial(
        kizu.detector,
        name,
        given.representation,
        image_size=given.size,
        batch_size=given.batch_size,
        iterations=1,
    )
    samples = SampleStore()
    samples.add(Batch(images))
    detector = make()
    training = {"plain": plain(detector, samples, given), "loop": looped(detector, samples, given)}
    seconds = _harness.interleave(training, given.rounds)
    kinds = ("fp32", "bf16") if has_bf16(torch.device("cpu")) else ("fp32",)
    fitted = {kind: make(precision=kind).fit(images) for kind in kinds}
    look = images[: given.batch_size]
    looking = _harness.interleave(
        {kind: functools.partial(model.predict, look) for kind, model in fitted.items()}, given.rounds
    )
    overhead = seconds["loop"]["median"] / seconds["plain"]["median"] - 1
    row = {"training": seconds, "inference": looking, "overhead": overhead}
    if "bf16" in looking:
        row["bf16_over_fp32"] = looking["fp32"]["median"] / looking["bf16"]["median"]
    return row


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and write reconstruction.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--representation", default="kizu/starter")
    given = _harness.parsed(parser, arguments, quick=QUICK)
    images = torch.rand(
        2 * given.batch_size, 3, given.size, given.size, generator=torch.Generator().manual_seed(0)
    )
    images = (images * 255).round() / 255
    rows = {}
    for name in CASES:
        rows[name] = row = measure(name, images, given)
        faster = f", bf16 {row['bf16_over_fp32']:.2f} times as fast as fp32" if len(row) > 3 else ""
        print(f"{name}: loop overhead {100 * row['overhead']:+.1f} %{faster}")
    workload = {key: getattr(given, key) for key in ("size", "batch_size", "steps")}
    workload = {"backbone": given.representation, **workload}
    print(_harness.write("reconstruction", given.results, workload=workload, rows=rows))


if __name__ == "__main__":
    main()
