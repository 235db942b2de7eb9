"""A run whose objective trains a projector on a frozen representation: its data, the centres, and the
projector that it writes."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kizu import registry, store
from kizu.checks import whole_numbers, without_effect
from kizu.engine import device_named
from kizu.errors import UsageError
from kizu.pretraining._encoder_job import curve
from kizu.pretraining._labelled import LabelledImages
from kizu.pretraining._queries import Queries
from kizu.pretraining._residuals import residuals
from kizu.pretraining.adpretrain import ADPretrain
from kizu.representations.projected import describe_base, save_projector
from kizu.training import Position
from kizu.training.log import Progress

CENTRE_SHOTS = 4
"""References of an image for the mean residual, as in the released code; fewer with fewer shots."""
CENTRE_SEED = 4
"""Added to the seed of the run."""


class ProjectorJob:
    """What `kizu.pretraining.run` needs of such a run. Raises what the data and the objective raise, and
    UsageError for settings without effect or data without anomalous images."""

    def __init__(self, recipe: dict[str, Any]) -> None:
        run, cls = recipe["run"], registry.load("pretraining", recipe["objective"])
        settings = {"init": None, "source_size": None, "half": False, "sync_batch_norm": None}
        given = {name: (run.get(name, default), default) for name, default in settings.items()}
        without_effect(f"on {recipe['objective']}", **given)
        self.parameters = dict(recipe["parameters"])
        defaults = {key: value.default for key, value in inspect.signature(cls).parameters.items()}
        size = self.parameters.get("size", defaults["size"])
        whole_numbers(least=32, size=size)
        self.objective: ADPretrain = cls(**self.parameters)
        shots = self.objective.all_shots
        self.data = LabelledImages(
            recipe["data"], side=size, shots=max(shots), white_level=run.get("white_level"),
            unmasked=self.objective.unmasked, same_view=self.objective.same_view,
        )  # fmt: skip
        self.check_data()
        self.stream = Queries(
            self.data, self.objective.base, shots=shots, per_step=self.objective.shots_per == "step",
            plant=self.objective.plant, plant_share=self.objective.plant_share, seed=self.objective.seed,
        )  # fmt: skip

    def check_data(self) -> None:
        """Raise UsageError where no token would ever be anomalous, or none good; or where nothing can be
        planted."""
        bare = self.data.without_anomalies
        if not (self.data.labels == 0).any():
            raise UsageError("There is no good image: a projector learns from good and anomalous ones.")
        if not (self.data.labels == 1).any() and self.objective.plant == "none":
            raise UsageError(
                "There is no anomalous image: a projector learns from good and anomalous ones. Give data "
                "with anomalous images and their masks, or plant defects (plant='smooth_blend'; --set "
                "plant=smooth_blend)."
            )
        if self.objective.plant != "none" and not bare.any():
            raise UsageError(
                f"plant={self.objective.plant!r} plants defects in good images of categories without "
                "anomalous ones; every category has some. Leave it away."
            )

    def settings(self) -> dict[str, Any]:
        """What decides the result beside objective, parameters and data: a checkpoint is held to it."""
        return {"images": self.data.digest(), "base": describe_base(self.objective.base.base)}

    def begin(self, *, device: str, show: bool) -> dict[str, Any]:
        """Before the first step: the mean residual of good images, where angles are measured from it."""
        if self.objective.centre == "residual":
            means = mean_residuals(self.objective, self.data, device_named(device), show=show)
            for centre, mean in zip(self.objective.centres, means, strict=True):
                centre.copy_(mean)
        return {}

    def write(self, folder: Path, recipe: dict[str, Any], rows: list[dict[str, Any]], skipped: int) -> None:
        """The projector with its card."""
        card = self._card(recipe, rows, skipped)
        save_projector(folder, self.objective.projector, card, overwrite=True)

    def _card(self, recipe: dict[str, Any], rows: list[dict[str, Any]], skipped: int) -> dict[str, Any]:
        base = self.objective.base.base
        return {
            "name": f"{recipe['objective']}/{base.card['name']}",
            "licence": "that of the images it was trained on",
            "trained_on": self.data.names,
            "data": self.data.card(),
            "images_seen": self.data.digests(),
            "skipped_images": skipped,
            "matching": self.objective.matching,
            "base": describe_base(base),
            "recipe": recipe,
            "curve": curve(rows),
            "precision": self.objective.precision_.facts() if self.objective.precision_ else None,
            "made": store.provenance(),
        }


@torch.no_grad()
def mean_residuals(
    objective: ADPretrain, data: LabelledImages, device: torch.device, *, show: bool
) -> list[Tensor]:
    """(C_l,) of each level: the mean over good images and positions of the residual, before any projector,
    against up to CENTRE_SHOTS other good images, without augmentation."""
    good = torch.from_numpy((data.labels == 0).nonzero()[0])
    if objective.centre_images is not None:
        draws = torch.Generator().manual_seed(objective.seed + CENTRE_SEED)
        good = good[torch.randperm(len(good), generator=draws)[: objective.centre_images]].sort().values
    shots = min(CENTRE_SHOTS, max(objective.all_shots))
    sums = [torch.zeros(width, dtype=torch.float64) for width in objective.base.base.channels]
    counts = [0] * len(sums)
    progress = Progress("mean residual", 0, len(good), show=show)
    try:
        for done, number in enumerate(good.tolist()):
            levels = _residual_of(objective, data, number, shots, device)
            for index, level in enumerate(levels or []):
                sums[index] += level.double().sum((0, 2, 3)).cpu()
                counts[index] += level[:, 0].numel()
            progress.step(done + 1)
    finally:
        progress.close()
    return [total / max(count, 1) for total, count in zip(sums, counts, strict=True)]


def _residual_of(
    objective: ADPretrain, data: LabelledImages, number: int, shots: int, device: torch.device
) -> list[Tensor] | None:
    """[(1, C_l, h_l, w_l)] of one image, or None where it cannot be read."""
    image = data.image(number)
    if image is None:
        return None
    (draws,) = Position(0, number, 1).generators(objective.seed + CENTRE_SEED)
    base, banks = objective.base, []
    for one, found in data.references(number, shots, draws, base).items():
        banks.append(base.rows(one, None if found is None else _float(found, device)))
    bank = [torch.cat(same) for same in zip(*banks, strict=True)]
    return residuals(base(_float(image, device)[None]), [bank], objective.matching)


def _float(image: Any, device: torch.device) -> Tensor:
    """(S, S, 3) uint8 -> (3, S, S) in [0, 1]."""
    return torch.from_numpy(image).permute(2, 0, 1).to(device).float().div(255.0)
