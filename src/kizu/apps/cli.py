"""The command line. Each command calls the rooms and prints what they say; it decides nothing itself.

Exit codes:

    0    done
    1    done, but some files were not used (they are listed, with the reasons)
    2    the command cannot be meant or its input cannot be used (one line says why; --debug: the traceback)
    130  interrupted, nothing half-written
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import kizu
from kizu.apps import _catalogue, _errors, _research, _upkeep, _waiting
from kizu.apps._examples import epilog
from kizu.apps._options import (
    AdaptationName,
    AdaptationParameters,
    AsJson,
    Category,
    Dataset,
    DetectorName,
    LeaveOut,
    MaskRuleName,
    Out,
    Overwrite,
    Parameters,
    Precision,
    Rate,
    RegionOfInterest,
    RepresentationName,
    Resume,
    Robust,
    Seed,
    WhiteLevel,
    run,
    say,
)
from kizu.registry import first_sentence

app = typer.Typer(
    name="kizu",
    help="Finds flaws in images of products after seeing only good ones, and shows where they are.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Look after data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Finds flaws in images of products after seeing only good ones, and shows where they are."""
    if version:
        typer.echo(f"kizu {kizu.__version__}")
        raise typer.Exit


@app.command()
def fit(
    data: Annotated[Path, typer.Argument(help="Folder (or CSV) of good images.")],
    out: Out,
    dataset: Dataset = "folder",
    category: Category = None,
    mask_rule: MaskRuleName = None,
    detector: DetectorName = "patchcore",
    representation: RepresentationName = None,
    parameters: Parameters = None,
    white_level: WhiteLevel = None,
    precision: Precision = None,
    roi: RegionOfInterest = None,
    adaptation: AdaptationName = None,
    adaptation_parameters: AdaptationParameters = None,
    false_alarm_rate: Rate = None,
    calibration: Annotated[
        str, typer.Option("--calibration", help="auto, split, cross or none: how the promise is backed.")
    ] = "auto",
    seed: Seed = 0,
    leave_out: LeaveOut = None,
    robust: Robust = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Learn from good images and write a model.

    A detector that is trained step by step keeps its checkpoints in OUT.training until the model is written;
    interrupted, the same command with --resume goes on to the same model."""
    from kizu.apps import _fit

    run(
        lambda: _fit.fit(
            data,
            out,
            _fit.Learner(
                detector,
                representation,
                _fit.with_options(parameters or [], white_level=white_level, precision=precision, roi=roi),
                adaptation,
                adaptation_parameters or [],
            ),
            _fit.Promise(false_alarm_rate, calibration, seed),
            _fit.LeftOut(leave_out, robust),
            dataset=dataset,
            category=category,
            mask_rule=mask_rule,
            resume=resume,
            overwrite=overwrite,
            as_json=as_json,
        )
    )


@app.command()
def adapt(
    data: Annotated[Path, typer.Argument(help="Folder (or CSV) of good images.")],
    out: Out,
    adaptation: Annotated[str, typer.Option("--adaptation", help="See `kizu list adaptations`.")],
    representation: RepresentationName = None,
    parameters: Parameters = None,
    dataset: Dataset = "folder",
    category: Category = None,
    image_size: Annotated[str, typer.Option("--image-size", help="224, or height,width.")] = "256",
    white_level: WhiteLevel = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the adaptation.")] = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Adapt a representation to good images and write it, for use under any detector.

    Its card lists the images it has seen: a detector on it cannot be calibrated on them. To adapt and
    calibrate on the same images use `kizu fit --adaptation`."""
    from kizu.apps import _fit

    run(
        lambda: _fit.adapt(
            data,
            out,
            adaptation,
            representation,
            parameters or [],
            dataset=dataset,
            category=category,
            image_size=image_size,
            white_level=white_level,
            seed=seed,
            resume=resume,
            overwrite=overwrite,
            as_json=as_json,
        )
    )


@app.command()
def inspect(
    model: Annotated[Path, typer.Argument(help="A model that `kizu fit` wrote.")],
    paths: Annotated[list[Path], typer.Argument(help="Images or folders of images.")],
    out: Out,
    panels: Annotated[bool, typer.Option(help="Write an image per image: image, heat map, decision.")] = True,
    maps: Annotated[
        str | None, typer.Option("--maps", help="Write raw maps at the size of the images: npy or tiff.")
    ] = None,
    table: Annotated[
        bool, typer.Option("--csv", help="Write results.csv, a line for each flaw region.")
    ] = False,
    precision: Precision = None,
    roi: RegionOfInterest = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Inspect new images: score, heat map, decision and flaw regions for each, and a page that shows them."""
    from kizu.apps import _commands, _findings

    run(
        lambda: _commands.inspect(
            *(model, paths, out, _findings.Outputs(panels, maps, table), precision, roi),
            overwrite=overwrite,
            resume=resume,
            as_json=as_json,
        )
    )


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model that `kizu fit` wrote.")],
    data: Annotated[Path, typer.Argument(help="Labelled images: their test split, or all without one.")],
    out: Out,
    dataset: Dataset = "folder",
    category: Category = None,
    mask_rule: MaskRuleName = None,
    no_masks: Annotated[
        bool, typer.Option("--no-masks", help="Leave masks aside: figures of images alone.")
    ] = False,
    allow_seen: Annotated[
        bool,
        typer.Option("--allow-seen", help="Measure on images that the model has seen too."),
    ] = False,
    precision: Precision = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Measure a model on labelled images; writes a run folder and its report."""
    from kizu.apps import _commands

    run(
        lambda: _commands.evaluate(
            *(model, data, out, dataset, category, mask_rule),
            *(not no_masks, allow_seen, precision, overwrite, as_json),
        )
    )


@app.command()
def demo(
    out: Out = Path("demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Smaller images and fewer of them.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """The main job on planted data, from drawing the images to the report; needs no data and no network."""
    from kizu.apps import _demo

    run(lambda: _demo.demo(out, quick, overwrite, as_json))


app.command()(_upkeep.calibrate)
app.command()(_upkeep.update)


for command in (_research.bench, _research.pretrain, _research.attention, _research.diagnose):
    app.command()(command)


app.command("list")(_catalogue.list_room)
data_app.command()(_catalogue.check)


def _explain(commands: typer.Typer, above: str = "") -> None:
    """Give each command its examples, and its first sentence whole: typer cuts it in the list of commands."""
    for info in commands.registered_commands:
        assert info.callback is not None  # typer's type, before a command is built
        info.short_help = first_sentence(info.callback.__doc__ or "")
        info.epilog = epilog(above + (info.name or info.callback.__name__))


_explain(app)
_explain(data_app, "data ")


def main(arguments: list[str] | None = None) -> None:
    """Entry point: runs a command and turns errors into one line and an exit code."""
    from kizu.checks import check_name
    from kizu.errors import KizuError

    _waiting.wait_asleep()
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    try:
        for argument in arguments:
            check_name(argument)
        app(args=arguments, prog_name="kizu")
    except (KizuError, OSError, MemoryError) as error:
        if debug:
            raise
        say(_errors.sentence(error))
        sys.exit(2)
    except RuntimeError as error:
        if debug or not _errors.is_out_of_memory(error):
            raise
        say(_errors.sentence(MemoryError(str(error).split(": ")[-1].split(".")[0])))
        sys.exit(2)


if __name__ == "__main__":
    main()
