"""`--set name=value` -> a parameter of the type that the detector's signature names."""

from __future__ import annotations

import ast
import dataclasses
import typing
from collections.abc import Callable
from typing import Any

from kizu import registry
from kizu.errors import UsageError


def parameters_from(texts: list[str], kind: type) -> dict[str, Any]:
    """["k=3", "image_size=224,320"] -> {"k": 3, "image_size": (224, 320)}, checked against the signature of
    `kind`.

    Raises UsageError for a text without "=" or a value of another type, UnknownParameter for a name that does not
    exist."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set takes name=value, got '{text}'.")
        pairs[name.strip()] = value.strip()
    constructor: Callable[..., None] = vars(kind)["__init__"]
    registry.check_keywords(kind.__name__, constructor, pairs)
    hints = typing.get_type_hints(kind if dataclasses.is_dataclass(kind) else constructor)
    return {name: _value(name, value, hints[name]) for name, value in pairs.items()}


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
    wanted = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise UsageError(f"The parameter {name} is {wanted}, got '{text}'.")


def _literal(text: str) -> Any:
    named = {"true": True, "false": False, "none": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
