"""The folder is the registry: a room's members are its files, a file's name is the member's public name.

`_x.py` is private to its room, `x.py` is a member, save the files listed in SUPPORT. A member's file holds
one public class or function whose name is the file's name but for case and underscores (`magnetic_tile` ->
`magnetic_tile`, `patchcore` -> `PatchCore`).

The command line finds a member by the name of its file: `load("detectors", "patchcore")`. In Python it is an
attribute of its room: `kizu.detectors.PatchCore`. What a room exports stands in its `__init__.py`, where type
checkers and editors read it; `tools/exports.py` writes it, so run that after adding a file."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from kizu.errors import UnknownName, UnknownParameter

ROOMS: dict[str, str] = {
    "datasets": "dataset",
    "views": "view",
    "losses": "loss",
    "metrics": "metric",
    "representations": "representation",
    "pretraining": "pretraining objective",
    "adaptation": "adaptation",
    "detectors": "detector",
    "protocols": "protocol",
    "papers": "paper",
    "reports": "report",
}
"""Room -> what one of its members is called."""
SUPPORT: dict[str, frozenset[str]] = {
    "adaptation": frozenset({"base"}),
    "datasets": frozenset({"checking"}),
    "detectors": frozenset(
        {
            *("base", "decision", "encoder", "files", "learned", "one_pass", "reconstruction", "runtime"),
            "scored",
        }
    ),
    "papers": frozenset({"base"}),
    "pretraining": frozenset({"base", "data", "run", "spd"}),
    "protocols": frozenset({"base"}),
    "representations": frozenset(
        {
            *("base", "centres", "grad_cam", "imagebind", "imagenet", "networks", "sources"),
            *("trainable", "weights"),
        }
    ),
}
"""Room -> its public files that hold no member: contracts, and what works on every member.

A room exports the public classes of these files (`detectors/base.py` -> `kizu.detectors.Detector`), or
the names of the file's `__all__` where it has one."""


def names(room: str) -> list[str]:
    """Sorted public names of the members of a room, read from its folder: nothing is imported.

    Raises UnknownName for a room that does not exist.

    >>> names("protocols")
    ['few_shot', 'imbalanced', ...]
    """
    return [name for name in files(room) if name not in SUPPORT.get(room, frozenset())]


def files(room: str) -> list[str]:
    """Sorted names of the public files of a room: its members and its SUPPORT files."""
    if room not in ROOMS:
        raise UnknownName("room", room, ROOMS)
    folder = Path(__file__).parent / room
    return sorted(
        entry.name for entry in pkgutil.iter_modules([str(folder)]) if not entry.name.startswith("_")
    )


def module(room: str, name: str) -> ModuleType:
    """The module of one member. Raises UnknownName, naming the nearest, when there is none."""
    known = names(room)
    if name not in known:
        raise UnknownName(ROOMS[room], name, known)
    return importlib.import_module(f"kizu.{room}.{name}")


def load(room: str, name: str) -> Any:
    """The public class or function of one member, imported now.

    Raises UnknownName, naming the nearest, when there is none.

    >>> load("metrics", "auroc")([0.1, 0.9], [0, 1])
    1.0
    """
    return public(module(room, name))


def public(member: ModuleType) -> Any:
    """The one object of a member module that carries the file's name, but for case and underscores."""
    file = member.__name__.rpartition(".")[2]
    for name, value in vars(member).items():
        if is_name_of(file, name) and callable(value) and getattr(value, "__module__", "") == member.__name__:
            return value
    raise AttributeError(f"{member.__name__} holds no class or function named as the file")


def is_name_of(file: str, name: str) -> bool:
    """Whether `name` is the file's name but for case and underscores.

    >>> is_name_of("reverse_distillation", "ReverseDistillation")
    True
    """
    return not name.startswith("_") and name.replace("_", "").lower() == file.replace("_", "").lower()


def check_keywords(
    owner: str, function: Callable[..., Any], given: Iterable[str], but: Iterable[str] = ()
) -> None:
    """Raise UnknownParameter, naming the nearest, for a keyword that `function` does not take, or one of
    `but`."""
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name not in but]
    for name in given:
        if name not in known:
            raise UnknownParameter(owner, name, known)


def summary(room: str, name: str) -> str:
    """First sentence of the member's docstring, read without importing it."""
    return first_sentence(ast.get_docstring(ast.parse(source(room, name).read_text("utf-8"))) or "")


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, whole, on one line.

    >>> first_sentence("CSI: an image that is turned\\ncounts as another one. More of it.\\n\\nCard.")
    'CSI: an image that is turned counts as another one.'
    """
    paragraph = " ".join(text.strip().partition("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", paragraph, maxsplit=1)[0]


def source(room: str, name: str) -> Path:
    """Path of the file `name` of a room; of its `__init__.py` when it is a folder."""
    path = Path(__file__).parent / room / f"{name}.py"
    return path if path.exists() else path.parent / name / "__init__.py"


class _Room(ModuleType):
    """A room's package: its exports are attributes, imported when first asked for.

    A name gives the same object whatever was imported before. Threads need no lock of ours: every first
    lookup is an ordinary import, and Python locks those."""

    _exports: Mapping[str, str]

    def __getattr__(self, name: str) -> Any:
        if name in self._exports:
            return getattr(importlib.import_module(f"{self.__name__}.{self._exports[name]}"), name)
        if name in files(self.__name__.rpartition(".")[2]):
            return importlib.import_module(f"{self.__name__}.{name}")
        raise missing(self.__name__, name, dir(self))

    def __setattr__(self, name: str, value: Any) -> None:
        """Python's import sets `auroc` to the module kizu.metrics.auroc; here the name means the function."""
        if isinstance(value, ModuleType) and self._exports.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        room = self.__name__.rpartition(".")[2]
        return sorted({*self._exports, *SUPPORT.get(room, frozenset()).intersection(files(room))})


def open_room(package: str, support: Mapping[str, str] | None = None) -> None:
    """Make the names in `__all__` of a room's `__init__` lazy attributes of the package.

    package: the `__name__` of that `__init__`.   support: exported name -> SUPPORT file that defines it.
    """
    room = sys.modules[package]
    members = names(package.rpartition(".")[2])
    exports = {name: file for name in vars(room)["__all__"] for file in members if is_name_of(file, name)}
    vars(room)["_exports"] = {**exports, **(support or {})}
    room.__class__ = _Room


def missing(package: str, name: str, known: Iterable[str]) -> AttributeError:
    """The error of a package without that attribute; it names the nearest."""
    if name.startswith("_"):  # asked by Python itself, and often: no search for the nearest
        return AttributeError(f"module {package!r} has no attribute {name!r}")
    return AttributeError(str(UnknownName(f"attribute of {package}", name, known)))
