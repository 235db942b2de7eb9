"""A representation by name or path: "imagenet/efficientnet_lite0@2,3", "timm/NAME@2,3", "random/resnet18", a
folder or .kizu that was saved, a .safetensors file, ImageBind's checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from kizu import cards, registry, store
from kizu.errors import ModelFileError, UnknownName, UsageError
from kizu.representations import imagebind, imagenet
from kizu.representations.backbone import Backbone
from kizu.representations.base import Representation
from kizu.representations.networks import is_known, is_transformer, probe_of
from kizu.representations.pixels import Pixels
from kizu.representations.small import Small
from kizu.representations.weights import DEFAULT, STARTER

STARTER_FOLDER = Path(__file__).parent / "_starter"
"""The embedded weights: a representation as `kizu pretrain --half` writes it (experiments/starter.md has the
command)."""

FORMS = {
    "imagenet/NETWORK@LEVELS": "ImageNet weights from a package: efficientnet_lite0, 1 and 2",
    STARTER: "a ResNet18 pretrained for kizu, within it",
    "timm/ARCHITECTURE.TAG@LEVELS": "trained weights of any network of timm, as in "
    "timm/wide_resnet50_2.tv_in1k@2,3 or timm/vit_base_patch14_dinov2.lvd142m@3,6,9,12",
    "ARCHITECTURE:FILE.safetensors@LEVELS": "a network of timm with the weights of a local file",
    "imagebind:FILE.pth@LEVELS": "the image encoder of ImageBind's checkpoint, as in "
    "imagebind:imagebind_huge.pth@8,16,24,32",
    "random/ARCHITECTURE@LEVELS": "a network of timm with random weights, by seed",
    "small/NETWORK": "a small untrained network: lenet, wrn_10_4, resnet18, ssim_ae",
    "pixels": "the image itself",
    "PATH": "a representation that `kizu pretrain`, `kizu adapt` or `save_representation` wrote",
}
"""How a representation is named -> what that is."""


def open_representation(
    name_or_path: Representation | str | Path | None = None,
    *,
    levels: tuple[int, ...] | None = None,
    imagenet_levels: tuple[int, ...] | None = None,
    seed: int = 0,
) -> Representation:
    """Open a representation; one that is open is given back.

    name_or_path: "imagenet/efficientnet_lite0" (from a package), "kizu/starter" (embedded),
    "timm/ARCH.TAG", "random/ARCH", "small/lenet" (a small untrained network), "ARCH:FILE.safetensors",
    "imagebind:FILE.pth" (ImageBind's checkpoint), or the path of a saved representation, each with an
    optional "@2,3" naming levels; None is the default.
    `levels` is what a detector prefers and counts only when the name says nothing and the network has
    stages (a transformer then takes the blocks at the same fractions of its depth; a network of fewer
    stages gives those it has). `imagenet_levels` takes its place for imagenet/ names. Raises UnknownName,
    UsageError, WeightsUnavailable, ModelFileError."""
    if isinstance(name_or_path, Representation):
        return name_or_path
    text = str(name_or_path) if name_or_path is not None else DEFAULT
    body, named_levels = split_levels(text)
    if body == STARTER:
        return _from_disk(STARTER_FOLDER, named_levels, levels)
    if Path(body).exists():
        return _from_disk(Path(body), named_levels, levels)
    kind, _, architecture = body.partition("/")
    if body == "pixels":
        return Pixels()
    if kind == "small":
        return Small(architecture, levels=named_levels, seed=seed)
    if kind in ("timm", "random") and architecture:
        wanted = named_levels or _preferred(architecture, levels)
        return Backbone(architecture, levels=wanted, source=kind, seed=seed)
    if kind == "imagenet":
        timms = imagenet.architecture_of(architecture)
        wanted = named_levels or imagenet_levels or levels
        return Backbone(timms, levels=wanted, source=kind, weights=architecture)
    architecture, _, file = body.partition(":")
    if architecture == "imagebind" and file:
        wanted = named_levels or _preferred(imagebind.ARCHITECTURE, levels)
        return Backbone(imagebind.ARCHITECTURE, levels=wanted, source="imagebind", weights=file)
    if file.endswith(".safetensors"):
        return Backbone(
            architecture, levels=named_levels or _preferred(architecture, levels), source="file", weights=file
        )
    raise UnknownName("representation", text, FORMS)


def save_representation(net: Representation, path: Path | str, *, overwrite: bool = False) -> Path:
    """Write a representation: card and tensors, all of them where a model's file would draw them again.
    Raises OutputExists."""
    card = {"kind": "representation", "representation": net.sealed_card()}
    return store.save(path, net.state() or net.state_dict(), card, overwrite=overwrite)


def pack(net: Representation) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, card) to put into a detector's file so that loading it needs nothing else."""
    return {f"representation.{name}": tensor for name, tensor in net.state().items()}, net.sealed_card()


def unpack(card: dict[str, Any], tensors: dict[str, Tensor]) -> Representation:
    """The representation that `pack` described; touches neither network nor cache. Raises ModelFileError."""
    return from_card(card, store.without_prefix(tensors, "representation."))


def from_card(card: dict[str, Any], tensors: dict[str, Tensor]) -> Representation:
    """A representation of any kind from its card and tensors; kinds are the files of this room.

    Raises ModelFileError for a kind that this kizu does not have, or a card and tensors that do not fit.
    """
    cards.check_representation(card)
    kind = card["kind"]
    if kind not in registry.names("representations"):
        known = ", ".join(registry.names("representations"))
        raise ModelFileError(f"The file holds a representation of kind {kind!r}; this kizu knows: {known}.")
    net: Representation = registry.load("representations", kind).from_card(card, tensors)
    return net


def _from_disk(
    path: Path, levels: tuple[int, ...] | None, preferred: tuple[int, ...] | None = None
) -> Representation:
    if path.suffix == ".safetensors":
        raise UsageError(f"{path} holds weights alone: say whose they are, as in resnet18:{path}.")
    card = store.load_card(path)
    cards.check(card, "representation", path)
    tensors = store.load_tensors(path)
    store.expect(path, tensors, dict.fromkeys(tensors, "..."))
    inner = dict(card["representation"])
    inner.pop("curve", None)
    saved = inner.get("levels", ())
    if levels is None and preferred and inner.get("stages") == "all":
        # pretrained as a whole: nobody has chosen levels yet
        levels = tuple(level for level in preferred if level in saved) or (max(saved),)
    return from_card(inner if levels is None else _with_levels(inner, levels, path), tensors)


def _with_levels(card: dict[str, Any], levels: tuple[int, ...], path: Path) -> dict[str, Any]:
    """The card of a saved backbone with some of its levels only. Raises UsageError for others."""
    if card.get("kind") != "backbone":
        raise UsageError(f"{path} is a {card.get('kind')}, whose levels cannot be chosen: leave @ away.")
    if not set(levels) <= set(card.get("levels", ())):
        raise UsageError(f"{path} was saved with levels {card.get('levels')}, got {list(levels)}.")
    name = f"{card.get('name', path.name)}@{','.join(str(level) for level in levels)}"
    kept = {key: value for key, value in card.items() if key != "stages"}
    if "offsets" in card:
        known = dict(zip(card["levels"], card["offsets"], strict=True))
        kept["offsets"] = [known[level] for level in levels]
    return {**kept, "levels": list(levels), "name": name}


def split_levels(text: str) -> tuple[str, tuple[int, ...] | None]:
    """("timm/x", (2, 3)) of "timm/x@2,3"."""
    body, at, tail = text.rpartition("@")
    if not at:
        return text, None
    if not re.fullmatch(r"\d+(,\d+)*", tail):
        raise UsageError(f"After @ come the levels, as in {body}@2,3; got '{tail}'.")
    return body, tuple(int(level) for level in tail.split(","))


def _preferred(architecture: str, levels: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """A detector's preferred stages; for a transformer the blocks at the same quarters of its depth."""
    if levels is None or not is_known(architecture):
        return levels
    probe = probe_of(architecture)
    if not is_transformer(probe):
        return levels
    depth = len(probe.feature_info.info)
    return tuple(dict.fromkeys(max(round(depth * level / 4), 1) for level in levels))
