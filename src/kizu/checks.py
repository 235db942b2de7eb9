"""Checks that read like the docstring: shapes whose letters bind across arguments, numbers in their range.

    @check_shapes(images="B 3 H W", masks="B H W")
    def f(images, masks): ...

A number must match exactly. A letter has the first size that it meets and must meet the same size everywhere
after. `...` stands for any number of leading dimensions. Arguments that are None are not checked."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

from kizu.errors import NOT_UTF8, LayoutError, ShapeError, UsageError, is_utf8, printable

F = TypeVar("F", bound=Callable[..., Any])


def bind_shape(name: str, shape: tuple[int, ...], pattern: str, bound: dict[str, tuple[int, str]]) -> None:
    """Match one shape against one pattern; `bound` maps a letter to (size, argument that fixed it) and is
    extended.

    Raises ShapeError with the pattern, the shape received and, for a letter, the argument that disagrees.

    >>> bound = {}
    >>> bind_shape("images", (4, 3, 64, 64), "B 3 H W", bound)
    >>> bind_shape("masks", (5, 64, 64), "B H W", bound)
    Traceback (most recent call last):
        ...
    kizu.errors.ShapeError: masks must have shape (B, H, W), got (5, 64, 64): B is 5 here but 4 in images.
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
    """Decorate a public function with the shapes of its arguments. Raises ShapeError when they do not hold.

    >>> @check_shapes(scores="n", labels="n")
    ... def count(scores, labels):
    ...     return len(scores)
    >>> count([0.1, 0.2], [0, 1])
    2
    """

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


MOST = 2**31 - 1
"""Largest whole number that a parameter may be: products of such numbers fit the 64 bits of torch."""
MAX_SIDE = 8192
"""Of an image as a network gets it, in pixels."""


def whole_numbers(*, least: int = 1, none: bool = False, **values: int | None) -> None:
    """Raise UsageError, naming the value, for one that is no whole number from `least` on (or None, if
    allowed), or is above MOST.

    >>> whole_numbers(iterations=0)
    Traceback (most recent call last):
        ...
    kizu.errors.UsageError: iterations is a whole number from 1 on, got 0.
    """
    for name, value in values.items():
        if value is None and none:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(
                f"{name} is a whole number from {least} on{' or None' if none else ''}, got {value!r}."
            )
        if value > MOST:
            raise UsageError(f"{name} is a whole number from {least} to {MOST}, got {value!r}.")


def numbers(
    *, least: float = -math.inf, most: float = math.inf, above: bool = False, **values: float
) -> None:
    """Raise UsageError, naming the value, for one that is no finite number from `least` (above it) to `most`.

    >>> numbers(least=0, above=True, learning_rate=0.0)
    Traceback (most recent call last):
        ...
    kizu.errors.UsageError: learning_rate is a finite number, above 0; got 0.0.
    """
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not least <= value <= most or (above and value == least):
            limits = [f"{'above' if above else 'at least'} {least:g}"] if math.isfinite(least) else []
            limits += [f"at most {most:g}"] if math.isfinite(most) else []
            raise UsageError(
                f"{name} is a finite number{', ' if limits else ''}{' and '.join(limits)}; got {value!r}."
            )


def is_real(value: object) -> bool:
    """Whether it is a real number, of Python or NumPy; True and False are none.

    >>> is_real(0.5), is_real(True), is_real("0.5")
    (True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool)


def listed(**values: Any) -> list[Any]:
    """The one value as a list. Raises UsageError, naming it, for what cannot be gone through.

    >>> listed(seeds=(0, 1))
    [0, 1]
    """
    ((name, value),) = values.items()
    if isinstance(value, str | bytes | dict) or not hasattr(value, "__iter__"):
        raise UsageError(f"{name} is a list, got {value!r}.")
    return list(value)


def switches(**values: bool) -> None:
    """Raise UsageError, naming the value, for one that is neither True nor False.

    >>> switches(squared="no")
    Traceback (most recent call last):
        ...
    kizu.errors.UsageError: squared is True or False, got 'no'.
    """
    for name, value in values.items():
        if not isinstance(value, bool):
            raise UsageError(f"{name} is True or False, got {value!r}.")


def check_name(path: Path | str) -> None:
    """Raise LayoutError for a path that is not UTF-8."""
    if not is_utf8(path):
        raise LayoutError(f"{printable(str(path))}: {NOT_UTF8}")


def image_size(value: Any) -> tuple[int, int]:
    """(H, W) of one side or of (height, width), whole numbers from 8 to 8192; raises UsageError for anything
    else.

    >>> image_size(64), image_size((48, 64))
    ((64, 64), (48, 64))
    """
    sides = (value, value) if isinstance(value, int) else value
    whole = isinstance(sides, tuple | list) and len(sides) == 2
    if not whole or not all(
        isinstance(side, int) and not isinstance(side, bool) and 8 <= side <= MAX_SIDE for side in sides
    ):
        raise UsageError(
            f"image_size is one side or (height, width), 8 to {MAX_SIDE} pixels, got {value!r:.80}."
        )
    return int(sides[0]), int(sides[1])


def without_effect(mode: str, **values: tuple[Any, Any]) -> None:
    """Raise UsageError for a (value, default) that differs where it has no effect: `mode` says where."""
    for name, (value, default) in values.items():
        if value != default:
            raise UsageError(f"{name} has no effect {mode}, got {name}={value!r}. Leave it away.")


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
