"""Runs the code blocks of a tutorial in order, as a reader would: shell, Python, and files to save."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Block(NamedTuple):
    """language: what follows the fence. title: the file in which the block is to be saved, or ""."""

    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced code blocks of a page."""
    found = re.findall(
        r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    return [Block(*parts) for parts in found]


def run(page: Path, shell: Callable[[list[str]], None]) -> None:
    """Do what the page says in the current folder. A block with a title is saved (or, "FILE, after: LINE",
    put after that line of the file), Python shares one namespace, and `shell` gets the words of each line of
    a console block."""
    names: dict[str, Any] = {"__name__": "tutorial"}
    for block in blocks(page):
        if ", after: " in block.title:
            _insert(*block.title.split(", after: "), block.text)
        elif block.title:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.text, "utf-8")
        elif block.language == "python":
            exec(compile(block.text, str(page), "exec"), names)
        elif block.language == "console":
            for line in block.text.replace("\\\n", " ").splitlines():
                shell(shlex.split(line, comments=True))
        else:
            raise AssertionError(f"{page.name}: a block of {block.language} without a title is not run")


def _insert(file: str, line: str, text: str) -> None:
    """Put `text` after the one line of `file` that holds `line`."""
    before, found, after = Path(file).read_text("utf-8").partition(line + "\n")
    assert found, f"{file} has no line {line}"
    Path(file).write_text(before + found + text + after, "utf-8")
