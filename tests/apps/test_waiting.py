"""The command line lets waiting threads sleep; a library, and whoever has said how, are left alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kizu.apps import _waiting

SHOW = "import os; print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"
COMMAND = f"""
from kizu.apps.cli import main
try:
    main(["--version"])
except SystemExit:
    {SHOW}
"""


def said(program: str, **environment: str) -> str:
    """The last line that a fresh process prints."""
    clean = {name: value for name, value in os.environ.items() if name not in _waiting._SAID_BY_USER}
    done = subprocess.run(
        [sys.executable, "-c", program], env=clean | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


def test_a_command_says_it_before_torch_is_loaded() -> None:
    assert said(COMMAND) == f"{_waiting.SPINS} None"


def test_what_the_user_said_holds() -> None:
    assert said(COMMAND, GOMP_SPINCOUNT="7") == "7 None"
    assert said(COMMAND, OMP_WAIT_POLICY="active") == "None active"


def test_a_library_says_nothing() -> None:
    assert said(f"import kizu, kizu.errors, kizu.samples; {SHOW}") == "None None"


def test_too_late_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch is loaded in this process, so its OpenMP has read the variables."""
    for name in _waiting._SAID_BY_USER:
        monkeypatch.delenv(name, raising=False)
    _waiting.wait_asleep()
    assert "GOMP_SPINCOUNT" not in os.environ
