"""How much each part slows down beside other programs: on an idle machine, beside one process that computes
without end, and beside one for each core.

Two processes on a core get half of it each, so a part that takes twice as long loses nothing but its share;
it should never take more than 2.5 times as long. Parts are commands as users run them, in this process, and
the coreset; each runs once before it is measured, all loads in turn. Other programs on the machine are loads
too: ratios of a machine that is not idle are too small.

    python benchmarks/busy.py [--rounds 3] [--parts fit,inspect] [--images 100] [--size 256] [--demo]
    [--quick --out FOLDER]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from _harness import interleave, parsed, write

from kizu.apps._waiting import wait_asleep

GOAL = 2.5
SPIN = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""
"""Computes until its parent is gone."""
QUICK = {"rounds": 1, "images": 8, "size": 64, "rows": 600, "loads": "0,1", "parts": "coreset,fit"}


@contextlib.contextmanager
def beside(processes: int) -> Iterator[None]:
    """So many processes that compute without end."""
    others = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(processes)]
    try:
        time.sleep(0.5 if processes else 0.0)
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def command(*arguments: object) -> None:
    """A command of kizu's in this process, its words kept back. Raises SystemExit when it fails."""
    from kizu.apps.cli import main

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
    if code:
        raise SystemExit(f"kizu {arguments[0]} ended with exit code {code}: {said.getvalue()}")


def parts(folder: Path, given: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """Each part as something to call; inspect and evaluate need the model that fit leaves in `folder`."""
    import kizu
    from kizu.neighbours import greedy_coreset

    counts = {"train": given.images, "test_good": given.images // 5, "test_defective": given.images // 5}
    kizu.dataset("planted", folder / "data", products="capsule", size=given.size, **counts)
    data, model = folder / "data" / "capsule", folder / "model.kizu"
    features = rows(given.rows)
    calls = {
        "fit": lambda: command(
            "fit", data / "train", "--set", f"image_size={given.size}", "-o", model, "--overwrite"
        ),
        "inspect": lambda: command("inspect", model, data / "test", "-o", folder / "seen", "--overwrite"),
        "evaluate": lambda: command("evaluate", model, data, "-o", folder / "run", "--overwrite"),
        "pretrain": lambda: command(
            *("pretrain", "simsiam", "--data", data / "train", "--size", 64, "--steps", given.steps),
            *("--batch-size", given.batch_size, "-o", folder / "rep", "--overwrite"),
        ),
        "coreset": lambda: greedy_coreset(features, given.rows // 10),
        "demo": lambda: command("demo", "-o", folder / "demo", "--overwrite"),
    }
    return calls if given.demo else {name: call for name, call in calls.items() if name != "demo"}


def rows(count: int) -> Any:
    """Features (N, 384) float32: 200 clusters whose spectrum falls as i^-0.5."""
    import torch

    make = torch.Generator().manual_seed(0)
    centres, which = torch.randn(200, 384, generator=make), torch.randint(0, 200, (count,), generator=make)
    spread = torch.arange(1, 385) ** -0.5
    return (centres[which] + 0.7 * torch.randn(count, 384, generator=make)) * spread


def timed(call: Callable[[], Any], load: int) -> Callable[[], float]:
    """Seconds of a call beside so many processes, without what it takes to start these."""

    def run() -> float:
        with beside(load):
            begin = time.perf_counter()
            call()
            return time.perf_counter() - begin

    return run


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", help="some of fit, inspect, evaluate, pretrain, coreset, demo")
    parser.add_argument("--demo", action="store_true", help="`kizu demo` as well, which takes minutes")
    parser.add_argument("--loads", default=f"0,1,{os.cpu_count() or 1}", help="numbers of processes")
    parser.add_argument("--images", type=int, default=100, help="to learn from")
    parser.add_argument("--size", type=int, default=256, help="side of an image in pixels")
    parser.add_argument("--rows", type=int, default=60_000, help="of the coreset, a tenth is picked")
    parser.add_argument("--steps", type=int, default=20, help="of the pretraining")
    parser.add_argument("--batch-size", type=int, default=32, help="of the pretraining")
    return parsed(parser, arguments, quick=QUICK)


def show(found: dict[str, dict[str, Any]], loads: list[int]) -> None:
    """A small table."""
    print(f"{'part':10}{'alone s':>9}" + "".join(f"{f'beside {load}':>11}" for load in loads[1:]))
    for name, values in found.items():
        ratios = values["ratios"]
        late = "  more than the goal" if max(ratios.values()) > GOAL else ""
        alone = values["seconds"]["0"]["median"]
        print(f"{name:10}{alone:9.2f}" + "".join(f"{ratio:11.2f}" for ratio in ratios.values()) + late)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and write busy.json."""
    given = options(arguments)
    wait_asleep()  # as the command line does, before torch is loaded
    loads = sorted({0, *(int(load) for load in given.loads.split(","))})
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        calls = parts(Path(name), given)
        asked = given.parts.split(",") if given.parts else list(calls)
        if unknown := set(asked) - set(calls):
            raise SystemExit(f"--parts takes some of {', '.join(calls)}; got {', '.join(sorted(unknown))}.")
        if {"inspect", "evaluate"} & set(asked):
            calls["fit"]()  # they need its model
        for part in asked:
            calls[part]()
            cases = {str(load): timed(calls[part], load) for load in loads}
            seconds = interleave(cases, given.rounds, warmup=0)
            quiet = seconds["0"]["median"]
            ratios = {load: values["median"] / quiet for load, values in seconds.items() if load != "0"}
            found[part] = {"seconds": seconds, "ratios": ratios}
    show(found, loads)
    workload = {key: getattr(given, key) for key in ("images", "size", "rows", "steps", "batch_size")}
    workload["load_average"] = os.getloadavg()[0]
    print(write("busy", given.results, workload=workload, goal=GOAL, rows=found))


if __name__ == "__main__":
    main()
