"""What every representation is: image -> FeatureMaps, with channels, strides and a card; and its copy for
inference."""

from __future__ import annotations

import copy
import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn

from kizu import engine
from kizu.errors import ModelFileError, ShapeError, UsageError
from kizu.precision import Choice, Run, choose
from kizu.representations.centres import PROBES, SIDE, UNTRAINED, measured_offsets
from kizu.types import FeatureMaps

TRIED = 224
"""Side in pixels of the image on which precisions are tried."""


class Representation(nn.Module, ABC):
    """Base of all kinds of representation; a kind is one file of this room, whose name is `card["kind"]`.

    channels, strides, offsets: one number a level, finest level first; cell i looks around pixel offset +
    stride i. card: what it is, source, licence, what it was trained on, as plain JSON values.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    card: dict[str, Any]
    reference_images: int = 0
    """How many good images it compares every image with."""

    @property
    def offsets(self) -> tuple[float, ...]:
        """Around which pixel the first cell of each level looks (kizu.representations.centres). Measured when
        it is first asked for, and kept in the card."""
        if not self.card.get("offsets"):
            probes, side = UNTRAINED if self.card.get("source") == "random" else (PROBES, SIDE)
            self.card["offsets"] = list(measured_offsets(self, probes=probes, side=side))
        return tuple(self.card["offsets"])

    @property
    def unadapted(self) -> Representation:
        """What an adaptation that wraps it was given: the one within; itself where nothing is wrapped."""
        return self

    def reference_residuals(self) -> list[Tensor]:
        """Residuals of the reference images that it compares every image with, (N_l, C_l) a level. Raises
        UsageError where it has none."""
        raise UsageError(
            f"{self.card['name']} is of kind {self.card['kind']!r} and compares images with no fixed "
            "references: give a residual representation, or adapt by residual with references='fixed'."
        )

    @abstractmethod
    def forward(self, images: Tensor) -> FeatureMaps:
        """Images (B, 3, H, W) float32 in [0, 1] -> one (B, C_l, h_l, w_l) a level. Normalises them."""

    @classmethod
    def from_card(cls, card: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Build what `sealed_card()` and `state()` describe; runs no code of it. Raises ModelFileError."""
        raise ModelFileError(f"A {cls.__name__} cannot be opened: its class writes no from_card.")

    def state(self) -> dict[str, Tensor]:
        """The tensors that a file must hold beside the card."""
        return dict(self.state_dict())

    def sealed_card(self) -> dict[str, Any]:
        """The card as a file holds it; weights that are drawn again from a seed are held to their digest."""
        return dict(self.card)

    def for_inference(self, dtype: torch.dtype, device: torch.device) -> Representation:
        """A copy in evaluation mode on `device`. A kind computes in `dtype` only what bears it, others in
        float32."""
        return copy.deepcopy(self).eval().requires_grad_(False).to(device)

    def inference_copy(self, precision: str = "auto", device: str = "auto") -> InferenceCopy:
        """A copy for inference only; this network stays as it is.

        precision "auto" is what kizu.precision says: the faster one on CPUs with bf16, bf16 on GPUs that have
        it, else fp32; device "auto" is the GPU when there is one. Raises UsageError for a precision or device
        that is not there."""
        place = engine.device_named(device)
        return InferenceCopy(self, self.choose_precision(precision, place).dtype, place)

    def choose_precision(self, precision: str, device: torch.device) -> Choice:
        """In which precision copies for inference compute on that device, and why. The first time, "auto"
        may take a second."""
        return choose(precision, device, self.network_name, functools.partial(self._trial, device))

    def network_name(self) -> str:
        """What identifies its networks, weights apart: the same for all that wrap one network."""
        found = {json.dumps([card.get("architecture"), card.get("levels")]) for card in _backbones(self.card)}
        return json.dumps(sorted(found)) if found else json.dumps([type(self).__name__, self.channels])

    def _trial(self, device: torch.device, dtype: torch.dtype) -> Run:
        """A forward pass of one image, by one thread, as batches are computed."""
        image = torch.rand(1, 3, TRIED, TRIED, generator=torch.Generator().manual_seed(0))
        with engine.one_thread():
            network = self.for_inference(dtype, device)

        def run() -> None:
            with torch.inference_mode(), engine.one_thread():
                network(image)

        return run


def _backbones(card: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The cards of the networks within a card."""
    if "architecture" in card:
        yield card
    for inner in (card.get("base"), *(card.get("parts") or ())):
        if isinstance(inner, dict):
            yield from _backbones(inner)


class InferenceCopy:
    """A representation for inference: evaluation mode, on its device, in its dtype, without gradients."""

    def __init__(self, representation: Representation, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        with engine.one_thread():
            self.network = representation.for_inference(dtype, device)
        self.channels, self.strides = representation.channels, representation.strides

    def __call__(self, images: Tensor) -> FeatureMaps:
        """Images (B, 3, H, W) float32 in [0, 1] -> [(B, C_l, h_l, w_l) float32] on this device."""
        return [level.float() for level in self.forward_native_dtype(images)]

    @torch.inference_mode()
    def forward_native_dtype(self, images: Tensor) -> FeatureMaps:
        """The same in the type in which they are computed: a cache of bf16 features loses nothing."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ShapeError(f"images must have shape (B, 3, H, W), got {tuple(images.shape)}.")
        if min(images.shape[2:]) < max(self.strides):
            raise ShapeError(
                f"Images of {images.shape[2]} x {images.shape[3]} pixels are smaller than one cell of the "
                f"coarsest level, {max(self.strides)} pixels: take larger images or finer levels."
            )
        return engine.map_chunks(
            lambda part: self.network(part.to(self.device)), images.split, len(images), self.device
        )
