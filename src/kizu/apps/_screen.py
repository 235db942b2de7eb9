"""What a command shows: progress and words on stderr, results on stdout; with --json nothing but JSON on
stdout."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kizu.errors import listed_unused, some


class Screen:
    """One command's output. `as_json`: stdout carries one JSON document, stderr stays silent but for
    errors."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.command = " ".join(["kizu", *sys.argv[1:]])
        logger = logging.getLogger("kizu")
        logger.handlers = [_Notices(self)]  # of the command at hand alone
        logger.setLevel(logging.INFO)

    def say(self, sentence: str, *, plain: bool = False) -> None:
        """A sentence for a person. plain: it is a result and goes to stdout."""
        if not self.as_json and sentence:
            print(sentence, file=sys.stdout if plain else sys.stderr)

    def result(self, value: Any) -> None:
        """The result for a program."""
        if self.as_json:
            print(json.dumps(value, ensure_ascii=False, allow_nan=False))

    def line(self, value: Any) -> None:
        """One line of JSONL, with --json only."""
        if self.as_json:
            print(json.dumps(value, ensure_ascii=False, allow_nan=False), flush=True)

    def table(self, values: dict[str, Any]) -> None:
        """Names and numbers; what is not defined stays empty."""
        if self.as_json:
            return
        from rich.console import Console
        from rich.table import Table

        table = Table(show_header=False, box=None, pad_edge=False)
        for name, value in values.items():
            text = "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
            table.add_row(name, text)
        Console().print(table)

    def unused(self, files: Sequence[tuple[str, str]]) -> None:
        """Say in one line which files were not used, and why."""
        if files:
            self.say(f"{listed_unused(files)}.")

    def passed_over(self, folders: Sequence[tuple[str, str]]) -> None:
        """Say in one line which folders were not looked into, and why."""
        if folders:
            self.say(f"Passed over: {some([f'{path} ({reason})' for path, reason in folders])}.")

    @contextlib.contextmanager
    def progress(self, total: int | None) -> Iterator[Callable[[int, str], None]]:
        """A progress bar with rate and time left, or a line now and then where stderr is no terminal; yields
        update(done, what)."""
        if self.as_json:
            yield lambda done, what: None
            return
        if not sys.stderr.isatty():
            yield Lines(self, total).update
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("starting", total=total)

            def update(done: int, what: str) -> None:
                bar.update(task, completed=done, description=what)

            yield update


class Lines:
    """Progress as plain lines, for a file or a pipe: one every EVERY seconds at most, where it has moved.

    total: of what is counted, None where that is not known."""

    EVERY = 10.0

    def __init__(self, screen: Screen, total: int | None) -> None:
        self._screen, self._total = screen, total
        self._last, self._said = time.monotonic(), (0, "")

    def update(self, done: int, what: str) -> None:
        """Say how far it is, if it is time to."""
        now = time.monotonic()
        if now - self._last < self.EVERY or (done, what) == self._said:
            return
        self._last, self._said = now, (done, what)
        share = f", {min(done / self._total, 1):.0%}" if self._total and done <= self._total else ""
        self._screen.say(f"{what}: {done}{f' of {self._total}{share}' if share else ''}")


class _Notices(logging.Handler):
    """What the library says while it works (that it compiles, say), as lines of a screen."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self.screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        self.screen.say(record.getMessage())
