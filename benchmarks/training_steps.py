"""Seconds of a training step of each learned detector, by default settings, on drawn images of 256 pixels.

The detectors are fitted in turn, a round each, so that a busy minute meets all of them; of each fit a few
steps are timed. A step is all that the training loop does in it: the batch, its views or noise, forward,
backward, optimiser. Features are computed before, where a detector trains on them, and are not part of it.
The representation is the default, each detector's levels of it. TDG's scales share the steps that are timed,
as they share all steps of a fit.

    python benchmarks/training_steps.py [--rounds 3] [--steps 12] [--size 256] [--batch-size 16]
    [--precision fp32] [--detectors NAME ...] [--representation NAME] [--quick --out FOLDER]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import _harness
import torch

import kizu
from kizu.training import FitOptions

DETECTORS = (
    *("autoencoder", "vae", "deep_svdd", "cutpaste", "rotnet", "csi", "differnet", "cflow", "tdg"),
    *("simplenet", "reverse_distillation", "recontrast", "uniad"),
)
ON_PIXELS = ("tdg",)
"""Take no representation."""
WARM = 1
"""Steps of each fit before the clock starts: the optimiser's moments are made in the first."""
QUICK = {
    "rounds": 1,
    "steps": 1,
    "size": 64,
    "batch_size": 2,
    "detectors": ["simplenet", "recontrast"],
    "representation": "random/resnet10t@2,3",
}


def opened(name: str, given: argparse.Namespace) -> Any:
    """The detector, as long as the steps that are timed."""
    return kizu.detector(
        name,
        None if name in ON_PIXELS else given.representation,
        image_size=given.size,
        batch_size=given.batch_size,
        training_precision=given.precision,
        iterations=given.steps + WARM,
    )


def timed(detector: Any, images: torch.Tensor) -> Callable[[], float]:
    """Seconds of the steps of a fit, once it is under way."""
    stamps: list[float] = []

    def stamp(_: int, what: str) -> None:
        if what.startswith("training, step"):
            stamps.append(time.perf_counter())

    def run() -> float:
        stamps.clear()
        detector.fit(images, options=FitOptions(progress=stamp))
        return stamps[-1] - stamps[WARM - 1]

    return run


def row_of(name: str, detector: Any, seconds: dict[str, float], given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step, images a second, and hours of a fit of the default length."""
    step, default = seconds["median"] / given.steps, kizu.detector(name).iterations
    return {
        "detector": name,
        "representation": detector.representation.card["name"],
        "trains_on": detector.trains_on,
        "parameters": sum(parameter.numel() for parameter in detector.network_.parameters()),
        "seconds": seconds,
        "seconds_per_step": step,
        "images_per_second": given.batch_size / step,
        "iterations": default,
        "hours_of_a_fit": default * step / 3600,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and write training_steps.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--detectors", nargs="+", default=list(DETECTORS))
    parser.add_argument("--representation", help="default: the embedded one, at each detector's levels")
    given = _harness.parsed(parser, arguments, quick=QUICK)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(2 * given.batch_size, 3, given.size, given.size, generator=generator)
    images = (drawn * 255).round() / 255
    detectors = {name: opened(name, given) for name in given.detectors}
    cases = {name: timed(one, images) for name, one in detectors.items()}
    seconds = _harness.interleave(cases, given.rounds, warmup=0)
    rows = [row_of(name, one, seconds[name], given) for name, one in detectors.items()]
    for row in rows:
        print(f"{row['detector']}: {row['seconds_per_step']:.2f} s a step, {row['iterations']:,} by default")
    workload = {key: getattr(given, key) for key in ("size", "batch_size", "steps", "precision")}
    workload["threads"] = torch.get_num_threads()
    print(_harness.write("training_steps", given.results, workload=workload, rows=rows))


if __name__ == "__main__":
    main()
