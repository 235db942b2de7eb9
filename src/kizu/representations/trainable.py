"""Copies of a representation that are trained: for detectors and adaptations whose network learns."""

from __future__ import annotations

import copy
from typing import Any

import torch

from kizu.errors import UsageError
from kizu.representations.backbone import Backbone
from kizu.representations.base import Representation
from kizu.representations.networks import build_network, is_transformer
from kizu.representations.small import Small


def trainable_copy(representation: Representation) -> Representation:
    """A copy to be trained; the original is left alone. Its offsets stay those from before the training."""
    copied = copy.deepcopy(representation).requires_grad_(True)
    copied.card["offsets"] = list(representation.offsets)
    return copied


def lay_out(representation: Representation, *, channels_last: bool) -> None:
    """Lay out a timm network's weights and images channels last, in which its training takes about two thirds
    of the time on a CPU, or plainly again. Others stay as they are."""
    if isinstance(representation, Backbone):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        representation.net.to(memory_format=layout)
        representation.wants_channels_last = channels_last


def require_network(representation: Representation, what: str) -> None:
    """Raise UsageError for a representation that is no network of its own: there is nothing to train in what
    is built around others."""
    if not isinstance(representation, Backbone | Small):
        raise UsageError(
            f"{what} trains a network; {representation.card['name']} is of kind "
            f"{representation.card['kind']}. Give the network itself, such as imagenet/efficientnet_lite0."
        )


def freeze_up_to(encoder: Representation, level: int) -> list[str]:
    """Let the layers of a network up to the end of a level keep their weights; the names of those that still
    learn. Raises UsageError for a transformer, and when nothing is left to learn."""
    frozen = _names_up_to(encoder, level)
    learning = []
    for name, parameter in encoder.named_parameters():
        inner = name.removeprefix("net.")
        parameter.requires_grad_(inner not in frozen)
        if inner not in frozen:
            learning.append(name)
    if not learning:
        raise UsageError(
            f"With levels up to {level} frozen nothing of {encoder.card['name']} is left to learn: take "
            "coarser levels, as in @4, or freeze fewer."
        )
    return learning


def adapted_card(base: dict[str, Any], method: str, images: int) -> dict[str, Any]:
    """The card of a network that was adapted: `base`, with weights of its own."""
    plain = {key: value for key, value in base.items() if key not in ("half", "digest", "stages", "curve")}
    return {
        **plain,
        "name": f"{base['name']}+{method}",
        "source": "file" if base["kind"] == "backbone" else base["source"],
        "seed": None,
        "adapted_by": method,
        "adapted_from": base["name"],
        "adapted_on": images,
    }


def _names_up_to(encoder: Representation, level: int) -> set[str]:
    """Names, within the network, of the parameters that the features of a level need; none for level 0."""
    if level < 1:
        return set()
    if isinstance(encoder, Small):
        stages = range(min(level, len(encoder.net.stages)))
        return {name for name, _ in encoder.net.named_parameters() if int(name.split(".")[1]) in stages}
    architecture = str(encoder.card["architecture"])
    with torch.device("meta"):
        net = build_network(architecture, (level,))[0]
    if is_transformer(net):
        raise UsageError(f"{architecture} has blocks and no stages: take frozen_level=0, which freezes none.")
    return {name for name, _ in net.named_parameters()}
