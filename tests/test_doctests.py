"""Every example in a docstring of kizu, run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any

import pytest

import kizu

OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def names() -> list[str]:
    return ["kizu", *(module.name for module in pkgutil.walk_packages(kizu.__path__, "kizu."))]


def examples(module: ModuleType) -> list[doctest.DocTest]:
    """The tests of a module that hold an example. To doctest a decorated function looks like one of its
    decorator's module, so it is unwrapped."""
    finder, names = doctest.DocTestFinder(exclude_empty=True), dict(vars(module))
    found = finder.find(module, module.__name__, globs=names)
    for name, value in names.items():
        if hasattr(value, "__wrapped__") and value.__module__ == module.__name__:
            found += finder.find(
                inspect.unwrap(value), f"{module.__name__}.{name}", module=module, globs=names
            )
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", names())
def test_examples(name: str) -> None:
    module: Any = importlib.import_module(name)
    tests = examples(module)
    if not tests:
        pytest.skip("no example")
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    output: list[str] = []
    for test in tests:
        runner.run(test, out=output.append)
    assert runner.failures == 0, "".join(output).encode("utf-8", "backslashreplace").decode()
