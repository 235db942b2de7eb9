"""One run in a folder at a time; a killed one leaves no obstacle; what is not kizu's is not touched."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kizu import outputs
from kizu.errors import UsageError
from kizu.locks import locked

HOLDS = """
import sys, time
from kizu.locks import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDS, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_another_process_is_refused_until_it_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with holder(folder) as other:
        with pytest.raises(UsageError, match=r"Another run is writing into .*run"), locked(folder):
            pass
        assert folder.is_dir(), "the other one's"
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    assert (folder / outputs.LOCK).exists(), "the killed run left it"
    with locked(folder):
        (folder / "kept").write_text("x")
    assert [entry.name for entry in folder.iterdir()] == ["kept"]


def test_one_process_twice_and_an_empty_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        with pytest.raises(UsageError, match="Another run"), locked(tmp_path / "run"):
            pass
        outputs.write_record(tmp_path / "run", "fit.json", {})
        outputs.remove_folder(tmp_path / "run", "fit.json")
        assert outputs.is_empty(tmp_path / "run")
        with pytest.raises(UsageError, match="Another run"), locked(tmp_path / "run"):
            pass  # removing the folder does not end the lock
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UsageError, match="is a file"), locked(tmp_path / "notes"):
        pass
    assert (tmp_path / "notes").read_text() == "mine"


def test_the_demo_holds_its_folder(tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]) -> None:
    with locked(tmp_path / "demo"):
        code, _, err = run_cli("demo", "--quick", "-o", tmp_path / "demo", "--overwrite")
    assert code == 2
    assert "Another run is writing into" in err
