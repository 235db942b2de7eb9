"""How the threads of torch wait for each other, said before torch is loaded: the command line only."""

from __future__ import annotations

import os
import sys

SPINS = "10000"
"""Turns of a thread that waits before it goes to sleep, about half a millisecond. GNU's OpenMP takes 300,000.
A network has its next step ready in less; and beside other programs a thread that turns for long takes the
core from the one that it waits for."""
_SAID_BY_USER = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")


def wait_asleep() -> None:
    """Let threads that wait go to sleep soon. A user's own setting holds, and so does that of a program which
    has loaded torch already: OpenMP reads these variables once, when it is loaded."""
    if "torch" not in sys.modules and not any(name in os.environ for name in _SAID_BY_USER):
        os.environ["GOMP_SPINCOUNT"] = SPINS
