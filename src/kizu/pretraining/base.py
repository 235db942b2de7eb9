"""What the pretraining objectives share: an encoder, and SPD's two more views beside the views of the method.

SPD (Zou et al., SPot-the-Difference, ECCV 2022, section 3): x+ is a weak augmentation of an image, x- a weak
augmentation with one small piece changed (SmoothBlend); the loss cos(z, z-) - cos(z, z+), times eta = 0.1, is
added to the method's own (Eq. 2-3). Silent in the paper, and filled in. Anchor: x_i of Eq. 3 is the method's
first view, so x+ and x- are made of that view (spd_anchor="view") and differ from it weakly; "image" makes
them of the image itself, before the strong augmentation. z is the projector's output, "a shared MLP head".
No stop-gradient. The draws of x+ and x- are independent. x+ and x- pass the encoder as one batch
(spd_forward="joint"): passed one after the other ("separate", as SimSiam's views are), each kind is
normalised by its own mean and deviation, batch norm takes away what all x- have in common, and a classifier
of the two stays at chance. spd_share below 1 makes x+ and x- for the first part of each batch only: cheaper,
and not the paper's. Ablations of Table 5: eta; perturbation="cutpaste"; spd_loss="cross_entropy" (an
auxiliary classifier, perturbed or not, on the feature)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kizu.errors import UnknownName, UsageError
from kizu.losses.spd import spd
from kizu.representations.backbone import Backbone
from kizu.representations.sources import open_representation, split_levels
from kizu.training import Objective, Position
from kizu.views.cutpaste import cutpaste
from kizu.views.smooth_blend import smooth_blend
from kizu.views.strong import strong
from kizu.views.weak import weak

PERTURBATIONS = ("smooth_blend", "smooth_blend_paper", "smooth_blend_pasted", "cutpaste", "cutpaste_scar")
SPD_LOSSES = ("cosine", "cross_entropy")
ANCHORS = ("view", "image")
FORWARDS = ("joint", "separate")


@dataclass(frozen=True)
class Difference:
    """SPD's settings: weight eta, the perturbation of x-, the loss, what x+ and x- are made of, for which
    share of a batch, and whether both go through the network together."""

    eta: float = 0.1
    perturbation: str = "smooth_blend"
    loss: str = "cosine"
    anchor: str = "view"
    share: float = 1.0
    forward: str = "joint"

    def __post_init__(self) -> None:
        for kind, value, known in (
            ("perturbation", self.perturbation, PERTURBATIONS),
            ("spd_loss", self.loss, SPD_LOSSES),
            ("spd_anchor", self.anchor, ANCHORS),
            ("spd_forward", self.forward, FORWARDS),
        ):
            if value not in known:
                raise UnknownName(kind, value, known)
        if self.eta < 0:
            raise UsageError(f"eta is the weight of SPD's loss, at least 0, got {self.eta}.")
        if not 0.0 < self.share <= 1.0:
            raise UsageError(
                "spd_share is the share of a batch that SPD is taken over, above 0 and at most 1, got "
                f"{self.share}."
            )


def perturbed(images: Tensor, kind: str, generators: list[torch.Generator]) -> Tensor:
    """Copies of (B, 3, H, W) with a small piece changed, by one of PERTURBATIONS."""
    if kind.startswith("cutpaste"):
        return _images(
            cutpaste(images, generator=generators, kind="scar" if kind.endswith("scar") else "patch")
        )
    reading = {"smooth_blend": "clean", "smooth_blend_paper": "paper", "smooth_blend_pasted": "pasted"}[kind]
    return _images(smooth_blend(images, generator=generators, reading=reading))


def _images(made: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    return made if isinstance(made, Tensor) else made[0]


class Pretraining(Objective):
    """Base of the objectives. `encoder`: (B, 3, S, S) normalised -> pooled feature (B, width).

    backbone: a timm network of stages (ResNet, Wide ResNet, ...); stages: how many of them are trained, 4
    being all. size: side in pixels of the views. seed: of the initial weights and of every view. Subclasses
    set `recipe`, the strong augmentation's, and give `method(views) -> (dict of scalars with "loss", z of the
    anchor)` and `embed(h) -> z`."""

    recipe = "simsiam"
    strong_views = 2
    mean: Tensor
    std: Tensor

    def __init__(
        self, *, backbone: str, stages: int, size: int, batch_size: int, seed: int, spd: Difference | None
    ) -> None:
        super().__init__()
        if size < 32:
            raise UsageError(f"size is the side of the views in pixels, at least 32, got {size}.")
        if batch_size < 2:
            raise UsageError(f"Batch norm and contrast need a batch_size of at least 2, got {batch_size}.")
        self.backbone, self.size, self.batch_size, self.seed, self.spd = backbone, size, batch_size, seed, spd
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1), persistent=False)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(
                seed
            )  # not torch.manual_seed, which would seed the accelerators as well
            self.encoder = Encoder(backbone, stages)
            self.width = self.encoder.width
            self.build()
            self.judge = nn.Linear(self.width, 2) if spd is not None and spd.loss == "cross_entropy" else None

    def build(self) -> None:
        """Make the heads; `self.width` is known, the initial draws are seeded."""

    def begin_from(self, source: str) -> dict[str, Any]:
        """Take the encoder's weights from a representation, by name or path; its card. Raises UsageError for
        another network."""
        net = open_representation(f"{split_levels(source)[0]}@{self.encoder.stages}")
        architecture = str(net.card.get("architecture", "")).partition(".")[0]
        if not isinstance(net, Backbone) or architecture != self.backbone.partition(".")[0]:
            raise UsageError(
                f"{source} is a {architecture or type(net).__name__}, a {self.backbone} is trained here: "
                "name that --backbone."
            )
        self.encoder.net.load_state_dict(net.net.state_dict())
        self.encoder_replaced()
        return net.card

    def encoder_replaced(self) -> None:
        """The encoder's weights are others now: copies of it take them over."""

    def embed(self, feature: Tensor) -> Tensor:
        """Pooled feature (B, width) -> z (B, D), whose cosines SPD's loss takes."""
        raise NotImplementedError

    def method(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """The method's own scalars, "loss" among them, and z of the first view (the anchor)."""
        raise NotImplementedError

    def check_data(self, count: int | None, classes: int) -> None:
        """Raise UsageError when `count` images (None: endless) of `classes` classes are not enough."""
        if count is not None and count < self.batch_size:
            raise UsageError(
                f"There are {count} images, a batch has {self.batch_size}: give more images or a smaller "
                "batch_size."
            )

    def prepare(self, batch: tuple[Tensor, Tensor], position: Position) -> dict[str, Tensor]:
        """(uint8 images (B, S, S, 3), labels (B,)) -> views by name, normalised (B, 3, size, size)
        channels-last."""
        originals, labels = batch
        if len(originals) < 2:
            raise UsageError(
                "Batch norm and contrast need 2 images at a time: a larger batch_size, fewer processes or "
                "a smaller accumulate."
            )
        images = originals.permute(0, 3, 1, 2).float().div_(255.0)
        draws = position.generators(self.seed)
        side = (self.size, self.size)
        made = {
            f"view{i + 1}": strong(images, generator=draws, recipe=self.recipe, size=side)
            for i in range(self.strong_views)
        }
        if self.spd is not None:
            count = max(int(self.spd.share * len(images)), 2)
            source, draws = (made["view1"] if self.spd.anchor == "view" else images)[:count], draws[:count]
            made["positive"] = weak(source, generator=draws, size=side)
            made["negative"] = perturbed(
                weak(source, generator=draws, size=side), self.spd.perturbation, draws
            )
        ready = {name: self.normalised(view) for name, view in made.items()}
        return {**ready, "labels": labels}

    def normalised(self, images: Tensor) -> Tensor:
        """ImageNet's mean and deviation, channels-last."""
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The method's loss plus eta times SPD's."""
        terms, anchor = self.method(batch)
        if self.spd is None:
            return terms
        own = self._difference(
            anchor[: len(batch["positive"])],
            batch["positive"],
            batch["negative"],
            self.spd.forward == "joint",
        )
        return {
            **terms,
            **own,
            "loss": terms["loss"] + self.spd.eta * own["loss_spd"],
            "loss_method": terms["loss"].detach(),
        }

    def _difference(
        self, anchor: Tensor, positive: Tensor, negative: Tensor, joint: bool
    ) -> dict[str, Tensor]:
        """SPD's scalars from the anchor's z and the views x+ and x-."""
        if self.judge is not None:
            logits = self.judge(torch.cat(_through(self.encoder, positive, negative, joint))).float()
            target = torch.arange(2, device=logits.device).repeat_interleave(len(positive))
            right = (logits.argmax(1) == target).float().mean()
            return {"loss_spd": functional.cross_entropy(logits, target), "spd_accuracy": right}
        near, far = _through(lambda views: self.embed(self.encoder(views)), positive, negative, joint)
        with torch.no_grad():
            cosines = [
                functional.cosine_similarity(anchor.float(), other.float()).mean() for other in (near, far)
            ]
        return {"loss_spd": spd(anchor, far, near), "cos_positive": cosines[0], "cos_negative": cosines[1]}

    def groups(self, weight_decay: float, *, plain: bool = True) -> list[dict[str, Any]]:
        """Parameter groups: all alike, or (plain=False) biases and norms apart, without weight decay."""
        chosen = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if plain:
            return [{"params": chosen, "weight_decay": weight_decay}]
        return [
            {
                "params": [parameter for parameter in chosen if parameter.ndim > 1],
                "weight_decay": weight_decay,
            },
            {"params": [parameter for parameter in chosen if parameter.ndim <= 1], "weight_decay": 0.0},
        ]


def _through(
    network: Callable[[Tensor], Tensor], positive: Tensor, negative: Tensor, joint: bool
) -> tuple[Tensor, Tensor]:
    """What a network makes of x+ and of x-: as one batch, or one after the other."""
    if not joint:
        return network(positive), network(negative)
    near, far = network(torch.cat([positive, negative])).chunk(2)
    return near, far


@torch.no_grad()
def follow(moving: nn.Module, own: nn.Module, share: float) -> None:
    """Move the parameters of `moving` towards those of `own`, in place: the moving average of MoCo (Eq. 2)
    and BYOL, momentum 1 - share."""
    for slow, fast in zip(moving.parameters(), own.parameters(), strict=True):
        slow.lerp_(fast, share)


class Encoder(nn.Module):
    """A timm network cut after a stage, its last map averaged: (B, 3, S, S) -> (B, width). Raises
    UnknownName, UsageError."""

    def __init__(self, backbone: str, stages: int) -> None:
        super().__init__()
        import timm

        if not timm.is_model(backbone):
            raise UnknownName("timm model", backbone, timm.list_models())
        with torch.device("meta"):
            probe: Any = timm.create_model(backbone, pretrained=False, features_only=True)
        strides = [int(info["reduction"]) for info in probe.feature_info.info]
        if type(probe).__name__ == "FeatureGetterNet" or 2 ** (stages + 1) not in strides or stages < 1:
            known = [stride.bit_length() - 2 for stride in strides if stride >= 4]
            raise UsageError(
                f"stages is how many stages of {backbone} are trained, one of {known}, got {stages}. "
                "Networks without are not trained here."
            )
        net: Any = timm.create_model(
            backbone, pretrained=False, features_only=True, out_indices=(strides.index(2 ** (stages + 1)),)
        )
        self.net = net.to(memory_format=torch.channels_last)
        self.width, self.stages = int(net.feature_info.channels()[-1]), stages

    def forward(self, images: Tensor) -> Tensor:
        """Pooled feature."""
        return self.net(images)[-1].mean((2, 3))
