"""ImageBind's image encoder, from its published checkpoint: a ViT-H/14 under timm's names.

Card. Girdhar et al., "ImageBind: One embedding space to bind them all", CVPR 2023; code and weights by Meta,
CC BY-NC-SA 4.0 (no commercial use). ADPretrain reads blocks 8, 16, 24 and 32 at 224 pixels. kizu has no copy
of the checkpoint (imagebind_huge.pth, all modalities in one file) and fetches none: the user gives its path.
Of the file only what concerns images is read, without running code (`weights_only`).

The network is timm's ViT-H/14 with a norm before the first block and images normalised as CLIP's. Its first
layer was made for two frames (a kernel of 2 x 14 x 14), and an image is shown to it twice: the kernel summed
over time gives the same on one image. Its attention is torch's; queries, keys and values lie in one matrix as
in timm's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kizu.errors import ModelFileError, WeightsUnavailable

ARCHITECTURE = "imagebind_huge"
"""Its name in `kizu.representations.networks.VARIANTS`."""
LICENCE = "CC BY-NC-SA 4.0 (weights of ImageBind by Meta: no commercial use)"
STEM, TRUNK = "modality_preprocessors.vision.", "modality_trunks.vision."
PATCHES = f"{STEM}rgbt_stem.proj.1.weight"
_ENDS = {
    f"{STEM}cls_token": "cls_token",
    f"{STEM}pos_embedding_helper.pos_embed": "pos_embed",
    PATCHES: "patch_embed.proj.weight",
    f"{TRUNK}pre_transformer_layer.0.weight": "norm_pre.weight",
    f"{TRUNK}pre_transformer_layer.0.bias": "norm_pre.bias",
}
"""ImageBind's names outside of the blocks -> timm's."""
_IN_BLOCKS = {
    "norm_1": "norm1",
    "norm_2": "norm2",
    "attn.in_proj_weight": "attn.qkv.weight",
    "attn.in_proj_bias": "attn.qkv.bias",
    "attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
"""Beginnings of names within a block -> timm's."""


def timm_name(name: str) -> str | None:
    """What timm calls a tensor of ImageBind's image encoder; None for a name that is none of its.

    >>> timm_name("modality_trunks.vision.blocks.31.attn.out_proj.bias")
    'blocks.31.attn.proj.bias'
    """
    if name in _ENDS:
        return _ENDS[name]
    found = re.fullmatch(re.escape(TRUNK) + r"(blocks\.\d+\.)(.+)", name)
    if found is None:
        return None
    for theirs, timms in _IN_BLOCKS.items():
        if found[2] == theirs or re.fullmatch(re.escape(theirs) + r"\.(weight|bias)", found[2]):
            return f"{found[1]}{timms}{found[2].removeprefix(theirs)}"
    return None


def to_timm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the image encoder, float32, under timm's names; those of other modalities and the heads
    are left out.

    Raises ModelFileError when there are none, or one that this encoder does not have."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not name.startswith((STEM, TRUNK)):
            continue
        known = timm_name(name)
        if known is None:
            raise ModelFileError(f"ImageBind's image encoder has no tensor '{name}': it is another network.")
        if name == PATCHES:
            tensor = _one_frame(tensor)
        found[known] = tensor.float()
    if not found:
        raise ModelFileError(
            f"The file holds no tensor that begins with {TRUNK}: it is not imagebind_huge.pth, the "
            "checkpoint with all modalities."
        )
    return found


def vision_state(path: Path) -> dict[str, Tensor]:
    """The trained weights of the image encoder, under timm's names, from ImageBind's checkpoint.

    Its pages are mapped and not read as a whole: other modalities take no memory. Raises WeightsUnavailable
    when there is no such file, ModelFileError for one that is another or damaged."""
    if not path.is_file():
        raise WeightsUnavailable(
            f"{path} does not exist: ImageBind's weights do not come with kizu (Meta publishes them as "
            "imagebind_huge.pth, CC BY-NC-SA 4.0, no commercial use); give the path of that file, as in "
            "imagebind:imagebind_huge.pth@8,16,24,32."
        )
    try:
        tensors: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # of a damaged file torch raises what its parser does, of many classes
        said = str(error).partition("\n")[0]
        raise ModelFileError(f"{path} is not ImageBind's checkpoint, or damaged ({said:.200}).") from error
    if not isinstance(tensors, dict) or not all(isinstance(one, Tensor) for one in tensors.values()):
        raise ModelFileError(f"{path} is not ImageBind's checkpoint: that holds names and tensors alone.")
    try:
        return to_timm(tensors)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error


def _one_frame(kernel: Tensor) -> Tensor:
    """A kernel (C, 3, 2, p, p) for two frames -> (C, 3, p, p), which gives on one image what the other gives
    on the image shown twice. Raises ModelFileError."""
    if kernel.ndim != 5 or tuple(kernel.shape[1:3]) != (3, 2):
        raise ModelFileError(
            f"'{PATCHES}' has shape {tuple(kernel.shape)}; ImageBind's is (C, 3, 2, 14, 14), for two frames."
        )
    return kernel.float().sum(dim=2)
