"""In which precision a network computes where none is named ("auto").

A processor that multiplies bfloat16 is not always faster with it: small networks pay for the conversions. So
the network is tried on this machine, in float32 and in bfloat16 in turn, once at least and for about a
second. bfloat16 stays unless float32 is faster by more than a tenth. The answer is kept in this process and
in a small file of the user's cache folder, by machine and network; a file that cannot be read or written is
no error. Without bfloat16 it is float32, and on a GPU that has it bfloat16, untried.

The environment variable KIZU_PRECISION (fp32 or bf16) says what "auto" is, and nothing is tried."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from kizu.engine import check_precision, has_bf16
from kizu.errors import KizuError, UsageError
from kizu.outputs import read_record, write_record

Run = Callable[[], object]
VARIABLE = "KIZU_PRECISION"
FILE = "precision.json"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SECONDS, ROUNDS = 1.0, 8
"""After which no further round is begun."""
CLEAR, TIE = 1.3, 1.1
"""Ratio of two times from which two rounds decide; ratio up to which bfloat16 stays."""
MOST = 500
"""Answers that the file keeps."""
ERRORS = (KizuError, RuntimeError, ValueError, TypeError)
"""What a network raises that cannot be tried: of another size of images, or one that cannot be copied."""
_KNOWN: dict[str, Choice] = {}
_LOCK = threading.RLock()


@dataclass(frozen=True)
class Choice:
    """precision: "fp32" or "bf16". how: why, in a few words. machine: what identifies the machine on which it
    was chosen."""

    precision: str
    how: str
    machine: str = ""

    @property
    def dtype(self) -> torch.dtype:
        """The type of the numbers."""
        return DTYPES[self.precision]

    def facts(self) -> dict[str, str]:
        """As a card holds it."""
        return asdict(self)

    @classmethod
    def of(cls, facts: Any) -> Choice | None:
        """What `facts` gave; None for anything else."""
        names = ("precision", "how", "machine")
        if not isinstance(facts, Mapping) or not all(isinstance(facts.get(name), str) for name in names):
            return None
        return cls(*(facts[name][:200] for name in names)) if facts["precision"] in DTYPES else None

    def __str__(self) -> str:
        return f"{self.precision} ({self.how})"


def choose(
    asked: str, device: torch.device, network: Callable[[], str], prepare: Callable[[torch.dtype], Run]
) -> Choice:
    """The precision of a network: what is asked for, or for "auto" the faster one.

    network: gives what identifies it, its weights apart. prepare(dtype) gives what is tried. Both are called
    where something is to be tried only. Raises UsageError for a precision that does not exist."""
    check_precision(asked)
    if asked != "auto":
        return Choice(asked, "as asked for", machine())
    if said_by_user():
        return Choice(said_by_user(), f"as {VARIABLE} says", machine())
    if not has_bf16(device):
        return Choice("fp32", "the processor has no bf16", machine())
    if device.type != "cpu":
        return Choice("bf16", "the GPU has bf16", machine())
    with _LOCK:
        try:
            key = _key(network())
        except ERRORS:
            return Choice("bf16", "could not be measured", machine())
        found = _KNOWN.get(key) or _read().get(key)
        if found is None:
            found = _measured(prepare)
            _keep(key, found)
        _KNOWN[key] = found
        return found


def said_by_user() -> str:
    """What KIZU_PRECISION says; "" where it says nothing. Raises UsageError for anything else."""
    value = os.environ.get(VARIABLE, "")
    if value not in ("", *DTYPES):
        raise UsageError(f"the environment variable {VARIABLE} is {value!r}: expected fp32 or bf16.")
    return value


def compare(fp32: Run, bf16: Run, clock: Callable[[], float] = time.perf_counter) -> tuple[float, float]:
    """Least seconds of both, run in turn: the first round warms up and counts only where there is no other;
    two rounds suffice where one is clearly the faster in both. No round begins after SECONDS."""
    begin, rounds = clock(), list[tuple[float, float]]()
    while len(rounds) <= ROUNDS and (not rounds or clock() - begin < SECONDS):
        times = []
        for run in (fp32, bf16):
            start = clock()
            run()
            times.append(clock() - start)
        rounds.append((times[0], times[1]))
        ratios = [one / max(other, 1e-9) for one, other in rounds[1:]][-2:]
        if len(ratios) == 2 and (min(ratios) >= CLEAR or max(ratios) <= 1 / CLEAR):
            break
    counted = rounds[1:] or rounds
    return min(one for one, _ in counted), min(other for _, other in counted)


@functools.cache
def machine() -> str:
    """What identifies this machine where speed is concerned: processor, instructions, versions."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    known = {name: str(value) for name, value in capabilities.items()}
    facts = {**known, "processor": platform.processor() or platform.machine(), "torch": torch.__version__}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """Where this user's programs keep what can be made again."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "kizu"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "kizu" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kizu"


def _key(network: str) -> str:
    return f"{machine()}-{hashlib.sha256(network.encode()).hexdigest()[:16]}"


def _measured(prepare: Callable[[torch.dtype], Run]) -> Choice:
    try:
        slow, fast = compare(prepare(torch.float32), prepare(torch.bfloat16))
    except ERRORS:
        return Choice("bf16", "could not be measured", machine())
    precision = "fp32" if slow * TIE < fast else "bf16"
    ours, other = (slow, fast) if precision == "fp32" else (fast, slow)
    return Choice(precision, f"measured: {ours * 1e3:.1f} ms against {other * 1e3:.1f} ms", machine())


def _read() -> dict[str, Choice]:
    """What the cache folder knows; nothing where it cannot be read."""
    try:
        kept = read_record(cache_folder(), FILE).get("choices")
    except (KizuError, OSError, RuntimeError):  # RuntimeError: there is no home
        return {}
    every = kept.items() if isinstance(kept, dict) else ()
    return {str(key): choice for key, facts in every if (choice := Choice.of(facts))}


def _keep(key: str, choice: Choice) -> None:
    """Add an answer to the file, if it can be written."""
    try:
        known = {**_read(), key: choice}
        last = list(known.items())[-MOST:]
        write_record(cache_folder(), FILE, {"choices": {name: one.facts() for name, one in last}})
    except (KizuError, OSError, RuntimeError):
        return
