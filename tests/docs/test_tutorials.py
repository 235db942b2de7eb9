"""The tutorials are run: every command, every line of Python, every file that they ask for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tutorials

import kizu

ROOT = Path(kizu.__file__).parents[2]
PAGES = ROOT / "docs" / "tutorials"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PAGES.is_dir(), reason="installed without its documentation"),
]
PARTS_OF_THE_HOUSE = ("src", "tests", "tools", "docs", "experiments", "benchmarks")


@pytest.mark.parametrize("name", ["engineer", "researcher"])
def test_a_user_can_do_what_it_says(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_cli: Callable[..., tuple[int, str, str]],
) -> None:
    def shell(words: list[str]) -> None:
        assert words[0] == "kizu", words
        code, _, errors = run_cli(*words[1:])
        assert code == 0, f"{' '.join(words)}: {errors}"

    monkeypatch.chdir(tmp_path)
    tutorials.run(PAGES / f"{name}.md", shell)


def test_a_contributor_can_do_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a copy of the repository: the new files are written there, and its own tests run on them.

    What Python and numba have compiled is copied along: it is as good there, and half of the time."""
    for name in PARTS_OF_THE_HOUSE:
        shutil.copytree(ROOT / name, tmp_path / name)
    for file in [*ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "Makefile", ROOT / "mkdocs.yml"]:
        shutil.copy(file, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"}

    def shell(words: list[str]) -> None:
        assert words[0] == ".venv/bin/python", words
        done = subprocess.run(
            [sys.executable, *words[1:]], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout}\n{done.stderr}"

    monkeypatch.chdir(tmp_path)
    tutorials.run(PAGES / "contributor.md", shell)
