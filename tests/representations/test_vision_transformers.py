"""Vision transformers give the raw outputs of their blocks: against a forward pass written out in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor
from torch.nn import functional

import kizu
from kizu.errors import UsageError
from kizu.representations import weights as weight_sources
from kizu.representations.sources import open_representation

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def drawn(name: str) -> Any:
    """A network whose blocks all count: layer scales and norms are not at rest, as after a training."""
    net = open_representation(f"random/{name}").eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, value in net.named_parameters():
            if value.ndim == 1 and ("gamma" in key or "norm" in key or "bias" in key):
                start = 1.0 if key.endswith(("gamma", "gamma_1", "gamma_2", "weight")) else 0.0
                value.copy_(start + 0.2 * torch.randn(value.shape, generator=generator))
    return net


def standardised(images: Tensor, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in statistics)
    return (images.double() - mean) / std


def by_hand(
    net: Any, images: Tensor, *, heads: int, patch: int, eps: float, quick: bool, statistics: Any
) -> list[Tensor]:
    """The outputs of the blocks 1, 2, ... of a ViT, from its tensors alone, in float64: no module is used."""
    w = {name.removeprefix("net.model."): value.double() for name, value in net.state_dict().items()}
    size = w["cls_token"].shape[2]
    images = standardised(images, statistics)

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * w[f"{name}.weight"]
            + w[f"{name}.bias"]
        )

    side = images.shape[2] // patch
    cut = images.unfold(2, patch, patch).unfold(3, patch, patch)  # (B, 3, side, side, patch, patch)
    rows = cut.permute(0, 2, 3, 1, 4, 5).reshape(len(images), side * side, -1)
    x = rows @ w["patch_embed.proj.weight"].reshape(size, -1).T
    x = x + w.get("patch_embed.proj.bias", torch.zeros(()))
    position, first = w["pos_embed"], w["cls_token"].expand(len(images), -1, -1)
    if "reg_token" in w:  # DINOv2 with registers: positions are of patches alone
        x = x + resized(position, side)
        x = torch.cat([first, w["reg_token"].expand(len(images), -1, -1), x], 1)
    else:
        x = torch.cat([first, x], 1) + torch.cat([position[:, :1], resized(position[:, 1:], side)], 1)
    if "norm_pre.weight" in w:
        x = norm(x, "norm_pre")
    outputs, extra = [], x.shape[1] - side * side
    for block in range(sum(name.endswith("attn.qkv.weight") for name in w)):
        b = f"blocks.{block}"
        qkv = norm(x, f"{b}.norm1") @ w[f"{b}.attn.qkv.weight"].T + w[f"{b}.attn.qkv.bias"]
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
        seen = torch.softmax(q @ k.transpose(-1, -2) / (size / heads) ** 0.5, -1) @ v
        seen = seen.transpose(1, 2).flatten(2) @ w[f"{b}.attn.proj.weight"].T + w[f"{b}.attn.proj.bias"]
        x = x + seen * w.get(f"{b}.ls1.gamma", torch.ones(()))
        hidden = norm(x, f"{b}.norm2") @ w[f"{b}.mlp.fc1.weight"].T + w[f"{b}.mlp.fc1.bias"]
        gate = torch.sigmoid(1.702 * hidden) if quick else 0.5 * (1 + torch.erf(hidden / 2**0.5))
        hidden = (hidden * gate) @ w[f"{b}.mlp.fc2.weight"].T + w[f"{b}.mlp.fc2.bias"]
        x = x + hidden * w.get(f"{b}.ls2.gamma", torch.ones(()))
        outputs.append(x[:, extra:].transpose(1, 2).unflatten(2, (side, side)))
    return outputs


def resized(position: Tensor, side: int) -> Tensor:
    """Position embeddings (1, n, C) of a square grid for one of side x side."""
    own = round(position.shape[1] ** 0.5)
    if own == side:
        return position
    grid = position.transpose(1, 2).unflatten(2, (own, own))
    grid = functional.interpolate(grid.float(), (side, side), mode="bicubic", antialias=True)
    return grid.double().flatten(2).transpose(1, 2)


@pytest.mark.parametrize(
    ("name", "facts", "grid"),
    [
        (
            "vit_small_patch14_dinov2",
            {"heads": 6, "patch": 14, "eps": 1e-6, "quick": False, "statistics": IMAGENET},
            16,
        ),
        (
            "vit_small_patch14_reg4_dinov2",
            {"heads": 6, "patch": 14, "eps": 1e-6, "quick": False, "statistics": IMAGENET},
            16,
        ),
        (
            "vit_base_patch32_clip_quickgelu_224",
            {"heads": 12, "patch": 32, "eps": 1e-5, "quick": True, "statistics": CLIP},
            7,
        ),
        (
            "vit_xsmall_patch16_clip_224",
            {"heads": 4, "patch": 16, "eps": 1e-5, "quick": False, "statistics": CLIP},
            14,
        ),
    ],
)
def test_features_are_raw_outputs_of_blocks(name: str, facts: dict[str, Any], grid: int) -> None:
    """No norm after the blocks, no class token, no registers; the norm before CLIP's first block stays."""
    net = drawn(f"{name}@1,3")
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, due = net(images), by_hand(net, images, **facts)
    assert len(due) == 3, "blocks after the last level are cut off"
    for level, expected in zip(found, (due[0], due[2]), strict=True):
        assert level.shape[2:] == (grid, grid)
        assert (level - expected).abs().max() < 2e-4 * expected.abs().max()
    assert net.offsets == ((224 / grid - 1) / 2,) * 2


