"""A pretraining run: a folder that is a representation when it is finished, and can be resumed until then.

rep/recipe.json         objective, knobs, data, steps: all that `resume` needs
rep/log.jsonl           a line every few steps
rep/checkpoint.kizu     until the end
rep/weights.safetensors, card.json     the representation, written last
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from kizu import registry, store
from kizu.errors import DataError, ModelFileError, OutputExists, UsageError
from kizu.pretraining.base import Pretraining
from kizu.pretraining.data import Images
from kizu.representations.backbone import Backbone
from kizu.training import check_counts, is_first_process, rank_and_world, train

__all__ = ["pretrain", "resume"]

RECIPE = "recipe.json"
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
    accumulate: int = 1,
    precision: str = "auto",
    device: str = "auto",
    devices: int | None = None,
    nodes: int | None = None,
    checkpoint_every: int = 200,
    log_every: int = 10,
    half: bool = False,
    overwrite: bool = False,
    show: bool = True,
    **knobs: Any,
) -> Path:
    """Train objective `objective` (see `kizu list pretraining`) with `knobs` on images and write a
    representation to folder `out`.

    data: folders of images, or "procedural" (our generator; "procedural:200" with that many classes), taken
    in turn. steps: optimiser steps. init: a representation, by name or path, whose weights the encoder begins
    with (None: random ones). source_size: side that images are brought to before the views are cut from
    them (default 8/7 of the views' side). half: keep the weights in float16. The rest as
    `kizu.training.train`. An interrupted run is continued by `resume(out)`. Raises UnknownName, UnknownParameter,
    UsageError, OutputExists, EmptyData, NotFinite."""
    check_counts(steps=steps, **({} if source_size is None else {"source_size": source_size}))
    registry.check_keywords(objective, registry.load("pretraining", objective), knobs)
    run = {
        "init": init and _placed(init), "source_size": source_size, "accumulate": accumulate, "precision": precision,
        "device": device, "devices": devices, "nodes": nodes, "checkpoint_every": checkpoint_every, "log_every": log_every, "half": half,
    }  # fmt: skip
    sources = [data] if isinstance(data, str | Path) else data
    recipe = {
        "objective": objective,
        "parameters": knobs,
        "data": [_placed(source) for source in sources],
        "steps": steps,
        "run": run,
    }
    folder = Path(out)
    if is_first_process() and not overwrite and folder.exists() and any(folder.iterdir()):
        raise OutputExists(folder)
    return _run(folder, recipe, resume=False, show=show)


def resume(out: str | Path, *, show: bool = True) -> Path:
    """Go on with an interrupted run in folder `out`, exactly where its last checkpoint is. Raises UsageError,
    ModelFileError."""
    folder = Path(out)
    if not (folder / RECIPE).exists():
        raise UsageError(f"{folder} holds no pretraining run (no {RECIPE}).")
    if (folder / store.WEIGHTS).exists() and not (folder / "checkpoint.kizu").exists():
        raise UsageError(f"{folder} is finished already.")
    try:
        recipe = json.loads((folder / RECIPE).read_text("utf-8"))
    except ValueError as error:
        raise ModelFileError(f"{folder / RECIPE} is not valid JSON ({error}). Start the run anew.") from error
    return _run(folder, recipe, resume=(folder / "checkpoint.kizu").exists(), show=show)


def _run(folder: Path, recipe: dict[str, Any], *, resume: bool, show: bool) -> Path:
    knobs, run = dict(recipe["parameters"]), dict(recipe["run"])
    cls = registry.load("pretraining", recipe["objective"])
    parameters = inspect.signature(cls).parameters
    size, seed = int(knobs.get("size", parameters["size"].default)), int(knobs.get("seed", 0))
    images = Images(recipe["data"], side=run.pop("source_size") or round(size * 8 / 7), seed=seed)
    if "classes" in parameters and not knobs.get("classes"):
        knobs["classes"] = images.classes
    made: Pretraining = cls(**knobs)
    made.check_data(images.count, images.classes)
    init = run.pop("init", None)
    if init and not resume:
        recipe = {**recipe, "began_from": _facts(made.begin_from(init))}
    if is_first_process() and not resume:
        _clear(folder)
        store.write_json(folder / RECIPE, recipe)
    half = run.pop("half")
    settings = {"objective": recipe["objective"], "parameters": knobs, "data": recipe["data"], "init": init}
    try:
        rows = train(
            made, images, steps=recipe["steps"], batch_size=made.batch_size, folder=folder, recipe=settings, resume=resume,
            title=recipe["objective"], show=show, **run,
        )  # fmt: skip
    except (UsageError, DataError):
        if (
            is_first_process() and not (folder / "checkpoint.kizu").exists()
        ):  # it never began: the next try finds the folder free
            _clear(folder)
        raise
    if rank_and_world()[0] == 0:
        _write(folder, made, recipe, images, rows, half)
    return folder


def _placed(source: str | Path) -> str:
    """A folder's absolute path, so that the run can be resumed from elsewhere; another source as it is."""
    return str(Path(source).resolve()) if Path(source).is_dir() else str(source)


def _told(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe for the card: where things lay on this machine is nobody's business."""
    init = recipe["run"].get("init")
    run = {**recipe["run"], "init": init and (Path(init).name if Path(init).is_absolute() else init)}
    return {**recipe, "data": [Path(source).name for source in recipe["data"]], "run": run}


def _facts(card: dict[str, Any]) -> dict[str, Any]:
    """What a representation that began from another must say of it."""
    return {
        "name": str(card["name"]).partition("@")[0],
        **{name: card.get(name) for name in ("licence", "trained_on")},
    }


def _clear(folder: Path) -> None:
    for name in (RECIPE, "log.jsonl", "checkpoint.kizu", "skipped.json", store.WEIGHTS, store.CARD):
        (folder / name).unlink(missing_ok=True)


def _write(
    folder: Path,
    made: Pretraining,
    recipe: dict[str, Any],
    images: Images,
    rows: list[dict[str, Any]],
    half: bool,
) -> None:
    """The representation: all stages of the encoder, with its card; then the checkpoint goes."""
    levels = tuple(range(1, made.encoder.stages + 1))
    state = {name: value.detach().cpu() for name, value in made.encoder.net.state_dict().items()}
    net = Backbone(
        made.backbone, levels=levels, source="file", weights=recipe["objective"], weights_state=state
    )
    tensors = {name: _halved(value) if half else value for name, value in net.state_dict().items()}
    step, base = -(-len(rows) // CURVE) or 1, recipe.get("began_from", {})
    card = {
        **net.card,
        "name": f"{recipe['objective']}{'+spd' if made.spd is not None else ''}/{made.backbone}",
        "licence": "that of the images it was trained on"
        + (f", and of {base['name']}: {base['licence']}" if base else ""),
        "trained_on": list(
            dict.fromkeys([*base.get("trained_on", []), *(source["name"] for source in images.card())])
        ),
        "data": images.card(),
        "skipped_images": len(images.skipped),
        "recipe": _told(recipe),
        "curve": [*rows[:-1][::step], *rows[-1:]],
        "stages": "all",
        "half": half,
        "made": store.provenance(),
    }
    whole = store.save(
        folder / ".representation",
        tensors,
        {"kind": "representation", "representation": card},
        overwrite=True,
    )
    for name in (store.WEIGHTS, store.CARD):
        (whole / name).replace(folder / name)
    whole.rmdir()
    if images.skipped:
        store.write_json(folder / "skipped.json", images.skipped)
    (folder / "checkpoint.kizu").unlink(missing_ok=True)


def _halved(value: Tensor) -> Tensor:
    """float16, where it holds the numbers."""
    if not value.is_floating_point():
        return value
    made = value.half()
    return made if bool(made.isfinite().all()) else value
