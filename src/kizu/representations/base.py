"""What every representation is: image -> FeatureMaps, with channels, strides and a card; and its frozen, fast
twin."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import torch
from torch import Tensor, nn

from kizu.accel.batch_norm_folding import fold_batch_norms
from kizu.accel.fused_conv import can_fuse, fuse_activations
from kizu.engine import has_bf16, one_thread, pick_device, chunk_size, thread_map
from kizu.errors import ShapeError, UsageError
from kizu.types import FeatureMaps

PRECISIONS = ("auto", "fp32", "bf16")


class Representation(nn.Module):
    """Base of all representations.

    channels, strides: one number a level, finest level first; card: what it is, source, licence, what it was
    trained on. `forward(images (B, 3, H, W) float32 in [0, 1]) -> [(B, C_l, h_l, w_l)]`; normalising is done
    inside, and after it, where that is cheapest, images are laid out in memory as `layout` says (the frozen
    twin asks for channels last)."""

    layout: torch.memory_format = torch.preserve_format

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    card: dict[str, Any]

    def forward(self, images: Tensor) -> FeatureMaps:
        """Images (B, 3, H, W) float32 in [0, 1] -> one (B, C_l, h_l, w_l) a level."""
        raise NotImplementedError

    def frozen(self, precision: str = "auto", device: str = "auto") -> Frozen:
        """A copy for inference only: evaluation mode, convolutions and batch norms folded, bf16 where the
        machine has it."""
        return Frozen(self, precision, device)


class Frozen:
    """A representation's inference twin. The original is left untouched; calling it never records gradients.

    precision "auto" is bf16 on CPUs with AVX-512 bf16 or AMX and on GPUs with bf16, else fp32; device "auto"
    is the GPU when there is one. Feature maps come back as float32 on that device."""

    def __init__(self, representation: Representation, precision: str = "auto", device: str = "auto") -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"precision is one of {', '.join(PRECISIONS)}, got {precision!r}.")
        self.device = torch.device(pick_device() if device == "auto" else device)
        self.dtype = (
            torch.bfloat16
            if precision == "bf16" or (precision == "auto" and has_bf16(self.device))
            else torch.float32
        )
        with one_thread() if self.device.type == "cpu" else contextlib.nullcontext():
            self.twin = self._make_twin(representation)
        self.channels, self.strides = representation.channels, representation.strides

    def _make_twin(self, representation: Representation) -> Representation:
        twin = copy.deepcopy(representation).eval().requires_grad_(False)
        twin.layout = torch.channels_last
        for name, child in list(twin.named_children()):
            folded = fold_batch_norms(child, in_place=True)
            setattr(twin, name, _channels_last(folded.to(self.dtype)))  # the twin's own buffers stay float32
        twin = twin.to(self.device)
        if can_fuse(self.device):
            for name, child in list(twin.named_children()):
                setattr(twin, name, fuse_activations(child))
        return twin

    def __call__(self, images: Tensor) -> FeatureMaps:
        """Images (B, 3, H, W) float32 in [0, 1], any device -> [(B, C_l, h_l, w_l) float32]."""
        return [level.float() for level in self.as_computed(images)]

    @torch.inference_mode()
    def as_computed(self, images: Tensor) -> FeatureMaps:
        """The same in the type in which they are computed: bfloat16 where `precision` says so, and as float32
        then no different."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ShapeError(f"images must have shape (B, 3, H, W), got {tuple(images.shape)}.")
        some = chunk_size(len(images)) if self.device.type == "cpu" else len(images)
        if some >= len(images):
            return self._maps(images)
        made = thread_map(self._maps, images.split(some))
        return [torch.cat(levels) for levels in zip(*made, strict=True)]

    def _maps(self, images: Tensor) -> FeatureMaps:
        made: FeatureMaps = self.twin(images.to(self.device))
        return made


def _channels_last(net: nn.Module) -> nn.Module:
    for parameter in net.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return net
