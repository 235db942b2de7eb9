"""The folder is the registry: a room's members are its files, a file's name is the member's public name.

`_x.py` is machinery, `x.py` is a member. A member's file holds one public class or function whose name is the
file's name but for case and underscores (`magnetic_tile` -> `magnetic_tile`, `patchcore` -> `PatchCore`)."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable
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
    "detectors": frozenset({"base", "files", "learned", "one_pass", "reconstruction", "runtime"}),
    "papers": frozenset({"base"}),
    "pretraining": frozenset({"base", "data", "run"}),
    "protocols": frozenset({"base"}),
    "representations": frozenset({"base", "grad_cam", "sources", "weights"}),
}
"""Room -> its public files that hold no member: contracts, and what works on every member."""


def names(room: str) -> list[str]:
    """Sorted public names of the members of a room. Raises UnknownName for a room that does not exist."""
    if room not in ROOMS:
        raise UnknownName("room", room, ROOMS)
    folder = Path(__file__).parent / room
    found = {module.name for module in pkgutil.iter_modules([str(folder)])}
    return sorted(name for name in found - SUPPORT.get(room, frozenset()) if not name.startswith("_"))


def module(room: str, name: str) -> ModuleType:
    """The module of one member. Raises UnknownName, naming the nearest, when there is none."""
    known = names(room)
    if name not in known:
        raise UnknownName(ROOMS[room], name, known)
    return importlib.import_module(f"kizu.{room}.{name}")


def load(room: str, name: str) -> Any:
    """The public class or function of one member, imported now."""
    return public(module(room, name))


def public(member: ModuleType) -> Any:
    """The one object of a member module that carries the file's name, but for case and underscores."""
    wanted = _key(member.__name__.rpartition(".")[2])
    for name, value in vars(member).items():
        if _key(name) == wanted and callable(value) and getattr(value, "__module__", "") == member.__name__:
            return value
    raise AttributeError(f"{member.__name__} holds no class or function of its own name")


def check_keywords(
    owner: str, function: Callable[..., Any], given: Iterable[str], but: Iterable[str] = ()
) -> None:
    """Raise UnknownParameter, naming the nearest, for a keyword that `function` does not take, or one of `but`."""
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name not in but]
    for name in given:
        if name not in known:
            raise UnknownParameter(owner, name, known)


def summary(room: str, name: str) -> str:
    """First line of the member's docstring, read without importing it."""
    path = Path(__file__).parent / room / f"{name}.py"
    path = path if path.exists() else path.parent / name / "__init__.py"
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return text.partition("\n")[0].strip()


class _Room(ModuleType):
    """A room's package: members are attributes, imported when first asked for; `room.auroc` is the function,
    not its file."""

    def __getattr__(self, name: str) -> Any:
        room = self.__name__.rpartition(".")[2]
        if not name.startswith("_"):
            for candidate in names(room):
                if _key(name) == _key(candidate):
                    found = load(room, candidate)
                    if name in (candidate, found.__name__):
                        return found
        raise AttributeError(
            f"{self.__name__} has no attribute {name!r}; there are: {', '.join(names(room))}"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        is_member = (
            isinstance(value, ModuleType)
            and not name.startswith("_")
            and value.__name__ == f"{self.__name__}.{name}"
            and name in names(self.__name__.rpartition(".")[2])
        )
        super().__setattr__(name, public(value) if is_member else value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *names(self.__name__.rpartition(".")[2])})


def open_room(package: str) -> None:
    """Called by a room's `__init__` with its `__name__`: from then on its members are lazy attributes of the
    package."""
    sys.modules[package].__class__ = _Room


def _key(name: str) -> str:
    return name.replace("_", "").lower()
