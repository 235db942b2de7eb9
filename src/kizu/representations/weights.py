"""Where a backbone's weights come from: timm's hub or its cache, a local file, or a seeded random draw."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kizu.errors import ModelFileError, UnknownName, UsageError, WeightsUnavailable

STARTER = "kizu/starter"
"""Trained weights inside the package."""
DEFAULT = "imagenet/efficientnet_lite0"
"""The representation taken when none is named: ImageNet weights from a package that comes with kizu."""
PROBE_SECONDS = 3.0


def timm_overlay(name: str) -> dict[str, Any]:
    """`pretrained_cfg_overlay` for timm: the cached file when there is one, nothing when the hub can be
    asked.

    Raises UnknownName for an architecture or tag that timm does not have; WeightsUnavailable when the weights
    are neither cached nor reachable: without this look, the hub's client would retry for most of a minute
    before saying so."""
    import timm

    if not timm.is_model(name):
        raise UnknownName("timm model", name, timm.list_models())
    try:
        config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except (RuntimeError, ValueError) as error:
        raise UnknownName("timm weights", name, timm.list_pretrained(name.partition(".")[0] + "*")) from error
    source = config.to_dict() if config is not None else {}
    hub, url = source.get("hf_hub_id"), source.get("url")
    if not hub and not url:
        raise WeightsUnavailable(
            f"timm has no trained weights for '{name}'. Use random/{name}, or the default {DEFAULT}."
        )
    _refuse_other_activation(name)
    cached = _cached(hub, source.get("hf_hub_filename")) if hub else None
    if cached:
        return {"file": cached}
    if not _reachable(hub, url):
        raise WeightsUnavailable(_sentence(name))
    return {}


def unavailable(name: str, error: Exception) -> WeightsUnavailable:
    """The same sentence, for a download that broke off."""
    return WeightsUnavailable(f"{_sentence(name)} ({type(error).__name__})")


def cached_networks() -> list[str]:
    """timm's networks, with their tags, whose weights are in the hub's cache; nothing is asked of the hub."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        found = scan_cache_dir().repos
    except CacheNotFound:
        return []
    names = sorted(repo.repo_id.removeprefix("timm/") for repo in found if repo.repo_id.startswith("timm/"))
    return [name for name in names if _cached(f"timm/{name}", None)]


def at_hand(name: str) -> bool:
    """Whether the weights of "timm/..." or "imagenet/..." are on this machine; nothing is fetched."""
    from kizu.representations.imagenet import is_installed

    kind, _, network = name.partition("@")[0].partition("/")
    if kind == "imagenet":
        return is_installed(network)
    return _cached(f"timm/{network}", None) is not None


def file_state(path: Path) -> dict[str, Tensor]:
    """State dict of a local .safetensors file. Raises ModelFileError for another kind of file or a damaged
    one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix != ".safetensors":
        raise ModelFileError(
            f"{path}: local weights are read from .safetensors files only (others can run code). Convert it "
            "with safetensors."
        )
    if not path.is_file():
        raise ModelFileError(f"{path} does not exist.")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path}: the weights are damaged or cut short ({error}).") from error


def renamed(state: dict[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """A state dict with the names `wanted` of timm's network cut for features, where it has those of timm's
    whole network, as timm publishes it: "blocks.0.x" is "model.blocks.0.x" there, "stages.0.x" "stages_0.x".
    """
    whole = {
        name: re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", name.removeprefix("model."))
        for name in wanted
        if name not in state
    }
    return state | {name: state[plain] for name, plain in whole.items() if plain in state}


def randomise(net: nn.Module, seed: int) -> None:
    """Draw the weights of `net` again, in place, from `seed` alone and not from the global generator.

    Convolutions and linear layers by He's initialisation (normal, fan-in), their biases 0, norms at rest;
    what a module holds beside these (position embeddings, class tokens) normal with standard deviation 0.02,
    and vectors (layer scales) as the constructor set them."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.reset_parameters()
        else:
            for parameter in module.parameters(recurse=False):
                if parameter.ndim > 1:
                    nn.init.normal_(parameter, std=0.02, generator=generator)


def digest(net: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of the state dict, in order."""
    total = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        total.update(f"{name}{tuple(tensor.shape)}".encode())
        total.update(
            tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            if tensor.ndim
            else str(tensor.item()).encode()
        )
    return total.hexdigest()


def _refuse_other_activation(name: str) -> None:
    """Raise UsageError for weights of CLIP that were trained with QuickGELU, x sigmoid(1.702 x), under a
    network of timm with GELU: its features are not those of the published network."""
    import timm

    quick = name.replace("_clip_", "_clip_quickgelu_")
    if "quickgelu" not in name and quick != name and quick in timm.list_pretrained(quick):
        raise UsageError(
            f"The weights of {name} were trained with QuickGELU, and timm's network of that name computes "
            f"GELU. Take timm/{quick}."
        )


def _sentence(name: str) -> str:
    return (
        f"The weights of timm/{name} are not on this machine and their hub cannot be reached; "
        f"use the default {DEFAULT}, which needs none (or give a local .safetensors file)."
    )


def _cached(hub: str, filename: str | None) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    for candidate in dict.fromkeys([filename or "model.safetensors", "model.safetensors"]):
        found = try_to_load_from_cache(hub, candidate)
        if isinstance(found, str) and Path(found).is_file():
            return found
    return None


def _reachable(hub: str | None, url: str | None) -> bool:
    """Whether the download's host answers within a few seconds; with a proxy set, True."""
    from huggingface_hub import constants

    if hub and constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    address = urllib.parse.urlsplit(constants.ENDPOINT if hub else url or "")
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=PROBE_SECONDS):
            return True
    except OSError:
        return False
