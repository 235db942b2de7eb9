"""Shape checks that read like the docstring: letters bind across arguments.

    @check_shapes(images="B 3 H W", masks="B H W")
    def f(images, masks): ...

A number must match exactly, a letter takes the first size it meets and must meet the same size everywhere
after, `...` stands for any number of leading dimensions. Arguments that are None are not looked at."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from kizu.errors import ShapeError

F = TypeVar("F", bound=Callable[..., Any])


def bind_shape(name: str, shape: tuple[int, ...], pattern: str, bound: dict[str, tuple[int, str]]) -> None:
    """Match one shape against one pattern; `bound` maps a letter to (size, argument that fixed it) and is
    extended.

    Raises ShapeError with the pattern, the shape received and, for a letter, the argument that disagrees.
    """
    parts, sizes = pattern.split(), tuple(shape)
    if parts and parts[0] == "...":
        parts = parts[1:]
        sizes = sizes[len(sizes) - len(parts) :] if len(sizes) >= len(parts) else sizes
    if len(parts) != len(sizes):
        raise ShapeError(f"{name} must have shape ({pattern.replace(' ', ', ')}), got {tuple(shape)}.")
    for part, size in zip(parts, sizes, strict=True):
        if part.isdigit():
            if int(part) != size:
                raise ShapeError(
                    f"{name} must have shape ({pattern.replace(' ', ', ')}), got {tuple(shape)}: {size} "
                    f"where {part} is due."
                )
            continue
        known, owner = bound.setdefault(part, (size, name))
        if known != size:
            raise ShapeError(
                f"{name} must have shape ({pattern.replace(' ', ', ')}), got {tuple(shape)}: {part} is "
                f"{size} here but {known} in {owner}."
            )


def check_shapes(**patterns: str) -> Callable[[F], F]:
    """Decorate a public function with the shapes of its arguments. Raises ShapeError when they do not hold."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        missing = set(patterns) - set(signature.parameters)
        if missing:
            raise TypeError(f"{function.__qualname__} has no argument {sorted(missing)}")

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            bound: dict[str, tuple[int, str]] = {}
            given = signature.bind(*args, **kwargs).arguments
            for name, pattern in patterns.items():
                value = given.get(name)
                if value is not None:
                    bind_shape(name, _shape_of(name, value), pattern, bound)
            return function(*args, **kwargs)

        return checked  # type: ignore[return-value]

    return decorate


def _shape_of(name: str, value: Any) -> tuple[int, ...]:
    if hasattr(value, "shape"):
        return tuple(value.shape)
    if isinstance(value, list | tuple):
        import numpy

        try:
            return tuple(numpy.shape(value))
        except ValueError as error:
            raise ShapeError(
                f"{name} is a list whose parts have different lengths; an array was expected."
            ) from error
    raise ShapeError(f"{name} must be an array, a tensor or a list of numbers, got {type(value).__name__}.")
