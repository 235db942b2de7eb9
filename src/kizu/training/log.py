"""The record of a run: log.jsonl, one line every few steps, and a progress bar with images per second and the
time left."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kizu import store


class Log:
    """Rows of a run, kept in memory and, with a folder, appended to folder/log.jsonl.

    `begin(step)` drops the rows that an interrupted run wrote after its last checkpoint, so a resumed log has
    every step once."""

    def __init__(self, folder: Path | None) -> None:
        self.rows: list[dict[str, Any]] = []
        self._path = None if folder is None else folder / "log.jsonl"

    def begin(self, step: int) -> None:
        """Start the log of a run whose first `step` steps are done."""
        if self._path is None:
            return
        if step and self._path.exists():
            self.rows = [row for row in _rows(self._path) if row["step"] <= step]
        with store.replacing(self._path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in self.rows), "utf-8")

    def add(self, row: dict[str, Any]) -> None:
        """Append one row."""
        self.rows.append(row)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text("utf-8").splitlines():
        with contextlib.suppress(ValueError):  # the last line of a killed run may be incomplete
            yield json.loads(line)


class Progress:
    """A rich bar on standard error: step of steps, loss, images per second, time left. Shown on terminals
    only."""

    def __init__(self, title: str, done: int, steps: int, *, show: bool) -> None:
        self._bar: Any = None
        if show and sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            columns = [
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
            ]
            more = [progress.TextColumn("{task.fields[text]}"), progress.TimeRemainingColumn()]
            self._bar = progress.Progress(*columns, *more, console=Console(stderr=True))
            self._task = self._bar.add_task(title, total=steps, completed=done, text="")
            self._bar.start()

    def step(self, done: int, text: str | None = None) -> None:
        """`done` steps are done; `text` replaces the text beside the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, **({} if text is None else {"text": text}))

    def close(self) -> None:
        """Stop drawing; the bar stays on the screen."""
        if self._bar is not None:
            self._bar.stop()
