"""What a command shows of what the library says while it works."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from kizu.apps import _screen, cli
from kizu.apps._screen import Screen
from kizu.samples import Samples

LIBRARY = logging.getLogger("kizu.accel.compiled")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """The logger as it was, for the tests that follow."""
    logger = logging.getLogger("kizu")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers, logger.level = handlers, level


@pytest.mark.parametrize("as_json", [False, True])
def test_notices_are_lines_on_stderr(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Each once, whichever screens there were; none with --json."""
    Screen(as_json=False)
    Screen(as_json)
    LIBRARY.info("Compiling")
    assert capsys.readouterr() == ("", "" if as_json else "Compiling\n")


def test_the_library_is_silent_in_python(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("kizu").handlers, logging.getLogger("kizu").level = [], logging.NOTSET
    LIBRARY.info("Compiling")
    assert capsys.readouterr() == ("", "")


def test_fit_shows_how_far_the_model_is(
    tiny_planted: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The share of the coreset, from the greedy loop to the screen."""
    said: list[str] = []

    class Silent(Screen):
        progress = staticmethod(lambda total: Keeping(said))

    monkeypatch.setattr(_screen, "Screen", Silent)
    monkeypatch.setattr("kizu.apps._fit.Screen", Silent)
    good = Path(tiny_planted.train.paths[0]).parent
    options = [
        "--representation",
        "random/resnet10t@2",
        "--set",
        "image_size=64",
        "--false-alarm-rate",
        "0.2",
    ]
    with pytest.raises(SystemExit, match="0"):
        cli.main(["fit", str(good), *options, "-o", str(tmp_path / "model.kizu")])
    assert "building the model" in said
    assert "building the model, 100 %" in said


class Keeping:
    """A progress bar that keeps what it is told."""

    def __init__(self, said: list[str]) -> None:
        self.said = said

    def __enter__(self) -> Keeping:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, done: int, what: str) -> None:
        self.said.append(what)
