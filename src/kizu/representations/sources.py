"""A representation by name or path: "timm/NAME@2,3", "random/resnet18", a folder or .kizu that was saved, a
.safetensors file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kizu import store
from kizu.errors import ModelFileError, UnknownName, UsageError
from kizu.representations.backbone import Backbone
from kizu.representations.base import Representation
from kizu.representations.weights import DEFAULT, STARTER, digest

STARTER_FOLDER = Path(__file__).parent / "_starter"
"""The embedded weights: a representation as `kizu pretrain --half` writes it (experiments/starter.md has the
command)."""


def representation(
    name_or_path: str | Path | None = None, *, levels: tuple[int, ...] | None = None, seed: int = 0
) -> Representation:
    """Open a representation.

    name_or_path: "kizu/starter" (embedded), "timm/ARCH.TAG", "random/ARCH", "ARCH:FILE.safetensors", or the
    path of a saved representation, each with an optional "@2,3" naming levels; None is the default. `levels`
    is what a detector prefers and counts only when the name says nothing and the network has stages (a
    transformer then takes the blocks at the same fractions of its depth; a network of fewer stages gives
    those it has). Raises UnknownName, UsageError, WeightsUnavailable, ModelFileError."""
    text = str(name_or_path) if name_or_path is not None else DEFAULT
    body, named_levels = split_levels(text)
    if body == STARTER:
        return _from_disk(STARTER_FOLDER, named_levels, levels)
    if Path(body).exists():
        return _from_disk(Path(body), named_levels, levels)
    kind, _, architecture = body.partition("/")
    if kind in ("timm", "random") and architecture:
        wanted = named_levels or _preferred(architecture, levels)
        return Backbone(architecture, levels=wanted, source=kind, seed=seed)
    architecture, _, file = body.partition(":")
    if file.endswith(".safetensors"):
        return Backbone(
            architecture, levels=named_levels or _preferred(architecture, levels), source="file", weights=file
        )
    raise UnknownName(
        "representation",
        text,
        ["timm/ARCHITECTURE.TAG", "random/ARCHITECTURE", "ARCHITECTURE:FILE.safetensors", "PATH", STARTER],
    )


def save_representation(net: Representation, path: Path | str, *, overwrite: bool = False) -> Path:
    """Write a representation: card and weights. Raises OutputExists."""
    return store.save(
        path, net.state_dict(), {"kind": "representation", "representation": net.card}, overwrite=overwrite
    )


def embed(net: Representation) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, card) to put into a detector's file so that loading it needs nothing else.

    Weights that the package can draw again (random, by seed) are named and sealed by their digest instead of
    being copied; those that were kept in float16 (the starter) are copied in float16, which loses nothing.
    """
    if net.card.get("source") == "random":
        return {}, {**net.card, "digest": digest(net)}
    tensors = {f"representation.{name}": tensor for name, tensor in net.state_dict().items()}
    if net.card.get("half"):
        tensors = {name: _smallest(value) for name, value in tensors.items()}
    return tensors, dict(net.card)


def _smallest(value: Tensor) -> Tensor:
    """As float16 when that loses nothing."""
    if value.dtype != torch.float32:
        return value
    half = value.half()
    return half if torch.equal(half.float(), value) else value


def unembed(card: dict[str, Any], tensors: dict[str, Tensor]) -> Representation:
    """The representation that `embed` described; touches neither network nor cache. Raises ModelFileError."""
    prefix = "representation."
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if card.get("source") != "random":
        return _rebuild(card, state)
    try:
        net = Backbone(
            str(card["architecture"]), levels=tuple(card["levels"]), source="random", seed=int(card["seed"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"The model's card does not describe a representation that kizu knows ({error})."
        ) from error
    if digest(net) != card.get("digest"):
        raise ModelFileError(
            "The model was made with random weights that this version of torch draws differently. Fit it "
            "again."
        )
    return net


def _rebuild(card: dict[str, Any], state: dict[str, Tensor]) -> Representation:
    """A network from its card and its state dict."""
    if card.get("kind") != "backbone":
        raise ModelFileError(
            f"The file holds a representation of kind {card.get('kind')!r}; this kizu knows: backbone."
        )
    try:
        architecture, levels, source = (
            str(card["architecture"]),
            tuple(int(level) for level in card["levels"]),
            str(card["source"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"The card of the representation is incomplete ({error}).") from error
    inner = {name.removeprefix("net."): tensor for name, tensor in state.items()}
    net = Backbone(architecture, levels=levels, source=source, weights="saved", weights_state=inner)
    net.card = {**net.card, **card}
    return net


def _from_disk(
    path: Path, levels: tuple[int, ...] | None, preferred: tuple[int, ...] | None = None
) -> Representation:
    if path.suffix == ".safetensors":
        raise UsageError(f"{path} holds weights alone: say whose they are, as in resnet18:{path}.")
    tensors, card = store.load(path)
    if card.get("kind") != "representation":
        raise ModelFileError(f"{path} holds a {card.get('kind')}, not a representation.")
    inner = dict(card["representation"])
    inner.pop("curve", None)
    if (
        levels is None and preferred and inner.get("stages") == "all"
    ):  # pretrained as a whole: nobody has chosen levels yet
        levels = tuple(level for level in preferred if level in inner.get("levels", ())) or (
            max(inner["levels"]),
        )
    if levels is not None:
        if not set(levels) <= set(inner.get("levels", ())):
            raise UsageError(f"{path} was saved with levels {inner.get('levels')}, got {list(levels)}.")
        inner["levels"] = list(levels)
        inner.pop("stages", None)
        inner["name"] = f"{inner.get('name', path.name)}@{','.join(str(level) for level in levels)}"
    return _rebuild(inner, tensors)


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
    import timm

    if levels is None or not timm.is_model(architecture):
        return levels
    with torch.device("meta"):
        probe: Any = timm.create_model(architecture, pretrained=False, features_only=True)
    if type(probe).__name__ != "FeatureGetterNet":
        return levels
    depth = len(probe.feature_info.info)
    return tuple(dict.fromkeys(max(round(depth * level / 4), 1) for level in levels))
