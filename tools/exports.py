"""Write what kizu exports: all below the docstring of a room's `__init__.py`, and kizu's list of its modules.

    python tools/exports.py            # after adding, renaming or removing a file or a public class

A room exports its members (`metrics/auroc.py` -> `kizu.metrics.auroc`, `detectors/patchcore.py` ->
`kizu.detectors.PatchCore`) and the public classes of its support files (`detectors/base.py` ->
`kizu.detectors.Detector`), or the names of a support file's `__all__`. The files are read, not imported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import kizu
from kizu import registry

COLUMNS = 110
PACKAGE = Path(kizu.__file__)


def exports(room: str) -> dict[str, str]:
    """Exported name -> file that defines it. Raises ValueError for a name that two files export."""
    file_of: dict[str, str] = {}
    for file in registry.files(room):
        names = _member(room, file) if file in registry.names(room) else _support(room, file)
        for name in names:
            if name in file_of:
                raise ValueError(f"kizu.{room}.{name} is in {file_of[name]}.py and in {file}.py. Rename one.")
            file_of[name] = file
    return dict(sorted(file_of.items(), key=lambda item: _order(item[0])))


def text(room: str) -> str:
    """The whole text of a room's `__init__.py`: its docstring as it stands, then the exports."""
    path = registry.source(room, "__init__")
    head = ast.parse(path.read_text("utf-8")).body[0]
    docstring = "\n".join(path.read_text("utf-8").splitlines()[: head.end_lineno])
    return f"{docstring}\n\n{_body(room, exports(room))}"


def package_text() -> str:
    """The text of `kizu/__init__.py`, with one import under TYPE_CHECKING for each of its public modules."""
    text = PACKAGE.read_text("utf-8")
    imports = "".join(f"    from kizu import {name} as {name}\n" for name in dir(kizu) if _is_module(name))
    return re.sub(r"(    from kizu import (\w+) as \2\n)+", imports, text, count=1)


def written() -> Iterator[tuple[Path, str]]:
    """Every file that this script writes, with the text that it has to have."""
    yield PACKAGE, package_text()
    for room in registry.ROOMS:
        if (path := registry.source(room, "__init__")).exists():
            yield path, text(room)


def main() -> None:
    """Bring every file up to date."""
    for path, new in written():
        if path.read_text("utf-8") != new:
            path.write_text(new, "utf-8")
            print(f"wrote {path}")


def _is_module(name: str) -> bool:
    return (PACKAGE.parent / f"{name}.py").exists() or (PACKAGE.parent / name / "__init__.py").exists()


def _body(room: str, names: dict[str, str]) -> str:
    package = f"kizu.{room}"
    used = [file for file in registry.files(room) if file not in registry.names(room)]
    lines = [f"    from {package} import {file} as {file}" for file in used]
    for file in sorted(set(names.values()), key=_natural):
        lines += _import(f"{package}.{file}", [name for name, other in names.items() if other == file])
    typing = ["from typing import TYPE_CHECKING", ""] if lines else []
    block = ["if TYPE_CHECKING:", *lines, ""] if lines else []
    listed = _wrapped("__all__ = [", [f'"{name}"' for name in names], "]")
    if not names:
        listed = ["__all__: list[str] = []"]
    support = [f'"{name}": "{file}"' for name, file in names.items() if file in used]
    call = _wrapped("registry.open_room(__name__, {", support, "})")
    if not support:
        call = ["registry.open_room(__name__)"]
    note = "# From here to the end: written by tools/exports.py, from the files of this folder."
    top = [note, "from __future__ import annotations", "", *typing, "from kizu import registry", ""]
    return "\n".join([*top, *block, *listed, "", *call, ""])


def _import(module: str, names: list[str]) -> list[str]:
    line = f"    from {module} import {', '.join(names)}"
    if len(line) <= COLUMNS:
        return [line]
    return [f"    from {module} import (", *(f"        {name}," for name in names), "    )"]


def _wrapped(start: str, entries: list[str], end: str) -> list[str]:
    """One line where it fits, else full lines of whole entries."""
    if len(line := f"{start}{', '.join(entries)}{end}") <= COLUMNS:
        return [line]
    lines = ["   "]
    for entry in entries:
        if len(lines[-1]) + len(entry) + 2 > COLUMNS:
            lines.append("   ")
        lines[-1] += f" {entry},"
    return [start, *lines, f"{end}  # fmt: skip"]


def _member(room: str, file: str) -> list[str]:
    names = [name for name in _defined(room, file) if registry.is_name_of(file, name)]
    if len(names) != 1:
        raise ValueError(f"kizu/{room}/{file}.py has to define one class or function named as the file.")
    return names


def _support(room: str, file: str) -> list[str]:
    tree = ast.parse(registry.source(room, file).read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]


def _defined(room: str, file: str) -> list[str]:
    tree = ast.parse(registry.source(room, file).read_text("utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]


def _order(name: str) -> tuple[int, list[str | int]]:
    """The order of ruff's isort: CONSTANTS, Classes, functions; numbers in names by their value."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, _natural(name))


def _natural(name: str) -> list[str | int]:
    """Text and numbers in turn: cifar10_c comes before cifar100_c."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


if __name__ == "__main__":
    main()
