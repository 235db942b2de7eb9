"""`--set name=value` -> a parameter of the type that a signature names."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any

from kizu.errors import UnknownParameter, UsageError


def parameters_from(
    texts: list[str], owner: type | Callable[..., Any], *, option: str = "--set"
) -> dict[str, Any]:
    """["k=3", "image_size=224,320"] -> {"k": 3, "image_size": (224, 320)}.

    owner: a class or function whose keywords these are; a detector's class has those of its runtime as well.
    Raises UsageError for a text without "=" or a value of another type, UnknownParameter for a name that does
    not exist."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{option} takes name=value, got '{text}'.")
        pairs[name.strip()] = value.strip()
    hints = hints_of(owner)
    for name in pairs:
        if name not in hints:
            raise UnknownParameter(getattr(owner, "__name__", str(owner)), name, hints)
    return {name: _value(name, value, hints[name]) for name, value in pairs.items()}


def hints_of(owner: Any) -> dict[str, Any]:
    """Parameter of a class or function -> its type; a detector's class has those of its runtime as well."""
    from kizu.adaptation.base import GIVEN
    from kizu.detectors.base import Detector
    from kizu.detectors.runtime import Runtime, parameter_names

    if dataclasses.is_dataclass(owner):
        return typing.get_type_hints(owner)
    function = vars(owner)["__init__"] if isinstance(owner, type) else owner
    hints = typing.get_type_hints(function)
    if isinstance(owner, type) and issubclass(owner, Detector):
        hints |= typing.get_type_hints(Runtime)
        return {name: hints[name] for name in parameter_names(owner)}
    parameters = inspect.signature(function).parameters.values()
    return {p.name: hints[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in GIVEN}


def _value(name: str, text: str, hint: Any) -> Any:
    options = typing.get_args(hint) if not isinstance(hint, type) else (hint,)
    options = options or (hint,)
    value = _literal(text)
    for option in options:
        origin = typing.get_origin(option) or option
        if origin is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if origin is typing.Literal and value in typing.get_args(option):
            return value
        if isinstance(origin, type) and type(value) is origin:
            return value
    if value is None and str in options:  # a text that is spelled like it: negatives=none
        return text
    wanted = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise UsageError(f"The parameter {name} is {wanted}, got '{text}'.")


def _literal(text: str) -> Any:
    named = {"true": True, "false": False, "none": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # all that its docs name
        return text
