"""The commands of research: experiments, pretraining, attention, diagnosis. `cli` adds them to the command
line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kizu.apps._options import (
    AsJson,
    Category,
    Dataset,
    MaskRuleName,
    Out,
    Overwrite,
    Parameters,
    RepresentationName,
    Resume,
    Seed,
    WhiteLevel,
    run,
)


def bench(
    experiment: Annotated[Path, typer.Argument(help="A TOML file, such as those in experiments/.")],
    out: Out,
    data_root: Annotated[
        Path | None,
        typer.Option("--data", envvar="KIZU_DATA", help="Folder that holds the data sets the file names."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Run every cell of an experiment, or those that are not done yet, and write its tables. --overwrite
    begins anew."""
    from kizu.apps import _bench

    run(lambda: _bench.bench(experiment, out, data_root, overwrite=overwrite, as_json=as_json))


def pretrain(
    context: typer.Context,
    objective: Annotated[
        str, typer.Argument(help="See `kizu list pretraining`; with --resume it is not needed.")
    ] = "",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the representation.")] = Path(
        "representation"
    ),
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            help="Folder of images, or 'procedural' (adpretrain: NAME:PATH, a data set with masks); may be "
            "repeated: they take turns.",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option("--init", help="Begin with the weights of this representation, by name or path."),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", help="Optimiser steps.")] = 10_000,
    spd: Annotated[bool, typer.Option("--spd", help="Add SPD: learn to spot small differences.")] = False,
    backbone: Annotated[
        str,
        typer.Option(
            "--backbone",
            help="A timm network of stages (adpretrain: a representation, with its levels).",
        ),
    ] = "resnet18",
    size: Annotated[int, typer.Option("--size", help="Side of the views in pixels.")] = 224,
    batch_size: Annotated[
        int, typer.Option("--batch-size", help="Images of one step, over all processes (adpretrain: 32).")
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
    white_level: WhiteLevel = None,
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
    sync_batch_norm: Annotated[
        bool | None,
        typer.Option(
            "--sync-batch-norm/--no-sync-batch-norm",
            help="Whether several processes share the statistics of batch norms (default: yes, but MoCo).",
        ),
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
    """Train a representation on images of anything, which every detector takes by its path; or, by
    adpretrain, a projector for the adaptation `residual` on images with masks."""
    from kizu.apps import _pretrain

    settings = {
        "steps": steps,
        "init": init,
        "source_size": source_size,
        "white_level": white_level,
        "accumulate": accumulate,
        "precision": precision,
        "device": device,
    }
    places = {
        "devices": devices,
        "nodes": nodes,
        "sync_batch_norm": sync_batch_norm,
        "checkpoint_every": checkpoint_every,
        "half": half,
        "overwrite": overwrite,
    }
    named = {"spd": spd, "backbone": backbone, "size": size, "batch_size": batch_size, "seed": seed}
    said = {name for name in context.params if _is_said(context, name)}
    run(
        lambda: _pretrain.pretrain(
            objective, data or [], out, named, parameters or [], resume, as_json, said, **settings, **places
        ),
        on_several_processes=True,
    )


def _is_said(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def attention(
    data: Annotated[Path, typer.Argument(help="Data with good and flawed images.")],
    out: Out,
    representations: Annotated[
        list[str] | None,
        typer.Option("--representation", help="As for fit, or LABEL=NAME; repeat it to compare."),
    ] = None,
    dataset: Dataset = "folder",
    category: Category = None,
    mask_rule: MaskRuleName = None,
    count: Annotated[
        int, typer.Option("--count", help="Flawed images, the kinds of flaw in turn; the report shows 8.")
    ] = 8,
    image_size: Annotated[str, typer.Option("--image-size", help="224, or height,width.")] = "224",
    white_level: WhiteLevel = None,
    level: Annotated[
        int | None, typer.Option("--level", help="Stage that is compared (default: the last).")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Where flawed images differ from their nearest good ones, to one representation or several side by side
    (Grad-CAM)."""
    from kizu.apps import _attention

    run(
        lambda: _attention.attention(
            data,
            out,
            representations or [],
            dataset=dataset,
            category=category,
            mask_rule=mask_rule,
            count=count,
            image_size=image_size,
            white_level=white_level,
            level=level,
            seed=seed,
            overwrite=overwrite,
            as_json=as_json,
        )
    )


def diagnose(
    data: Annotated[Path, typer.Argument(help="Data with good and flawed images.")],
    out: Out,
    variants: Annotated[
        list[str] | None,
        typer.Option(
            "--variant", help="A, B, B+hm, C, D, C+cp, E-gl, E or full (default: full); repeat it to compare."
        ),
    ] = None,
    dataset: Dataset = "folder",
    category: Category = None,
    mask_rule: MaskRuleName = None,
    representation: RepresentationName = None,
    parameters: Parameters = None,
    every: Annotated[int, typer.Option("--every", help="Iterations between two tests.")] = 250,
    landscape: Annotated[
        int, typer.Option("--landscape", help="Points a side of the loss landscape; 0: none.")
    ] = 0,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train variants of ReContrast and show how they learn: loss, test figures, feature diversity,
    landscape."""
    from kizu.apps import _diagnose

    run(
        lambda: _diagnose.diagnose(
            data,
            out,
            variants or ["full"],
            dataset=dataset,
            category=category,
            mask_rule=mask_rule,
            representation=representation,
            parameters=parameters or [],
            every=every,
            landscape=landscape,
            seed=seed,
            resume=resume,
            overwrite=overwrite,
            as_json=as_json,
        )
    )
