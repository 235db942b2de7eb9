"""timm's networks: cut after the levels that are asked for, and which sizes of images they take."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import nn

from kizu.errors import UsageError
from kizu.representations import weights as weight_sources

_TIMM_ERRORS = (AssertionError, AttributeError, RuntimeError)
"""What timm raises for networks that have no features for others."""
SIZE_ERRORS = (AssertionError, RuntimeError)
"""What a network of fixed size raises for images of another; other faults raise these too: see `refusal`."""
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""With which OpenAI's CLIP normalises images."""


@dataclass(frozen=True)
class Variant:
    """A network of timm's code that timm has no name for. base: timm's network; keywords: of its constructor;
    config: what timm's `pretrained_cfg` says otherwise, such as the normalisation of images."""

    base: str
    keywords: dict[str, Any]
    config: dict[str, Any]


VARIANTS = {
    "imagebind_huge": Variant(
        "vit_huge_patch14_224",
        {"pre_norm": True},
        {"mean": CLIP_MEAN, "std": CLIP_STD},
    ),
}
"""Architecture -> what it is in timm (kizu.representations.imagebind)."""


def is_known(architecture: str) -> bool:
    """Whether timm has the network, or VARIANTS."""
    import timm

    return architecture in VARIANTS or bool(timm.is_model(architecture))


def _create(architecture: str, **keywords: Any) -> Any:
    """`timm.create_model`, for VARIANTS too."""
    import timm

    variant = VARIANTS.get(architecture)
    if variant is None:
        return timm.create_model(architecture, **keywords)
    chosen = {**keywords, **variant.keywords, "pretrained_cfg_overlay": variant.config}
    return timm.create_model(variant.base, **chosen)


def is_transformer(net: nn.Module) -> bool:
    """Whether timm reads this network's features from blocks of tokens instead of stages."""
    return type(net).__name__ == "FeatureGetterNet"


def build_network(
    architecture: str,
    levels: tuple[int, ...] | None,
    *,
    trained: bool = False,
    overlay: dict[str, Any] | None = None,
    stages_only: bool = False,
) -> tuple[Any, tuple[int, ...]]:
    """(timm's network cut after its last level, its levels). Untrained weights come from torch's generator.

    overlay: timm's `pretrained_cfg_overlay`. stages_only: refuse transformers, which have blocks. Raises
    UnknownName, WeightsUnavailable, UsageError for levels that the network does not have."""
    if not is_known(architecture):
        weight_sources.timm_overlay(architecture)
    plain: dict[str, Any] = {
        "pretrained": trained,
        "pretrained_cfg_overlay": overlay or None,
        "features_only": True,
    }
    try:
        probe = probe_of(architecture)
        _require_memory(probe, architecture)
        if stages_only and is_transformer(probe):
            raise UsageError(f"{architecture} has blocks; only networks with stages can be used here.")
        indices, chosen = _indices(probe, architecture, levels)
        if is_transformer(probe):
            try:
                return _create(architecture, out_indices=indices, dynamic_img_size=True, **plain), chosen
            except TypeError:
                pass  # an architecture of fixed input size: built as it is
        return _cut(_create(architecture, out_indices=indices, **plain)), chosen
    except (OSError, EOFError) as error:
        raise weight_sources.unavailable(architecture, error) from error
    except _TIMM_ERRORS as error:
        raise UsageError(f"timm gives no features of {architecture} ({error}).") from error


def _cut(net: Any) -> Any:
    """Without the stages after the last level: timm keeps and runs them in EfficientNets and MobileNets."""
    stages = getattr(net, "_stage_out_idx", None)
    if stages and getattr(net, "feature_hooks", None) is None:
        net.blocks = net.blocks[: max(stages)]
    return net


@functools.cache
def refusal(architecture: str, levels: tuple[int, ...], size: tuple[int, ...]) -> str:
    """Why a network does not take images of this size (H, W), and which it does; "" where it takes them.

    It is tried out without memory: Swin has its size built in, MaxViT wants what its windows divide."""
    with torch.device("meta"):
        net = build_network(architecture, levels)[0].eval()
        own = tuple(net.pretrained_cfg.get("input_size", (3, 224, 224))[-2:])
        if size == own or _takes(net, size) or not _takes(net, own):
            return ""
    height, width = own
    return (
        f"{architecture} does not take images of {size[0]} x {size[1]} pixels; it is built for {height} x "
        f"{width}: say image_size={height if height == width else own} (kizu pretrain: --size {height})."
    )


def _takes(net: nn.Module, size: tuple[int, ...]) -> bool:
    try:
        with torch.no_grad():
            net(torch.empty(1, 3, *size))
    except SIZE_ERRORS:
        return False
    return True


def _indices(
    probe: Any, architecture: str, levels: tuple[int, ...] | None
) -> tuple[list[int], tuple[int, ...]]:
    """timm's out_indices of the wanted levels. Stage l has stride 2^(l+1); a transformer's level is its
    block."""
    if levels is not None and (not levels or list(levels) != sorted(set(levels))):
        raise UsageError(f"Levels are different numbers in rising order, such as 2,3; got {levels}.")
    if is_transformer(probe):
        blocks = len(probe.feature_info.info)
        chosen = levels or (round(blocks / 2), round(blocks * 3 / 4))
        if max(chosen) > blocks or min(chosen) < 1:
            raise UsageError(f"{architecture} has blocks 1 to {blocks}, got levels {chosen}.")
        return [level - 1 for level in chosen], chosen
    stage_of = {
        int(info["reduction"]).bit_length() - 2: index for index, info in enumerate(probe.feature_info.info)
    }
    chosen = levels or (2, 3)
    unknown = [level for level in chosen if level not in stage_of]
    if unknown:
        raise UsageError(
            f"{architecture} has levels {sorted(stage_of)} (level l has stride 2^(l+1)), got {chosen}."
        )
    return [stage_of[level] for level in chosen], chosen


@functools.lru_cache(maxsize=8)
def probe_of(architecture: str) -> Any:
    """timm's network as shapes without memory: which levels it has, and how large it is."""
    with torch.device("meta"):
        return _create(architecture, pretrained=False, features_only=True)


def _require_memory(probe: nn.Module, architecture: str) -> None:
    """Raise UsageError for a network that does not fit twice, as drawn and as loaded, in the free memory."""
    size = sum(4 * parameter.numel() for parameter in probe.parameters())
    free = psutil.virtual_memory().available
    if 2 * size > free:
        raise UsageError(
            f"{architecture} takes 2 x {size / 2**30:.2f} GiB of memory to be built, and {free / 2**30:.2f} "
            "GiB are free. Take a smaller network, or a machine with more."
        )