def test_dinov3_drops_class_and_register_tokens() -> None:
    """Its blocks turn queries and keys by their place (RoPE); timm's own blocks are called one by one."""
    net = drawn("vit_small_patch16_dinov3@1,3")
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    model = net.net.model
    with torch.no_grad():
        tokens = model.patch_embed(standardised(images, IMAGENET).float()).flatten(1, 2)
        x = torch.cat([model.cls_token, model.reg_token, tokens], 1)
        rope, due = model.rope.get_embed(shape=(4, 6)), []
        for block in model.blocks:
            x = block(x, rope=rope)
            due.append(x[:, 5:].transpose(1, 2).unflatten(2, (4, 6)))
        found = net(images)
    assert x.shape[1] == 5 + 24
    for level, expected in zip(found, (due[0], due[2]), strict=True):
        assert torch.allclose(level, expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("name", "blocks", "channels", "grid"),
    [
        ("vit_base_patch14_dinov2", (3, 6, 9, 12), 768, 16),
        ("vit_large_patch14_dinov2", (6, 12, 18, 24), 1024, 16),
        ("vit_base_patch16_clip_quickgelu_224", (3, 6, 9, 12), 768, 14),
        ("vit_large_patch14_clip_quickgelu_224", (6, 12, 18, 24), 1024, 16),
        ("vit_base_patch16_dinov3", (3, 6, 9, 12), 768, 14),
        ("imagebind_huge", (8, 16, 24, 32), 1280, 16),
    ],
)
def test_the_backbones_of_adpretrain(name: str, blocks: tuple[int, ...], channels: int, grid: int) -> None:
    """Shapes alone: nothing is computed. Four blocks, evenly spread, of 224 pixels."""
    from kizu.representations.networks import build_network

    with torch.device("meta"):
        net, levels = build_network(name, blocks)
        maps = net(torch.empty(1, 3, 224, 224))
    assert levels == blocks
    assert [tuple(level.shape) for level in maps] == [(1, channels, grid, grid)] * 4
    assert net.pretrained_cfg["mean"] == (CLIP if "clip" in name or "bind" in name else IMAGENET)[0]


@pytest.mark.parametrize(
    ("architecture", "first"), [("vit_tiny_patch16_224", 0), ("convnext_atto", 0), ("resnet10t", 1)]
)
def test_a_file_as_timm_publishes_it(architecture: str, first: int, tmp_path: Path) -> None:
    """The whole network under timm's own names, the classifier too. first: where timm has our level 1."""
    whole = timm.create_model(architecture, pretrained=False, num_classes=3).eval()
    safetensors.torch.save_file(dict(whole.state_dict()), tmp_path / "model.safetensors")
    net = kizu.representation(f"{architecture}:{tmp_path / 'model.safetensors'}@1,2").eval()
    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        due = whole.forward_intermediates((images - net.mean) / net.std, intermediates_only=True)
        assert torch.allclose(net(images)[0], due[first], atol=1e-5)


def test_clip_weights_under_the_wrong_activation_are_refused() -> None:
    for name in ("vit_base_patch16_clip_224.openai", "vit_large_patch14_clip_336.openai"):
        with pytest.raises(UsageError, match=r"QuickGELU.*Take timm/vit_\w+_clip_quickgelu_\d+[.]openai"):
            kizu.representation(f"timm/{name}")
    weight_sources._refuse_other_activation("vit_base_patch16_clip_224.laion2b")
    weight_sources._refuse_other_activation("vit_base_patch16_clip_224.openai_ft_in1k")
    weight_sources._refuse_other_activation("vit_base_patch16_clip_quickgelu_224.openai")
