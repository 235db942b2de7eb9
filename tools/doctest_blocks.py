"""For `make docs`: examples (`>>>`) in docstrings become code blocks.

An extension of griffe, which mkdocs.yml names."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^([ ]*)>>> .*(?:\n(?![ ]*$).*)*", re.MULTILINE)
"""From a prompt to the next empty line."""


class DoctestBlocks(griffe.Extension):
    """Fences around each example."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(_fenced, obj.docstring.value)


def _fenced(example: re.Match[str]) -> str:
    return f"\n{example[1]}```pycon\n{example[0]}\n{example[1]}```\n"
