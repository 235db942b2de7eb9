"""How kizu measures: cases run in turn, medians and quartiles kept, every row says machine, commit and
versions.

A benchmark is a script that calls `interleave` on its cases (ours and the peer's, in one run), and `write` on
the result. Its sizes are options; `parsed` adds --quick, which shows in seconds that the script runs, and
--out, the folder where everything goes instead of the project's own.

Peers live in an environment of their own (`make peer-env` builds .peer; KIZU_PEER_PYTHON names another) and
answer over JSON lines, so that their imports and their memory are theirs alone: see `Peer`."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
PATIENCE = 60.0
"""Seconds that a peer may take to end."""
PLACES = {"results": HERE / "results", "pages": ROOT / "docs" / "results", "runs": ROOT / "runs"}
"""Where a benchmark writes: rows as JSON, pages and figures, and what is kept of a run that may break off."""


def parsed(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, *, quick: dict[str, Any] | None = None
) -> argparse.Namespace:
    """The options given, and the folders of PLACES as `results`, `pages` and `runs`.

    quick: values that take the place of the defaults with --quick; None where there is no such option. A
    quick run needs --out: it measures nothing, so it must not replace what was measured."""
    parser.add_argument(
        "--out", type=Path, help="folder for results, pages and unfinished runs (default: the project's own)"
    )
    if quick is not None:
        parser.add_argument(
            "--quick", action="store_true", help="tiny sizes, to see that the script runs; needs --out"
        )
        if parser.parse_args(arguments).quick:
            parser.set_defaults(**quick)
    given = parser.parse_args(arguments)
    if quick is not None and given.quick and given.out is None:
        parser.error("--quick measures nothing: name a folder for its results with --out FOLDER.")
    for name, folder in PLACES.items():
        setattr(given, name, folder if given.out is None else given.out)
        getattr(given, name).mkdir(parents=True, exist_ok=True)
    return given


def interleave(
    cases: dict[str, Callable[[], Any]], repeats: int = 5, warmup: int = 1
) -> dict[str, dict[str, float]]:
    """Run every case in turn, `repeats` rounds after `warmup` rounds; seconds as {case: {median, q1, q3, min,
    runs}}.

    A case that returns a float is taken to have timed itself (a peer in another process); else the call is
    timed."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for round_number in range(warmup + repeats):
        for name, case in cases.items():
            start = time.perf_counter()
            own = case()
            spent = float(own) if isinstance(own, float) else time.perf_counter() - start
            if round_number >= warmup:
                seconds[name].append(spent)
    return {name: _summary(values) for name, values in seconds.items()}


def _summary(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    quartiles = statistics.quantiles(ordered, n=4) if len(ordered) > 1 else [ordered[0]] * 3
    return {
        "median": statistics.median(ordered),
        "q1": quartiles[0],
        "q3": quartiles[2],
        "min": ordered[0],
        "runs": len(ordered),
    }


class Peer:
    """A peer library in its own Python: runs benchmarks/peers/<script>.py, sends a JSON request a line, reads
    a JSON answer a line."""

    def __init__(self, script: str) -> None:
        python = os.environ.get("KIZU_PEER_PYTHON", str(ROOT / ".peer" / "bin" / "python"))
        if not Path(python).exists():
            raise SystemExit(
                f"No peer environment at {python}: run `make peer-env` first, or set KIZU_PEER_PYTHON."
            )
        self.process = subprocess.Popen(
            [python, str(HERE / "peers" / f"{script}.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """One request, one answer. Lines that are not JSON (a library's chatter) are passed on to stderr."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
            sys.stderr.write(line)
        raise SystemExit(f"The peer stopped with exit code {self.process.wait()}.")

    def close(self) -> None:
        """End the peer's process, by force when it takes too long: it has answered all it was asked."""
        assert self.process.stdin is not None
        with self.process:  # closes its streams
            self.process.stdin.close()
            try:
                self.process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()


def network_pass(net: Any, images: Any, dtype: Any) -> Callable[[], Any]:
    """The forward pass of a network on prepared images (B, 3, H, W), in one precision, channels last."""
    import torch

    layout = torch.channels_last
    net, ready = net.to(dtype).to(memory_format=layout), images.to(dtype).contiguous(memory_format=layout)

    @torch.inference_mode()
    def run() -> None:
        net(ready)

    return run


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    cpu = next(
        (line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")),
        platform.processor(),
    )
    packages = ("torch", "numpy", "scipy", "scikit-learn", "timm")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text("utf-8").splitlines() if path.exists() else []


def write(name: str, folder: Path, **payload: Any) -> Path:
    """Keep one result as FOLDER/<name>.json, beside what it was measured on."""
    path = folder / f"{name}.json"
    path.write_text(
        json.dumps({"benchmark": name, "machine": machine(), **payload}, indent=2) + "\n", "utf-8"
    )
    return path
