"""Shared by all tests: small planted data drawn once a session, the data folder, no network, few threads."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch
from hypothesis import HealthCheck, settings

from kizu.datasets.planted import planted
from kizu.engine import has_bf16
from kizu.samples import Samples

torch.set_num_threads(1)
# No test measures which precision is the faster one, nor writes that to a user's cache.
os.environ.setdefault("KIZU_PRECISION", "bf16" if has_bf16(torch.device("cpu")) else "fp32")
# How long it takes to draw examples says how busy the machine is, not whether the code is right.
settings.register_profile("kizu", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kizu")


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """A test that reaches out fails at once instead of hanging."""
    real = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "127.0.0.1",
            "::1",
            "localhost",
        ):
            raise OSError(f"tests use no network, this one reached for {address}")
        real(self, address)

    socket.socket.connect = refuse  # type: ignore[method-assign]
    yield
    socket.socket.connect = real  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def tiny_planted(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """One product at 64 pixels: 24 good to learn from, 12 good and 12 flawed to test on."""
    return planted(
        tmp_path_factory.mktemp("planted") / "data",
        products="capsule",
        train=24,
        test_good=12,
        test_defective=12,
        size=64,
        seed=3,
    )


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets named by KIZU_DATA; tests that need it are skipped without it."""
    root = os.environ.get("KIZU_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("KIZU_DATA names no folder of real data sets")
    return Path(root)


@pytest.fixture
def accelerated(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests about the fast twins: on, also where the whole suite runs with KIZU_ACCEL=0."""
    monkeypatch.setenv("KIZU_ACCEL", "1")


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Two threads instead of one: work side by side."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """run_cli("fit", ...) -> (exit code, stdout, stderr), in this process."""
    from kizu.apps import cli

    def run(*arguments: object) -> tuple[int, str, str]:
        code = 0
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
