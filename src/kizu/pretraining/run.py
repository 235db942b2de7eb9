"""A pretraining run: a folder that can be resumed until it is finished, and is a representation (or, of
adpretrain, a projector) then.

rep/recipe.json         objective, parameters, data, steps: all that `resume` needs
rep/log.jsonl           a line every few steps
rep/checkpoint.kizu     until the run is finished
rep/weights.safetensors, card.json     the representation, written last
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from kizu import registry, store
from kizu.checks import whole_numbers
from kizu.errors import DataError, UsageError
from kizu.grey_depth import check_white_level
from kizu.launchers import check_counts, is_first_process
from kizu.locks import locked
from kizu.pretraining._encoder_job import EXTRAS, EncoderJob
from kizu.pretraining._projector_job import ProjectorJob
from kizu.pretraining._recipe import RECIPE, absolute, check_given, place_of, to_json, without_paths
from kizu.pretraining._recipe import read_recipe as read_recipe
from kizu.training import gather_mapping, rank_and_world, train
from kizu.training.checkpoint import NAME as CHECKPOINT
from kizu.training.checkpoint import has_checkpoint

__all__ = ["pretrain", "resume"]


def pretrain(
    objective: str,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    steps: int,
    init: str | None = None,
    source_size: int | None = None,
    white_level: int | None = None,
    accumulate: int = 1,
    precision: str = "auto",
    device: str = "auto",
    devices: int | None = None,
    nodes: int | None = None,
    sync_batch_norm: bool | None = None,
    checkpoint_every: int = 200,
    log_every: int = 10,
    half: bool = False,
    overwrite: bool = False,
    show: bool = True,
    **parameters: Any,
) -> Path:
    """Train `objective` (see `kizu list pretraining`) on images and write a representation to folder `out`.

    data: folders of images, or "procedural" (kizu's generator; "procedural:200" draws 200 classes); several
    sources alternate. steps: optimiser steps. init: a representation, by name or path, from whose weights
    the encoder starts; None starts from random ones. source_size: side in pixels that images are brought to
    before the views are cut from them; None is 8/7 of the views' side. white_level: value of white in grey
    files of more than 8 bits, where not as they say. half: store the weights in float16.
    parameters: those of the objective, such as backbone="resnet18" and spd=SPDConfig(eta=0.5). The other
    keywords: see `kizu.training.train`.

    "adpretrain" writes a projector instead, for the adaptation `residual`. Its data are data sets with
    labels, "mvtec:PATH" or "mvtec[bottle,cable]:PATH"; init, source_size, half and sync_batch_norm have no
    effect on it and are refused.

    An interrupted run is continued by `resume(out)`. Raises UnknownName, UnknownParameter, UsageError,
    OutputExists, EmptyData, NotFinite."""
    whole_numbers(steps=steps)
    whole_numbers(none=True, source_size=source_size)
    check_white_level(white_level)
    cls = registry.load("pretraining", objective)
    registry.check_keywords(objective, cls, parameters)
    run = {
        "init": init and absolute(init), "source_size": source_size, "white_level": white_level,
        "accumulate": accumulate,
        "precision": precision, "device": device, "devices": devices, "nodes": nodes,
        "sync_batch_norm": sync_batch_norm,
        "checkpoint_every": checkpoint_every, "log_every": log_every, "half": half,
    }  # fmt: skip
    sources = [data] if isinstance(data, str | Path) else data
    recipe = {
        "objective": objective,
        "parameters": to_json(parameters, cls),
        "data": [absolute(source) for source in sources],
        "steps": steps,
        "run": run,
    }
    folder, inputs = Path(out), [*map(place_of, sources), *([init] if init else [])]
    if is_first_process():
        store.check_output(folder, RECIPE, overwrite=overwrite, inputs=inputs)
    with _alone_in(folder):
        if is_first_process():
            store.check_output(folder, RECIPE, overwrite=overwrite)  # another run may have ended meanwhile
        return _run(folder, recipe, resume=False, show=show)


def resume(out: str | Path, *, given: dict[str, Any] | None = None, show: bool = True) -> Path:
    """Continue the interrupted run in folder `out`, exactly from its last checkpoint. A finished one stays as
    it is.

    given: keywords of `pretrain`, and objective and data, that the run must have been started with. Raises
    UsageError for other ones, when there is no run, no checkpoint, or another process is at it;
    ModelFileError when the folder is damaged."""
    folder = Path(out)
    recipe = read_recipe(folder)
    check_given(folder, recipe, given or {})
    if is_finished(folder):
        return folder
    with _alone_in(folder):
        if not has_checkpoint(folder):
            raise UsageError(
                f"{folder} holds no checkpoint to go on from, and no finished representation. Nothing was "
                "changed; to begin again, repeat the command with --overwrite (Python: overwrite=True) and "
                "without resume."
            )
        return _run(folder, recipe, resume=True, show=show)


def is_finished(folder: Path) -> bool:
    """Whether the representation of a run is written."""
    return (folder / store.WEIGHTS).exists() and (folder / store.CARD).exists()


def _alone_in(folder: Path) -> AbstractContextManager[None]:
    """The lock of a run's folder; of several processes the first one holds it."""
    return locked(folder) if is_first_process() else nullcontext()


def _run(folder: Path, recipe: dict[str, Any], *, resume: bool, show: bool) -> Path:
    run = recipe["run"]
    check_counts(run["devices"], run["nodes"])
    job = _job(recipe)
    if not resume:
        recipe = {**recipe, **job.begin(device=run["device"], show=show)}
    if is_first_process() and not resume:
        _clear(folder)
        store.write_record(folder, RECIPE, recipe)
    settings = {
        "objective": recipe["objective"],
        "parameters": job.parameters,
        "data": recipe["data"],
        **job.settings(),
    }
    places = {name: value for name, value in run.items() if name not in EXTRAS}
    try:
        rows = train(
            job.objective, job.stream, steps=recipe["steps"], batch_size=job.objective.batch_size,
            folder=folder, recipe=settings, resume=resume, title=recipe["objective"], show=show, **places,
        )  # fmt: skip
    except (UsageError, DataError):
        if is_first_process() and not resume and not has_checkpoint(folder):
            _clear(folder)  # nothing was trained: the next attempt finds the folder free
        raise
    skipped = gather_mapping(job.stream.skipped)
    if rank_and_world()[0] == 0:
        if skipped:
            store.write_json(folder / "skipped.json", skipped)
        _write(folder, job, recipe, rows, len(skipped))
    return folder


def _job(recipe: dict[str, Any]) -> EncoderJob | ProjectorJob:
    """What is trained, on what, and how it is written: by what the objective writes."""
    writes = registry.load("pretraining", recipe["objective"]).writes
    return ProjectorJob(recipe) if writes == "projector" else EncoderJob(recipe)


def _write(
    folder: Path, job: EncoderJob | ProjectorJob, recipe: dict[str, Any], rows: list[Any], skipped: int
) -> None:
    """Weights and card, whole, beside the run's own files; the card last."""
    complete = folder / ".finished"
    job.write(complete, without_paths(recipe), rows, skipped)
    for name in (store.WEIGHTS, store.CARD):
        (complete / name).replace(folder / name)
    complete.rmdir()
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    for name in (RECIPE, "log.jsonl", CHECKPOINT, "skipped.json", store.WEIGHTS, store.CARD):
        (folder / name).unlink(missing_ok=True)
