"""SPD's part of a pretraining: its settings, its two views, and how settings are spelled at the command line.

Source: Zou et al., SPot-the-Difference, ECCV 2022, section 3. x+ is a weak augmentation of an image; x- is
a weak augmentation with one small piece changed (SmoothBlend). The loss cos(z, z-) - cos(z, z+), times eta
= 0.1, is added to the loss of the method (Eq. 2-3).

Where the paper is silent, this file chooses:

- Anchor: x_i of Eq. 3 is the first view of the method. x+ and x- come from that view (anchor="view") and
  differ from it only weakly. anchor="image" derives them from the image before the strong augmentation.
- z is the output of the projector, "a shared MLP head". There is no stop-gradient.
- x+ and x- are drawn independently.
- x+ and x- pass the encoder as one batch (forward="joint"). In two batches (forward="separate", as SimSiam
  passes its views) each kind is normalised with its own mean and deviation. Batch norm then removes what all
  x- have in common, and a classifier of the two stays at chance.
- share below 1 uses the first part of each batch only: cheaper, and not the paper's.

Ablations of Table 5: eta; perturbation="cutpaste"; loss="cross_entropy" (an auxiliary classifier, perturbed
or not, on the feature)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kizu.checks import numbers
from kizu.errors import UnknownName, UsageError
from kizu.views.cutpaste import cutpaste
from kizu.views.smooth_blend import smooth_blend
from kizu.views.weak import weak

READINGS = {"smooth_blend": "clean", "smooth_blend_paper": "paper", "smooth_blend_pasted": "pasted"}
"""Perturbation -> reading of `kizu.views.smooth_blend`."""
PIECES = {"cutpaste": "patch", "cutpaste_scar": "scar"}
"""Perturbation -> kind of `kizu.views.cutpaste`."""
PERTURBATIONS = (*READINGS, *PIECES)
LOSSES = ("cosine", "cross_entropy")
ANCHORS = ("view", "image")
FORWARDS = ("joint", "separate")

FLAT_NAMES = {
    "eta": "eta",
    "perturbation": "perturbation",
    "spd_loss": "loss",
    "spd_anchor": "anchor",
    "spd_share": "share",
    "spd_forward": "forward",
}
"""Name at the command line (`--set NAME=VALUE`) -> field of SPDConfig."""


@dataclass(frozen=True, kw_only=True)
class SPDConfig:
    """Settings of SPD. Raises UsageError, UnknownName for a value out of range.

    eta: weight of SPD's loss, at least 0. perturbation: what changes a piece of x-, one of PERTURBATIONS.
    loss: "cosine", "cross_entropy", or None for the objective's default (cross_entropy for supervised, else
    cosine). anchor: what x+ and x- are made from, "view" or "image". share: fraction of each batch, above 0
    and at most 1. forward: x+ and x- pass the network as one batch ("joint") or in two ("separate").

    >>> SPDConfig(eta=0.5).perturbation
    'smooth_blend'
    """

    eta: float = 0.1
    perturbation: str = "smooth_blend"
    loss: str | None = None
    anchor: str = "view"
    share: float = 1.0
    forward: str = "joint"

    def __post_init__(self) -> None:
        numbers(least=0, most=math.inf, above=False, **{"SPD's eta": self.eta})
        numbers(least=0, above=True, most=1, **{"SPD's share": self.share})
        for kind, value, known in (
            ("perturbation", self.perturbation, PERTURBATIONS),
            ("SPD loss", self.loss or "cosine", LOSSES),
            ("SPD anchor", self.anchor, ANCHORS),
            ("SPD forward", self.forward, FORWARDS),
        ):
            if value not in known:
                raise UnknownName(kind, str(value), known)


def perturb(images: Tensor, kind: str, generators: list[torch.Generator]) -> Tensor:
    """Copies of `images` (B, 3, H, W) in [0, 1] with a small piece changed, by one of PERTURBATIONS."""
    if kind in PIECES:
        result = cutpaste(images, generator=generators, kind=PIECES[kind])
    else:
        result = smooth_blend(images, generator=generators, reading=READINGS[kind])
    return result if isinstance(result, Tensor) else result[0]


def spd_views(
    config: SPDConfig, images: Tensor, view: Tensor, generators: list[torch.Generator], size: tuple[int, int]
) -> dict[str, Tensor]:
    """x+ and x-, as "positive" and "negative" (b, 3, *size) in [0, 1], for the first b images of the batch.

    images: (B, 3, S, S). view: (B, 3, *size), the anchor. b is B times `config.share`, at least 2."""
    count = max(int(config.share * len(images)), 2)
    source, draws = (view if config.anchor == "view" else images)[:count], generators[:count]
    positive = weak(source, generator=draws, size=size)
    negative = perturb(weak(source, generator=draws, size=size), config.perturbation, draws)
    return {"positive": positive, "negative": negative}


def collect_spd(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with SPD's flat names -> parameters of an objective. Raises UsageError for SPD names
    without SPD.

    >>> collect_spd({"spd": True, "eta": 0.5, "spd_anchor": "image", "hidden": 32})["spd"].anchor
    'image'
    >>> collect_spd({"spd": True, "hidden": 32})
    {'spd': True, 'hidden': 32}
    >>> collect_spd({"spd": False, "eta": 0.5})
    Traceback (most recent call last):
        ...
    kizu.errors.UsageError: eta is a parameter of SPD, which is off: add --spd, or leave it out.
    """
    flat = {field: parameters[name] for name, field in FLAT_NAMES.items() if name in parameters}
    others = {name: value for name, value in parameters.items() if name not in FLAT_NAMES}
    if not flat:
        return others
    if others.get("spd") is not True:
        names = ", ".join(name for name in FLAT_NAMES if name in parameters)
        verb = "is a parameter" if len(flat) == 1 else "are parameters"
        pronoun = "it" if len(flat) == 1 else "them"
        raise UsageError(f"{names} {verb} of SPD, which is off: add --spd, or leave {pronoun} out.")
    return {**others, "spd": SPDConfig(**flat)}
