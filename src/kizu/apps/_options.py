"""Options that several commands share, and how every command is run."""

from __future__ import annotations

import functools
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TextIO

import typer

from kizu.errors import Clipped, Collapsed, NearlyEqual, OtherSize, UnusedRange, UsageError
from kizu.launchers import launched

Out = Annotated[Path, typer.Option("--out", "-o", help="Where to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it is there already.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Dataset = Annotated[
    str, typer.Option("--dataset", help="How the data is laid out: see `kizu list datasets`.")
]
Category = Annotated[str | None, typer.Option("--category", help="One category of the data set.")]
MaskRuleName = Annotated[
    str | None,
    typer.Option("--mask-rule", help="How grey values of masks count, if not as usual: half or nonzero."),
]
WhiteLevel = Annotated[
    int | None,
    typer.Option(
        "--white-level",
        help="Value of white in grey files of more than 8 bits, such as 4095 for 12 bits; it is kept.",
    ),
]
RegionOfInterest = Annotated[
    str | None,
    typer.Option(
        "--roi",
        help="Region of interest: x,y,width,height in pixels of the images, or a mask, not zero inside.",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="Of features: fp32, bf16 or auto, the faster one here.",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--false-alarm-rate",
        help="Share of good parts that may be called anomalous; 0.01 is one in a hundred.",
    ),
]
DetectorName = Annotated[str, typer.Option("--detector", help="See `kizu list detectors`.")]
RepresentationName = Annotated[
    str | None,
    typer.Option(
        "--representation",
        help="imagenet/efficientnet_lite0@2,3, timm/NAME, random/NAME or a saved one's path.",
    ),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--set", help="A parameter, as name=value; may be repeated."),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the split.")]
AdaptationName = Annotated[
    str | None,
    typer.Option(
        "--adaptation", help="Adapt the representation to the good images first: `kizu list adaptations`."
    ),
]
AdaptationParameters = Annotated[
    list[str] | None,
    typer.Option("--adapt-set", help="A parameter of the adaptation, as name=value; may be repeated."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with a run that was interrupted, to the same result.")
]
LeaveOut = Annotated[
    Path | None,
    typer.Option("--leave-out", help="A text file of images to leave out, one path a line."),
]
Robust = Annotated[
    bool,
    typer.Option("--robust", help="Leave out good images that stand out among the others, and say which."),
]
OtherOut = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Another file for the model; without it the model is replaced."),
]


def run(command: Callable[[], int], *, on_several_processes: bool = False) -> None:
    """Run a command's work and exit with its code; Ctrl-C is exit code 130.

    on_several_processes: whether torchrun or `fabric run` may have started more than one of it. Raises
    UsageError where they have and may not."""
    if not on_several_processes:
        _refuse_several_processes()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = functools.partial(_say_warning, set())
            code = command()
    except KeyboardInterrupt:
        if "--debug" in sys.argv:
            traceback.print_exc()
        say("Interrupted; nothing was left half-written.")
        code = 130
    raise typer.Exit(code)


def _refuse_several_processes() -> None:
    processes, machines = launched()
    if processes * machines > 1:
        raise UsageError(
            f"A launcher started {processes * machines} processes of this command, and only `kizu pretrain` "
            "shares its work among several: start this command without torchrun or `fabric run`."
        )


def _say_warning(
    said: set[str],
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """kizu's own warnings in one line, each once, for Python forgets what it has shown when a library changes
    its filters; those of libraries as they come. said: those shown before."""
    if issubclass(category, Clipped | Collapsed | NearlyEqual | OtherSize | UnusedRange):
        if str(message) not in said:
            say(f"Warning: {message}")
        said.add(str(message))
    else:
        (file or sys.stderr).write(warnings.formatwarning(message, category, filename, lineno, line))


def say(sentence: str) -> None:
    """A sentence on stderr, under kizu's name."""
    print(f"kizu: {sentence}", file=sys.stderr)
