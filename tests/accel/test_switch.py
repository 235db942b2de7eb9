"""The switch that turns the fast twins off: what it reads, what it refuses, what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kizu import accel
from kizu.errors import UsageError


@pytest.mark.parametrize(("value", "expected"), [("0", False), ("1", True), ("", True)])
def test_the_switch_reads_the_environment_at_each_call(monkeypatch, value, expected):
    monkeypatch.setenv(accel.VARIABLE, value)
    assert accel.enabled() is expected


def test_the_twins_are_on_by_default(monkeypatch):
    monkeypatch.delenv(accel.VARIABLE, raising=False)
    assert accel.enabled()


@pytest.mark.parametrize("value", ["off", "false", "2", " 0"])
def test_any_other_value_is_refused(monkeypatch, value):
    monkeypatch.setenv(accel.VARIABLE, value)
    with pytest.raises(UsageError, match="KIZU_ACCEL"):
        accel.enabled()


def test_the_switch_imports_neither_torch_nor_numba():
    code = (
        "import sys, kizu.accel; kizu.accel.enabled(); print({'torch', 'numba', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
