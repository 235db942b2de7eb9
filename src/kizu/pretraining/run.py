"""A pretraining run: a folder that can be resumed until it is finished, and is a representation then.

rep/recipe.json         objective, parameters, data, steps: all that `resume` needs
rep/log.jsonl           a line every few steps
rep/checkpoint.kizu     until the run is finished
rep/weights.safetensors, card.json     the representation, written last
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from kizu import registry, store
from kizu.checks import whole_numbers
from kizu.errors import DataError, UsageError
from kizu.grey_depth import check_white_level
from kizu.launchers import check_counts, is_first_process
from kizu.locks import locked
from kizu.pretraining._recipe import RECIPE, absolute, check_given, from_json, to_json
from kizu.pretraining._recipe import read_recipe as read_recipe
from kizu.pretraining.base import Pretraining
from kizu.pretraining.data import Images
from kizu.representations.backbone import Backbone
from kizu.training import gather_mapping, rank_and_world, train
from kizu.training.checkpoint import NAME as CHECKPOINT
from kizu.training.checkpoint import has_checkpoint

__all__ = ["pretrain", "resume"]

MAX_SEEN = 100_000
"""Images of folders up to which the card lists what identifies each."""
CURVE = 200
"""Points of the loss curve that the card keeps."""


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

    An interrupted run is continued by `resume(out)`. Raises UnknownName, UnknownParameter, UsageError,
    OutputExists, EmptyData, NotFinite."""
    whole_numbers(steps=steps)
    whole_numbers(none=True, source_size=source_size)
    check_white_level(white_level)
    registry.check_keywords(objective, registry.load("pretraining", objective), parameters)
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
        "parameters": to_json(parameters),
        "data": [absolute(source) for source in sources],
        "steps": steps,
        "run": run,
    }
    folder, inputs = Path(out), [*map(str, sources), *([init] if init else [])]
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
    parameters, run = dict(recipe["parameters"]), dict(recipe["run"])
    check_counts(run["devices"], run["nodes"])
    objective, images = _objective_and_images(recipe["objective"], parameters, recipe["data"], run)
    init = run.pop("init", None)
    if init and not resume:
        recipe = {**recipe, "initialised_from": _origin(objective.initialise_from(init))}
    if is_first_process() and not resume:
        _clear(folder)
        store.write_record(folder, RECIPE, recipe)
    half = run.pop("half")
    settings = {
        "objective": recipe["objective"],
        "parameters": parameters,
        "data": recipe["data"],
        "init": init,
        "images": images.digest(),
    }
    try:
        rows = train(
            objective, images, steps=recipe["steps"], batch_size=objective.batch_size, folder=folder,
            recipe=settings, resume=resume, title=recipe["objective"], show=show, **run,
        )  # fmt: skip
    except (UsageError, DataError):
        if is_first_process() and not resume and not has_checkpoint(folder):
            _clear(folder)  # nothing was trained: the next attempt finds the folder free
        raise
    skipped = gather_mapping(images.skipped)
    if rank_and_world()[0] == 0:
        if skipped:
            store.write_json(folder / "skipped.json", skipped)
        _write(folder, objective, _card(objective, recipe, images, rows, half, skipped=len(skipped)), half)
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return folder


def _objective_and_images(
    name: str, parameters: dict[str, Any], data: list[str], run: dict[str, Any]
) -> tuple[Pretraining, Images]:
    """What is trained, and on what. `parameters` gains the number of classes, `run` loses source_size and
    white_level."""
    cls = registry.load("pretraining", name)
    defaults = {key: value.default for key, value in inspect.signature(cls).parameters.items()}
    size, seed = parameters.get("size", defaults["size"]), parameters.get("seed", defaults["seed"])
    whole_numbers(least=32, size=size)
    whole_numbers(least=0, seed=seed)
    side, white_level = run.pop("source_size") or round(size * 8 / 7), run.pop("white_level", None)
    images = Images(data, side=side, seed=seed, white_level=white_level)
    if "classes" in defaults and not parameters.get("classes"):
        parameters["classes"] = images.classes
    objective: Pretraining = cls(**from_json(parameters))
    objective.check_data(images.count, images.classes)
    return objective, images


def _without_paths(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe for the card, which others read: folders of this machine by their last name only."""
    init = recipe["run"].get("init")
    run = {**recipe["run"], "init": init and (Path(init).name if Path(init).is_absolute() else init)}
    return {**recipe, "data": [Path(source).name for source in recipe["data"]], "run": run}


def _origin(card: dict[str, Any]) -> dict[str, Any]:
    """What the card says about the representation that a run started from."""
    return {
        "name": str(card["name"]).partition("@")[0],
        **{name: card.get(name) for name in ("licence", "trained_on")},
    }


def _clear(folder: Path) -> None:
    for name in (RECIPE, "log.jsonl", CHECKPOINT, "skipped.json", store.WEIGHTS, store.CARD):
        (folder / name).unlink(missing_ok=True)


def _card(
    objective: Pretraining,
    recipe: dict[str, Any],
    images: Images,
    rows: list[dict[str, Any]],
    half: bool,
    *,
    skipped: int,
) -> dict[str, Any]:
    """The part of the representation's card that describes the training."""
    every, base = -(-len(rows) // CURVE) or 1, recipe.get("initialised_from", {})
    trained_on = [*base.get("trained_on", []), *(source["name"] for source in images.card())]
    return {
        "name": f"{recipe['objective']}{'+spd' if objective.spd else ''}/{objective.backbone}",
        "licence": "that of the images it was trained on"
        + (f", and of {base['name']}: {base['licence']}" if base else ""),
        "trained_on": list(dict.fromkeys(trained_on)),
        "data": images.card(),
        **_images_seen(images, recipe["steps"] * objective.batch_size),
        "skipped_images": skipped,
        "recipe": _without_paths(recipe),
        "curve": [*rows[:-1][::every], *rows[-1:]],
        "precision": objective.precision_.facts() if objective.precision_ else None,
        "stages": "all",
        "half": half,
        "made": store.provenance(),
    }


def _images_seen(images: Images, drawn: int) -> dict[str, list[str]]:
    """What identifies the images, for `kizu.evaluation.seen`; nothing for more than MAX_SEEN, whose list
    would make a card of many megabytes: there the names of the sources must do."""
    finite = sum(source.count for source in images.sources if source.count is not None)
    return {"images_seen": images.seen(drawn)} if finite <= MAX_SEEN else {}


def _write(folder: Path, objective: Pretraining, card: dict[str, Any], half: bool) -> None:
    """The representation: all stages of the encoder, with its card."""
    levels = tuple(range(1, objective.encoder.stages + 1))
    state = {name: value.detach().cpu() for name, value in objective.encoder.net.state_dict().items()}
    net = Backbone(
        objective.backbone,
        levels=levels,
        source="file",
        weights=card["recipe"]["objective"],
        weights_state=state,
    )
    tensors = {name: _to_half(value) if half else value for name, value in net.state_dict().items()}
    described = {"kind": "representation", "representation": {**net.card, **card}}
    complete = store.save(folder / ".representation", tensors, described, overwrite=True)
    for name in (store.WEIGHTS, store.CARD):
        (complete / name).replace(folder / name)
    complete.rmdir()


def _to_half(value: Tensor) -> Tensor:
    """As float16, unless a number is too large for it."""
    if not value.is_floating_point():
        return value
    half = value.half()
    return half if bool(half.isfinite().all()) else value
