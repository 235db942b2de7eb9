"""Backbone: any timm network, cut after the levels that are asked for.

Card. Networks and weights: timm (Wightman, pytorch-image-models; Apache-2.0), each weight with its own
licence, kept in the card. Levels of a convolutional network are its stages: level l has stride 2^(l+1)
(layer1 = level 1, stride 4). Levels of a vision transformer are blocks, counted from 1; tokens go back to
their grid and the final norm is not applied, for PatchCore-like detectors read mid-network features (source:
timm `forward_intermediates`, norm=False)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from kizu import accel
from kizu.accel import inference
from kizu.digests import file_digest
from kizu.errors import ModelFileError, ShapeError, UsageError
from kizu.representations import imagebind, imagenet
from kizu.representations import weights as weight_sources
from kizu.representations.base import Representation
from kizu.representations.networks import SIZE_ERRORS, build_network, is_transformer, refusal
from kizu.types import FeatureMaps

SOURCES = ("timm", "imagenet", "random", "file", "imagebind")


class Backbone(Representation):
    """A timm network as a representation.

    architecture: a timm name such as "wide_resnet50_2.tv_in1k"; levels: which stages (1-4) or blocks (ViT),
    finest first. source "timm" takes trained weights from timm's hub or cache, "random" draws them from
    `seed`, "file" reads `weights`, a .safetensors state dict of the same architecture (timm's own or that of
    `state()`), "imagenet" the package of `weights`, a name of `imagenet.PACKAGES`, "imagebind" ImageBind's
    checkpoint `weights`. `weights_state` is for
    loading a saved model: no other source is touched. Raises UnknownName, WeightsUnavailable (neither cached
    nor reachable), ModelFileError, UsageError for levels it has not."""

    net: Any
    mean: Tensor
    std: Tensor
    wants_channels_last: bool = False
    """Whether images are laid out channels last before they go into the network; a switch, for torch's own
    name of a layout cannot be pickled."""

    def __init__(
        self,
        architecture: str,
        *,
        levels: tuple[int, ...] | None = None,
        source: str = "timm",
        weights: Path | str | None = None,
        seed: int = 0,
        weights_state: dict[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        if source not in SOURCES:
            raise UsageError(f"A backbone's source is one of {', '.join(SOURCES)}, got {source!r}.")
        opened = weights_state is None
        if weights_state is None:
            weights_state = _opened(source, weights)
        if weights_state is not None:
            with torch.device("meta"):  # shapes without memory: a file of other weights builds nothing
                shapes = build_network(architecture, levels)[0]
            weights_state = weight_sources.renamed(weights_state, shapes.state_dict())
            _check_state(shapes, weights_state, architecture)
        trained = source == "timm" and weights_state is None
        overlay = weight_sources.timm_overlay(architecture) if trained else {}
        self.net, self.levels = build_network(architecture, levels, trained=trained, overlay=overlay)
        if weights_state is not None:
            wanted = self.net.state_dict()
            self.net.load_state_dict({name: weights_state.get(name, wanted[name]) for name in wanted})
        elif source == "random":
            weight_sources.randomise(self.net, seed)
        layout = getattr(self.net, "output_fmt", None)
        self.channels_last = getattr(layout, "value", layout) == "NHWC"
        self.is_transformer = is_transformer(self.net)
        chosen = self.net.feature_info.get_dicts()
        self.channels = tuple(int(level["num_chs"]) for level in chosen)
        self.strides = tuple(int(level["reduction"]) for level in chosen)
        config: dict[str, Any] = getattr(self.net, "pretrained_cfg", {})
        mean, std = config.get("mean", (0.485, 0.456, 0.406)), config.get("std", (0.229, 0.224, 0.225))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.card = self._card(architecture, source, seed, str(weights) if weights else None, config)
        if self.is_transformer:  # patches do not overlap
            self.card["offsets"] = [(stride - 1) / 2 for stride in self.strides]
        elif source == "imagenet" and weights in imagenet.PACKAGES:
            self.card["offsets"] = imagenet.offsets_of(str(weights), self.levels)
        if source == "imagebind" and opened:
            self.card["sha256"] = file_digest(str(weights))

    def forward(self, images: Tensor) -> FeatureMaps:
        """Images (B, 3, H, W) in [0, 1] -> [(B, C_l, h_l, w_l)], finest first.

        Raises ShapeError when a transformer's patch size does not divide H and W, and for images of another
        size than a network of fixed size takes."""
        stride = self.strides[0]
        if self.is_transformer and (images.shape[2] % stride or images.shape[3] % stride):
            raise ShapeError(
                f"{self.card['name']} cuts images into {stride} x {stride} patches; "
                f"{tuple(images.shape[2:])} is not a multiple of that."
            )
        dtype = next(self.net.parameters()).dtype
        layout = torch.channels_last if self.wants_channels_last else torch.preserve_format
        normalised = images.sub(self.mean).div_(self.std).to(dtype).to(memory_format=layout)
        try:
            maps = self.net(normalised)
        except SIZE_ERRORS as error:
            reason = refusal(self.card["architecture"], self.levels, tuple(images.shape[2:]))
            if not reason:
                raise
            raise ShapeError(reason) from error
        if self.channels_last:
            maps = [level.permute(0, 3, 1, 2) for level in maps]
        return list(maps)

    def state(self) -> dict[str, Tensor]:
        """Nothing for random weights, which are drawn again (unless something has changed them since, a pass
        in training mode for instance); float16 for weights that were published so."""
        if self.card["source"] == "random" and self._is_as_drawn():
            return {}
        tensors = self.state_dict()
        return (
            {name: _smallest(tensor) for name, tensor in tensors.items()}
            if self.card.get("half")
            else tensors
        )

    def _is_as_drawn(self) -> bool:
        card = self.card
        drawn = Backbone(card["architecture"], levels=self.levels, source="random", seed=card["seed"])
        return weight_sources.digest(drawn) == weight_sources.digest(self)

    def sealed_card(self) -> dict[str, Any]:
        """The card, with the digest of random weights."""
        drawn = self.card["source"] == "random"
        return {**self.card, **({"digest": weight_sources.digest(self)} if drawn else {})}

    @classmethod
    def from_card(cls, card: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Touches neither network nor cache. Raises ModelFileError."""
        try:
            architecture, source = str(card["architecture"]), str(card["source"])
            levels = tuple(int(level) for level in card["levels"])
            if source == "random" and not tensors:
                net = cls(architecture, levels=levels, source="random", seed=int(card["seed"]))
                if weight_sources.digest(net) != card.get("digest"):
                    raise ModelFileError(
                        "The file was made with random weights that this version of torch draws differently. "
                        "Make it again."
                    )
                return net._with_offsets(card)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(f"The card of the representation is incomplete ({error}).") from error
        inner = {name.removeprefix("net."): tensor for name, tensor in tensors.items()}
        net = cls(architecture, levels=levels, source=source, weights="saved", weights_state=inner)
        net.card = {**net.card, **card}
        return net._with_offsets(card)

    def _with_offsets(self, card: dict[str, Any]) -> Self:
        """Itself, with the offsets that a card holds. Raises ModelFileError for another number of them."""
        if card.get("offsets"):
            if len(card["offsets"]) != len(self.levels):
                raise ModelFileError(f"The card has {len(self.levels)} levels, and not one offset each.")
            self.card["offsets"] = card["offsets"]
        return self

    def for_inference(self, dtype: torch.dtype, device: torch.device) -> Backbone:
        """The network in `dtype`; what normalises images stays float32."""
        twin = copy.deepcopy(self).eval().requires_grad_(False).to(device)
        if accel.enabled():
            twin.net = inference.optimised(twin.net, dtype, device)
            twin.wants_channels_last = True
        else:
            twin.net = twin.net.to(dtype)
        return twin

    def _card(
        self, architecture: str, source: str, seed: int, weights: str | None, config: dict[str, Any]
    ) -> dict[str, Any]:
        levels = ",".join(str(level) for level in self.levels)
        named = {
            "timm": f"timm/{architecture}",
            "random": f"random/{architecture}",
            "file": weights or architecture,
            "imagenet": f"imagenet/{weights}",
            "imagebind": f"imagebind:{weights}",
        }[source]
        return {
            "name": f"{named}@{levels}",
            "kind": "backbone",
            "architecture": architecture,
            "levels": list(self.levels),
            "source": source,
            "seed": seed if source == "random" else None,
            "licence": _licence(source, config),
            "trained_on": _trained_on(architecture, source),
        }


