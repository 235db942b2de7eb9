"""The command line. Each command calls the rooms and prints what they say; it decides nothing itself.

Exit codes: 0 done; 1 done, but some images could not be read (they are listed); 2 the command cannot be meant
or its input cannot be used (one line says why; --debug shows the traceback); 130 interrupted, nothing
half-written."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

import kizu

app = typer.Typer(
    name="kizu",
    help="Finds flaws in images of products after seeing only good ones, and tells where they are.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Look after data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Out = Annotated[Path, typer.Option("--out", "-o", help="Where to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it is there already.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Dataset = Annotated[
    str, typer.Option("--dataset", help="How the data is laid out: see `kizu list datasets`.")
]
Category = Annotated[str | None, typer.Option("--category", help="One category of the data set.")]
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
        help="timm/NAME@2,3, random/NAME, a saved one's path; left out: the embedded default.",
    ),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--set", help="A parameter of the detector, as name=value; may be repeated."),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the split.")]


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Finds flaws in images of products after seeing only good ones, and tells where they are."""
    if version:
        typer.echo(f"kizu {kizu.__version__}")
        raise typer.Exit


@app.command()
def fit(
    data: Annotated[Path, typer.Argument(help="Folder (or CSV) of good images.")],
    out: Out,
    dataset: Dataset = "folder",
    category: Category = None,
    detector: DetectorName = "patchcore",
    representation: RepresentationName = None,
    parameters: Parameters = None,
    false_alarm_rate: Rate = None,
    calibration: Annotated[
        str, typer.Option("--calibration", help="auto, split, cross or none: how the promise is backed.")
    ] = "auto",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Learn from good images and write a model."""
    from kizu.apps import _commands

    what = {
        "dataset": dataset,
        "category": category,
        "detector": detector,
        "representation": representation,
        "parameters": parameters or [],
    }
    promise = {"false_alarm_rate": false_alarm_rate, "calibration": calibration, "seed": seed}
    _run(lambda: _commands.fit(data, out, **what, **promise, overwrite=overwrite, as_json=as_json))  # type: ignore[arg-type]


@app.command()
def inspect(
    model: Annotated[Path, typer.Argument(help="A model that `kizu fit` wrote.")],
    paths: Annotated[list[Path], typer.Argument(help="Images or folders of images.")],
    out: Out,
    panels: Annotated[bool, typer.Option(help="Write an image per image: image, heat map, decision.")] = True,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on behind what an interrupted run left in the output folder.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at new images: score, heat map and decision for each, and a page to look through."""
    from kizu.apps import _commands

    _run(lambda: _commands.inspect(model, paths, out, panels, overwrite, resume, as_json))


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model that `kizu fit` wrote.")],
    data: Annotated[
        Path, typer.Argument(help="Labelled images: their test split, or all when there is none.")
    ],
    out: Out,
    dataset: Dataset = "folder",
    category: Category = None,
    allow_seen: Annotated[
        bool,
        typer.Option("--allow-seen", help="Measure even on data that the representation was trained on."),
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Measure a model on labelled images; writes a run folder and its report."""
    from kizu.apps import _commands

    _run(lambda: _commands.evaluate(model, data, out, dataset, category, allow_seen, overwrite, as_json))


@app.command()
def demo(
    out: Out = Path("demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Smaller images and fewer of them.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """The main job on planted data, from drawing the images to the report; needs no data and no network."""
    from kizu.apps import _demo

    _run(lambda: _demo.demo(out, quick, overwrite, as_json))


@app.command()
def bench(
    experiment: Annotated[Path, typer.Argument(help="A TOML file, such as those in experiments/.")],
    out: Out,
    data_root: Annotated[
        Path | None,
        typer.Option("--data", envvar="KIZU_DATA", help="Folder that holds the data sets the file names."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run every cell of an experiment, or those that are not done yet, and write its tables."""
    from kizu.apps import _bench

    _run(lambda: _bench.bench(experiment, out, data_root, as_json))


@app.command()
def pretrain(
    objective: Annotated[
        str, typer.Argument(help="See `kizu list pretraining`; with --resume it is not needed.")
    ] = "",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the representation.")] = Path(
        "representation"
    ),
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="Folder of images, or 'procedural'; may be repeated: they take turns."),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option("--init", help="Begin with the weights of this representation, by name or path."),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", help="Optimiser steps.")] = 10_000,
    spd: Annotated[bool, typer.Option("--spd", help="Add SPD: learn to spot small differences.")] = False,
    backbone: Annotated[str, typer.Option("--backbone", help="A timm network of stages.")] = "resnet18",
    size: Annotated[int, typer.Option("--size", help="Side of the views in pixels.")] = 224,
    batch_size: Annotated[
        int, typer.Option("--batch-size", help="Images of one step, over all processes.")
    ] = 256,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", help="A parameter of the objective, as name=value; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of weights, views and order.")] = 0,
    source_size: Annotated[
        int | None,
        typer.Option(
            "--source-size",
            help="Side that images are brought to before views are cut (default 8/7 of --size).",
        ),
    ] = None,
    accumulate: Annotated[int, typer.Option("--accumulate", help="Parts that a batch is worked on in.")] = 1,
    precision: Annotated[str, typer.Option("--precision", help="auto, bf16 or fp32.")] = "auto",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[
        int | None,
        typer.Option("--devices", help="Processes on this machine (default: what torchrun started, or 1)."),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option("--nodes", help="Machines (default: as torchrun says, or 1).")
    ] = None,
    checkpoint_every: Annotated[
        int, typer.Option("--checkpoint-every", help="Steps between checkpoints.")
    ] = 200,
    half: Annotated[bool, typer.Option("--half", help="Keep the weights in float16.")] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the interrupted run in the output folder, with its settings."
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train a representation on images of anything; every detector takes it by its path."""
    from kizu.apps import _pretrain

    settings = {
        "steps": steps,
        "init": init,
        "source_size": source_size,
        "accumulate": accumulate,
        "precision": precision,
        "device": device,
    }
    places = {
        "devices": devices,
        "nodes": nodes,
        "checkpoint_every": checkpoint_every,
        "half": half,
        "overwrite": overwrite,
    }
    named = {"spd": spd, "backbone": backbone, "size": size, "batch_size": batch_size, "seed": seed}
    _run(
        lambda: _pretrain.pretrain(
            objective, data or [], out, named, parameters or [], resume, as_json, **settings, **places
        )
    )


@app.command()
def attention(
    data: Annotated[Path, typer.Argument(help="Data with good and flawed images.")],
    out: Out,
    representations: Annotated[
        list[str] | None,
        typer.Option("--representation", help="As for fit, or LABEL=NAME; repeat it to compare."),
    ] = None,
    dataset: Dataset = "folder",
    category: Category = None,
    count: Annotated[
        int, typer.Option("--count", help="Flawed images, the kinds of flaw in turn; the report shows 8.")
    ] = 8,
    image_size: Annotated[str, typer.Option("--image-size", help="224, or height,width.")] = "224",
    level: Annotated[
        int | None, typer.Option("--level", help="Stage that is looked at (default: the last).")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Where flawed images differ from their nearest good ones, to one representation or several side by side
    (Grad-CAM)."""
    from kizu.apps import _attention

    settings = {
        "dataset": dataset,
        "category": category,
        "count": count,
        "image_size": image_size,
        "level": level,
        "seed": seed,
    }
    _run(
        lambda: _attention.attention(
            data, out, representations or [], **settings, overwrite=overwrite, as_json=as_json
        )
    )  # type: ignore[arg-type]


@app.command()
def diagnose(
    data: Annotated[Path, typer.Argument(help="Data with good and flawed images.")],
    out: Out,
    rungs: Annotated[
        list[str] | None,
        typer.Option(
            "--rung", help="A, B, B+hm, C, D, C+cp, E-gl, E or full (default: full); repeat it to compare."
        ),
    ] = None,
    dataset: Dataset = "folder",
    category: Category = None,
    representation: RepresentationName = None,
    parameters: Parameters = None,
    every: Annotated[int, typer.Option("--every", help="Iterations between two tests.")] = 250,
    landscape: Annotated[
        int, typer.Option("--landscape", help="Points a side of the loss landscape; 0: none.")
    ] = 0,
    seed: Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what an interrupted run left in the output folder.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train rungs of ReContrast's ladder and show how: loss, test figures, feature diversity, loss landscape."""
    from kizu.apps import _diagnose

    parts = {
        "dataset": dataset,
        "category": category,
        "representation": representation,
        "parameters": parameters or [],
        "seed": seed,
    }
    how = {
        "every": every,
        "landscape": landscape,
        "resume": resume,
        "overwrite": overwrite,
        "as_json": as_json,
    }
    _run(lambda: _diagnose.diagnose(data, out, rungs or ["full"], **parts, **how))  # type: ignore[arg-type]


@app.command("list")
def list_room(
    room: Annotated[str, typer.Argument(help="detectors, datasets, metrics, protocols, ...")],
    as_json: AsJson = False,
) -> None:
    """What there is in a room."""
    from kizu.apps import _commands

    _run(lambda: _commands.list_room(room, as_json))


@data_app.command()
def check(
    name: Annotated[str, typer.Argument(help="See `kizu list datasets`.")],
    path: Path,
    as_json: AsJson = False,
) -> None:
    """Open every image and mask of a data set and compare the counts with the published ones."""
    from kizu.apps import _commands

    _run(lambda: _commands.data_check(name, path, as_json))


def _run(command: Callable[[], int]) -> None:
    """Run a command's work; Ctrl-C is exit code 130."""
    try:
        code = command()
    except KeyboardInterrupt:
        if "--debug" in sys.argv:
            traceback.print_exc()
        _say("Interrupted; nothing was left half-written.")
        code = 130
    raise typer.Exit(code)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: runs a command and turns errors into one line and an exit code."""
    from kizu.errors import KizuError

    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    try:
        app(args=arguments, prog_name="kizu")
    except (KizuError, OSError, MemoryError) as error:
        if debug:
            raise
        _say(_sentence(error))
        sys.exit(2)


def _sentence(error: BaseException) -> str:
    import errno

    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" ({error.filename})" if error.filename else ""
        return f"The disk is full{where}; nothing was left half-written. Free some space and run the same command again."
    if isinstance(error, MemoryError):
        return (
            f"Out of memory ({error}); try smaller images, a smaller batch_size or a smaller memory budget."
        )
    return " ".join(str(error).split()) or type(error).__name__


def _say(sentence: str) -> None:
    print(f"kizu: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    main()
