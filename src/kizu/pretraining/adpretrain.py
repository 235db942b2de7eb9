"""ADPretrain: a projector of residual features, learned from normal and anomalous images of many products.

Card. Paper: Yao et al., ADPretrain, NeurIPS 2025, sections 3.1 to 3.4 and 4.1. Official code:
xcyao00/ADPretrain (MIT); nothing of it is used. A representation stays frozen; each feature minus the nearest
one of a few good images of the same product passes a projector, which is trained so that anomalous tokens
point elsewhere than normal ones and are longer (kizu.losses.angle_norm), summed over the levels.

Paper and code disagree, or the code has what the paper is silent about; the default is what is sound:

    keyword      default     also                   paper            code
    views        augmented   clean_and_augmented    one is clean     both augmented
    shots_per    image       step                   image            step
    matching     l2          cosine                 l2               cosine
    centre       residual    projected, none        projected        residual (before the projector)
    token_label  share       code                   "downsampled"    two rules at once

The residual centre is fixed and needs one pass over the good images; that of projected features moves with
the projector and is an average over the last steps here. Unlike the code: references are drawn without
replacement and never hold the image itself; weights are float32 (pure bf16 leaves the learned references
where they began); the last step is kept, where the code keeps the epoch that is best on MVTec's test images;
the representation sees images normalised as it was trained, in training and at test. Images are resized to a
square instead of cropped, as kizu does everywhere. The losses have differences of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from kizu import engine
from kizu.checks import numbers, whole_numbers, without_effect
from kizu.errors import UnknownName, UsageError
from kizu.losses.angle_norm import ANCHORS, AVERAGING, INSIDE, NORMS, angle_loss, norm_loss
from kizu.neighbours.matching import MATCHINGS, leave_one_out
from kizu.nn.projector import REFERENCES, Projector
from kizu.pretraining._queries import PLANTS
from kizu.pretraining._residuals import FrozenFeatures, residuals
from kizu.pretraining._tokens import TOKEN_LABELS, check_cells, token_labels
from kizu.representations.sources import open_representation
from kizu.training import Objective, Position, multistep
from kizu.views.photometric import photometric

VIEWS = ("augmented", "clean_and_augmented")
CENTRES = ("residual", "projected", "none")
MILESTONES = (0.7, 0.9)
"""Fractions of the run at which the learning rate is divided by ten: epochs 7 and 9 of 10."""
MOMENTUM = 0.99
"""Of the running mean of projected normal tokens."""


@dataclass(kw_only=True, eq=False, repr=False)
class ADPretrain(Objective):
    """Trains a projector on residual features of a frozen representation.

    backbone: the representation, by name or path, with its levels. size: side of the images in pixels.
    batch_size: images of one step, two views each. learning_rate: of Adam, divided by 10 after 0.7 and 0.9 of
    the run; weight_decay: L2, as Adam has it. kind, references, heads, gate, depth: of the projector
    (kizu.nn.projector). shots: numbers of reference images, one of which is drawn for each image or step
    (shots_per). views: both "augmented", or "clean_and_augmented". matching: the nearest reference by "l2"
    distance or "cosine". token_label: "share", a token is anomalous where more than `token_share` of its
    cell's pixels are; "code", more than 32 pixels (angle) and its first pixel (norm). centre: from where
    angles are measured: the mean "residual" of good images (centre_images: of how many, None is all), the
    running mean of "projected" normal tokens, or "none", the origin. plant: a defect planted in plant_share
    of the good images of categories without anomalous ones: "none", "smooth_blend", "cutpaste" or "perlin".
    unmasked: anomalous images without a mask are an "error", or "left_out". same_view: whether references
    are of the image's own view (camera), or of all views of its category.
    angle_weight to averaging: of kizu.losses.angle_norm. base_precision: in which the representation
    computes, "fp32" or "bf16". Raises UsageError, UnknownName.
    """

    backbone: str = "imagenet/efficientnet_lite0@2,3"
    size: int = 224
    batch_size: int = 32
    seed: int = 0
    learning_rate: float = 1e-4
    weight_decay: float = 5e-4
    kind: str = "learnable_key_value"
    references: int = REFERENCES
    heads: int | None = None
    gate: bool = False
    depth: int = 1
    shots: int | tuple[int, ...] = (1, 4, 8)
    shots_per: str = "image"
    views: str = "augmented"
    matching: str = "l2"
    token_label: str = "share"
    token_share: float = 0.125
    centre: str = "residual"
    centre_images: int | None = None
    plant: str = "none"
    plant_share: float = 0.5
    unmasked: str = "error"
    same_view: bool = True
    angle_weight: float = 1.0
    temperature: float = 0.15
    anchors: str = "both"
    norm: str = "root"
    radius: float = 0.4
    adaptive_radius: bool = False
    margin: float = 0.75
    inside: str = "lift"
    detach_weights: bool = True
    averaging: str = "violators"
    base_precision: str = "fp32"

    writes: ClassVar[str] = "projector"
    centre_steps: Tensor = field(init=False)

    def __post_init__(self) -> None:
        super().__init__()
        self.shots = tuple(self.shots) if isinstance(self.shots, tuple | list) else (self.shots,)
        self.check_parameters()
        self.base = FrozenFeatures(open_representation(self.backbone), self.base_precision)
        with engine.seeded(self.seed):
            self.projector = Projector(
                self.base.base.channels, kind=self.kind, references=self.references, heads=self.heads,
                gate=self.gate, depth=self.depth,
            )  # fmt: skip
        varies = len(self.all_shots) > 1 and self.shots_per == "image"
        if self.projector.needs_context and (varies or min(self.all_shots) < 2):
            raise UsageError(
                f"kind={self.kind!r} attends to the references, each compared with the others: it takes 2 "
                "shots at least, and as many for all images of a step (shots=4,8 and shots_per=step); got "
                f"shots={self.shots} per {self.shots_per}."
            )
        for number, width in enumerate(self.base.base.channels):
            self.register_buffer(f"centre_{number}", torch.zeros(width))
        self.register_buffer("centre_steps", torch.zeros(()))
        if self.token_label == "code":
            levels = self.base(torch.zeros(1, 3, self.size, self.size))
            check_cells(self.size, [(level.shape[2], level.shape[3]) for level in levels], self.backbone)

    def check_parameters(self) -> None:
        """Raise UsageError, UnknownName for a value out of range, and for one without effect."""
        whole_numbers(least=32, size=self.size)
        whole_numbers(batch_size=self.batch_size)
        whole_numbers(least=0, seed=self.seed)
        whole_numbers(none=True, centre_images=self.centre_images)
        numbers(least=0, above=True, learning_rate=self.learning_rate, temperature=self.temperature)
        numbers(least=0, above=True, radius=self.radius, margin=self.margin)
        numbers(least=0, weight_decay=self.weight_decay, angle_weight=self.angle_weight)
        numbers(least=0, most=0.999, token_share=self.token_share)
        numbers(least=0, above=True, most=1, plant_share=self.plant_share)
        for count in self.all_shots:
            whole_numbers(shots=count)
        if not self.all_shots:
            raise UsageError("shots are numbers of reference images, as in 1,4,8; got none.")
        for name, known in _WORDS.items():
            if getattr(self, name) not in known:
                raise UnknownName(name, str(getattr(self, name)), known)
        for name in ("gate", "adaptive_radius", "detach_weights", "same_view"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} is True or False, got {getattr(self, name)!r}.")
        if self.plant == "none":
            without_effect("with plant='none'", plant_share=(self.plant_share, 0.5))
        if self.token_label != "share":
            without_effect("with token_label='code'", token_share=(self.token_share, 0.125))
        if self.centre != "residual":
            without_effect(f"with centre={self.centre!r}", centre_images=(self.centre_images, None))
        if len(self.all_shots) == 1:
            without_effect("with one number of shots", shots_per=(self.shots_per, "image"))

    @property
    def all_shots(self) -> tuple[int, ...]:
        """`shots` as a tuple."""
        return self.shots if isinstance(self.shots, tuple) else (self.shots,)

    @property
    def centres(self) -> list[Tensor]:
        """(C_l,) of each level."""
        return [getattr(self, f"centre_{number}") for number in range(len(self.projector.levels))]

    @torch.no_grad()
    def prepare(self, batch: dict[str, Tensor], position: Position) -> dict[str, Any]:
        """A batch of `Queries` -> residuals [(2B, C_l, h_l, w_l)], all first views before all second ones,
        and the labels of tokens, [(B, h_l, w_l)] bool, for either loss; where the projector attends to them,
        the residuals of the references as its context."""
        images, draws = batch["images"], position.generators(self.seed)
        first = photometric(images, generator=draws) if self.views == "augmented" else images
        second = photometric(images, generator=draws)
        features = self.base(torch.cat([first, second]))
        grids = [(level.shape[2], level.shape[3]) for level in features]
        angle, norm = token_labels(batch["masks"], grids, self.token_label, self.token_share)
        banks = self.banks(batch)
        prepared = {
            "residuals": residuals(features, banks, self.matching),
            "angle_labels": angle,
            "norm_labels": norm,
        }
        if self.projector.needs_context:
            images_of = (batch["references"] >= 0).sum(1).tolist()
            contexts = [
                [leave_one_out(rows, count, self.matching) for rows in bank]
                for bank, count in zip(banks, images_of, strict=True)
            ]
            prepared["context"] = [torch.stack([*same, *same]) for same in zip(*contexts, strict=True)]
        return prepared

    def banks(self, batch: dict[str, Tensor]) -> list[list[Tensor]]:
        """Reference features [(N_l, C_l)] of each image of a batch."""
        new = dict(zip(batch["new"].tolist(), batch["new_images"], strict=True))
        found: dict[int, list[Tensor]] = {}
        for number in dict.fromkeys(batch["references"].flatten().tolist()):
            if number >= 0:
                image = new.get(number)
                found[number] = self.base.rows(number, None if image is None else image.float().div(255.0))
        return [
            [torch.cat(same) for same in zip(*(found[one] for one in row if one >= 0), strict=True)]
            for row in batch["references"].tolist()
        ]

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Both losses, summed over the levels; "anomalous" is the fraction of tokens that are."""
        projected = self.projector(batch["residuals"], batch.get("context"))
        angle = norm = projected[0].new_zeros((), dtype=torch.float32)
        counted = zip(projected, batch["angle_labels"], batch["norm_labels"], self.centres, strict=True)
        for level, angle_labels, norm_labels, centre in counted:
            first, second = (rows.flatten(2).transpose(1, 2).flatten(0, 1) for rows in level.chunk(2))
            labels = angle_labels.flatten()
            self._follow(centre, first, second, labels)
            angle = angle + angle_loss(
                first, second, labels, centre=None if self.centre == "none" else centre,
                temperature=self.temperature, anchors=self.anchors,
            )  # fmt: skip
            norm = norm + self._norms(first, second, norm_labels.flatten())
        if self.centre == "projected" and self.training:
            self.centre_steps.add_(1)
        every = torch.cat([labels.flatten() for labels in batch["angle_labels"]])
        return {
            "loss": self.angle_weight * angle + norm,
            "loss_angle": angle.detach(),
            "loss_norm": norm.detach(),
            "anomalous": every.float().mean(),
        }

    def optimiser(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(
            self.projector.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )

    def lr_scale(self, step: int, steps: int) -> float:
        """A tenth after each of MILESTONES."""
        return multistep(step, steps, milestones=MILESTONES)

    def _norms(self, first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
        """The norm losses of the two views of a level."""
        losses = [
            norm_loss(
                tokens, labels, norm=self.norm, radius=self.radius, adaptive_radius=self.adaptive_radius,
                margin=self.margin, inside=self.inside, detach_weights=self.detach_weights,
                averaging=self.averaging,
            )
            for tokens in (first, second)
        ]  # fmt: skip
        return losses[0] + losses[1]

    @torch.no_grad()
    def _follow(self, centre: Tensor, first: Tensor, second: Tensor, labels: Tensor) -> None:
        """Move the centre of a level towards the mean of its projected normal tokens."""
        if self.centre == "projected" and self.training and not bool(labels.all()):
            mean = torch.cat([first[~labels], second[~labels]]).float().mean(0)
            kept = min(MOMENTUM, float(self.centre_steps / (self.centre_steps + 1)))
            centre.mul_(kept).add_(mean, alpha=1 - kept)


_WORDS = {
    "shots_per": ("image", "step"),
    "views": VIEWS,
    "matching": MATCHINGS,
    "token_label": TOKEN_LABELS,
    "centre": CENTRES,
    "plant": PLANTS,
    "unmasked": ("error", "left_out"),
    "anchors": ANCHORS,
    "norm": NORMS,
    "inside": INSIDE,
    "averaging": AVERAGING,
    "base_precision": ("fp32", "bf16"),
}
"""Parameter -> its values."""
