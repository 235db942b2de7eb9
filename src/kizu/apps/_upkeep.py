"""The commands that look after a model: its decision, and more good images. `cli` adds them to the command
line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kizu.apps._options import (
    AsJson,
    Category,
    Dataset,
    OtherOut,
    Overwrite,
    Precision,
    Rate,
    Seed,
    run,
)

Model = Annotated[Path, typer.Argument(help="A model that `kizu fit` wrote.")]


def calibrate(
    model: Model,
    good: Annotated[
        Path | None,
        typer.Argument(help="Folder (or CSV) of good images that the model has not learned from."),
    ] = None,
    out: OtherOut = None,
    false_alarm_rate: Rate = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="The score above which a part is called anomalous, named."),
    ] = None,
    dataset: Dataset = "folder",
    category: Category = None,
    precision: Precision = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Move the decision of a model without learning again, and say what it promises.

    Without GOOD the scores of its calibration are used again; with GOOD they are replaced by those of these
    images."""
    from kizu.apps import _models

    run(
        lambda: _models.calibrate(
            _models.Files(model, out, overwrite),
            good,
            false_alarm_rate=false_alarm_rate,
            threshold=threshold,
            dataset=dataset,
            category=category,
            precision=precision,
            as_json=as_json,
        )
    )


def update(
    model: Model,
    good: Annotated[Path, typer.Argument(help="Folder (or CSV) of good images, new ones among them.")],
    out: OtherOut = None,
    false_alarm_rate: Rate = None,
    calibration: Annotated[
        str, typer.Option("--calibration", help="auto, split, cross or none: how the promise is backed.")
    ] = "auto",
    seed: Seed = 0,
    dataset: Dataset = "folder",
    category: Category = None,
    precision: Precision = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Learn from more good images, calibrate anew, and say what is promised.

    Images that the model has learned from are left out; those of its calibration are scored again, which
    keeps the promise sharp: give the old folder of good images with the new ones in it."""
    from kizu.apps import _models

    run(
        lambda: _models.update(
            _models.Files(model, out, overwrite),
            good,
            false_alarm_rate=false_alarm_rate,
            method=calibration,
            seed=seed,
            dataset=dataset,
            category=category,
            precision=precision,
            as_json=as_json,
        )
    )