def _opened(source: str, weights: Path | str | None) -> dict[str, Tensor] | None:
    """The weights that a source other than timm and a draw has. Raises what opening them raises, UsageError
    when nothing says which."""
    if source in ("timm", "random"):
        return None
    if weights is None:
        raise UsageError(f"A backbone of source {source!r} needs weights=, the file or package of them.")
    if source == "imagenet":
        return imagenet.imagenet_state(str(weights))
    reader = imagebind.vision_state if source == "imagebind" else weight_sources.file_state
    return reader(Path(weights))


def _smallest(value: Tensor) -> Tensor:
    """As float16 when that loses nothing."""
    if value.dtype != torch.float32:
        return value
    half = value.half()
    return half if torch.equal(half.float(), value) else value


def _licence(source: str, config: dict[str, Any]) -> str:
    known = {
        "random": "none needed (random weights)",
        "imagenet": imagenet.LICENCE,
        "imagebind": imagebind.LICENCE,
    }
    return known.get(source) or str(config.get("license") or "unknown: see the weights' publisher")


def _trained_on(architecture: str, source: str) -> list[str]:
    tag = architecture.partition(".")[2]
    if source != "timm":
        named = {"random": [], "imagenet": ["imagenet-1k"], "imagebind": ["laion-2b", "imagebind"]}
        return named.get(source, ["unknown"])
    known = {
        "in1k": "imagenet-1k",
        "in22k": "imagenet-22k",
        "in21k": "imagenet-21k",
        "in12k": "imagenet-12k",
        "lvd142m": "lvd-142m",
        "lvd1689m": "lvd-1689m",
        "laion2b": "laion-2b",
        "laion400m": "laion-400m",
        "openai": "openai's pairs of image and text",
    }
    return [name for key, name in known.items() if key in tag] or ["unknown"]


def _check_state(net: nn.Module, state: dict[str, Tensor], architecture: str) -> None:
    """Raise ModelFileError unless `state` holds all of `net`; what `net` does not use (its later stages, the
    classifier) may be there too."""
    wanted = net.state_dict()
    begin = f"The weights are not those of {architecture}"
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    if missing:
        raise ModelFileError(f"{begin}: {len(missing)} tensors are missing, the first is '{missing[0]}'.")
    for name, tensor in wanted.items():
        if name in state and state[name].shape != tensor.shape:
            shapes = f"{tuple(state[name].shape)}, due is {tuple(tensor.shape)}"
            raise ModelFileError(f"{begin}: '{name}' is {shapes}.")
