"""A run whose objective trains an encoder: its images, where it begins, and the representation that it
writes."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from torch import Tensor

from kizu import registry, store
from kizu.checks import whole_numbers
from kizu.pretraining._recipe import from_json
from kizu.pretraining.base import Pretraining
from kizu.pretraining.data import Images
from kizu.representations.backbone import Backbone

MAX_SEEN = 100_000
"""Images up to which a card lists what identifies each; more would make it one of many megabytes, and the
names of the data must do."""
CURVE = 200
"""Points of the loss curve that a card keeps."""
EXTRAS = ("init", "source_size", "white_level", "half")
"""Settings of a run that `kizu.training.train` does not take."""


class EncoderJob:
    """What `kizu.pretraining.run` needs of such a run. Raises what the images and the objective raise."""

    def __init__(self, recipe: dict[str, Any]) -> None:
        self.parameters, run = dict(recipe["parameters"]), recipe["run"]
        self.init, self.half = run.get("init"), bool(run["half"])
        cls = registry.load("pretraining", recipe["objective"])
        defaults = {key: value.default for key, value in inspect.signature(cls).parameters.items()}
        size, seed = (self.parameters.get(name, defaults[name]) for name in ("size", "seed"))
        whole_numbers(least=32, size=size)
        whole_numbers(least=0, seed=seed)
        side = run.get("source_size") or round(size * 8 / 7)
        self.stream = Images(recipe["data"], side=side, seed=seed, white_level=run.get("white_level"))
        if "classes" in defaults and not self.parameters.get("classes"):
            self.parameters["classes"] = self.stream.classes
        self.objective: Pretraining = cls(**from_json(self.parameters))
        self.objective.check_data(self.stream.count, self.stream.classes)

    def settings(self) -> dict[str, Any]:
        """What decides the result beside objective, parameters and data: a checkpoint is held to it."""
        return {"init": self.init, "images": self.stream.digest()}

    def begin(self, *, device: str, show: bool) -> dict[str, Any]:
        """Before the first step: the weights to begin with, and what the recipe says of them."""
        if not self.init:
            return {}
        card = self.objective.initialise_from(self.init)
        origin = {name: card.get(name) for name in ("licence", "trained_on")}
        return {"initialised_from": {"name": str(card["name"]).partition("@")[0], **origin}}

    def write(self, folder: Path, recipe: dict[str, Any], rows: list[dict[str, Any]], skipped: int) -> None:
        """The representation: all stages of the encoder, with its card."""
        objective, card = self.objective, self._card(recipe, rows, skipped)
        levels = tuple(range(1, objective.encoder.stages + 1))
        state = {name: value.detach().cpu() for name, value in objective.encoder.net.state_dict().items()}
        net = Backbone(
            objective.backbone,
            levels=levels,
            source="file",
            weights=recipe["objective"],
            weights_state=state,
        )
        tensors = {name: _to_half(value) if self.half else value for name, value in net.state_dict().items()}
        described = {"kind": "representation", "representation": {**net.card, **card}}
        store.save(folder, tensors, described, overwrite=True)

    def _card(self, recipe: dict[str, Any], rows: list[dict[str, Any]], skipped: int) -> dict[str, Any]:
        """The part of the representation's card that describes the training."""
        base, objective = recipe.get("initialised_from", {}), self.objective
        sources = self.stream.card()
        trained_on = [*base.get("trained_on", []), *(source["name"] for source in sources)]
        return {
            "name": f"{recipe['objective']}{'+spd' if objective.spd else ''}/{objective.backbone}",
            "licence": "that of the images it was trained on"
            + (f", and of {base['name']}: {base['licence']}" if base else ""),
            "trained_on": list(dict.fromkeys(trained_on)),
            "data": sources,
            **self._images_seen(recipe["steps"] * objective.batch_size),
            "skipped_images": skipped,
            "recipe": recipe,
            "curve": curve(rows),
            "precision": objective.precision_.facts() if objective.precision_ else None,
            "stages": "all",
            "half": self.half,
            "made": store.provenance(),
        }

    def _images_seen(self, drawn: int) -> dict[str, list[str]]:
        """What identifies the images, for `kizu.evaluation.seen`; nothing for more than MAX_SEEN."""
        finite = sum(source.count for source in self.stream.sources if source.count is not None)
        return {"images_seen": self.stream.seen(drawn)} if finite <= MAX_SEEN else {}


def curve(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most CURVE rows of a log, and the last one."""
    return [*rows[:-1][:: -(-len(rows) // CURVE) or 1], *rows[-1:]]


def _to_half(value: Tensor) -> Tensor:
    """As float16, unless a number is too large for it."""
    if not value.is_floating_point():
        return value
    half = value.half()
    return half if bool(half.isfinite().all()) else value
