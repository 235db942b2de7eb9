"""ImageBind's checkpoint: a small one of the published form, against the original formulation."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kizu
from kizu.errors import ModelFileError, UsageError, WeightsUnavailable
from kizu.representations import imagebind, networks
from kizu.representations.imagebind import PATCHES, STEM, TRUNK, to_timm
from kizu.representations.sources import open_representation, save_representation

SIZE, BLOCKS, HEADS = 48, 4, 3
MEAN = torch.tensor(networks.CLIP_MEAN).view(1, 3, 1, 1)
STD = torch.tensor(networks.CLIP_STD).view(1, 3, 1, 1)


def checkpoint(size: int = SIZE, blocks: int = BLOCKS) -> dict[str, Tensor]:
    """Names and shapes as in imagebind_huge.pth, with another modality and the heads beside."""
    shapes = {
        f"{STEM}cls_token": (1, 1, size),
        PATCHES: (size, 3, 2, 14, 14),
        f"{STEM}pos_embedding_helper.pos_embed": (1, 257, size),
        f"{TRUNK}pre_transformer_layer.0.weight": (size,),
        f"{TRUNK}pre_transformer_layer.0.bias": (size,),
        "modality_trunks.audio.blocks.0.attn.bias_k": (1, 1, size),
        "modality_preprocessors.audio.cls_token": (1, 1, size),
        "modality_heads.vision.0.weight": (size,),
        "modality_heads.vision.2.weight": (size, size),
    }
    for block in range(blocks):
        begin = f"{TRUNK}blocks.{block}."
        shapes |= {
            f"{begin}attn.in_proj_weight": (3 * size, size),
            f"{begin}attn.in_proj_bias": (3 * size,),
            f"{begin}attn.out_proj.weight": (size, size),
            f"{begin}attn.out_proj.bias": (size,),
            f"{begin}mlp.fc1.weight": (4 * size, size),
            f"{begin}mlp.fc1.bias": (4 * size,),
            f"{begin}mlp.fc2.weight": (size, 4 * size),
            f"{begin}mlp.fc2.bias": (size,),
        }
        for norm in ("norm_1", "norm_2"):
            shapes |= {f"{begin}{norm}.{end}": (size,) for end in ("weight", "bias")}
    generator = torch.Generator().manual_seed(0)
    if torch.get_default_device().type == "meta":
        return {name: torch.empty(shape) for name, shape in shapes.items()}
    return {
        name: torch.randn(shape, generator=generator) * 0.1 + (0.9 if ".norm_" in name else 0.0)
        for name, shape in shapes.items()
    }


def original(tensors: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    """Outputs of all blocks (B, C, h, w) as ImageBind's paper and names have them: two equal frames under a
    convolution in three dimensions, a norm before the first block, torch's own attention; in float64."""
    tensors = {name: value.double() for name, value in tensors.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        return nn.functional.layer_norm(
            x, (SIZE,), tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps=1e-6
        )

    video = ((images - MEAN) / STD).double()[:, :, None].repeat(1, 1, 2, 1, 1)
    tokens = nn.functional.conv3d(video, tensors[PATCHES], stride=(2, 14, 14)).flatten(2).transpose(1, 2)
    x = torch.cat([tensors[f"{STEM}cls_token"].expand(len(images), -1, -1), tokens], 1)
    x = norm(x + tensors[f"{STEM}pos_embedding_helper.pos_embed"], f"{TRUNK}pre_transformer_layer.0")
    outputs = []
    for block in range(BLOCKS):
        begin = f"{TRUNK}blocks.{block}."
        attention = nn.MultiheadAttention(SIZE, HEADS, bias=True, batch_first=True).double().eval()
        attention.load_state_dict(
            {name: tensors[f"{begin}attn.{name}"] for name in attention.state_dict()}, strict=True
        )
        inner = norm(x, f"{begin}norm_1")
        x = x + attention(inner, inner, inner, need_weights=False)[0]
        hidden = norm(x, f"{begin}norm_2") @ tensors[f"{begin}mlp.fc1.weight"].T
        hidden = nn.functional.gelu(hidden + tensors[f"{begin}mlp.fc1.bias"])
        x = x + hidden @ tensors[f"{begin}mlp.fc2.weight"].T + tensors[f"{begin}mlp.fc2.bias"]
        outputs.append(x[:, 1:].transpose(1, 2).unflatten(2, (16, 16)).detach())
    return outputs


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same network, smaller."""
    huge = networks.VARIANTS["imagebind_huge"]
    keywords = {"patch_size": 14, "embed_dim": SIZE, "depth": BLOCKS, "num_heads": HEADS}
    variant = networks.Variant("vit_tiny_patch16_224", huge.keywords | keywords, huge.config)
    monkeypatch.setitem(networks.VARIANTS, "imagebind_small", variant)
    monkeypatch.setattr(imagebind, "ARCHITECTURE", "imagebind_small")


@pytest.mark.usefixtures("small")
def test_it_computes_what_the_original_does(tmp_path: Path) -> None:
    tensors, path = checkpoint(), tmp_path / "imagebind_small.pth"
    torch.save(tensors, path)
    net = kizu.representation(f"imagebind:{path}@1,2,4").eval()
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, due = net(images), original(tensors, images)
    for level, expected in zip(found, (due[0], due[1], due[3]), strict=True):
        assert (level - expected).abs().max() < 1e-4 * expected.abs().max()
    assert net.card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "NC" in net.card["licence"]
    assert net.card["name"] == f"imagebind:{path}@1,2,4"
    half = net.inference_copy("bf16")(images)
    assert all(((a - b).norm() / b.norm()).item() < 0.03 for a, b in zip(half, found, strict=True))


@pytest.mark.usefixtures("small")
def test_saved_it_needs_the_checkpoint_no_more(tmp_path: Path) -> None:
    path = tmp_path / "imagebind_small.pth"
    torch.save(checkpoint(), path)
    net = open_representation(f"imagebind:{path}", levels=(2, 3)).eval()
    assert net.levels == (2, 3), "the blocks at a half and three quarters of its depth"
    saved = save_representation(net, tmp_path / "saved.kizu")
    path.unlink()
    again, image = open_representation(saved).eval(), torch.rand(1, 3, 224, 224)
    assert again.card == net.card
    for a, b in zip(again(image), net(image), strict=True):
        assert torch.equal(a, b)


def test_all_tensors_of_the_published_size_have_their_place() -> None:
    """630 million weights, as shapes without memory."""
    with torch.device("meta"):
        given = to_timm(checkpoint(1280, 32))
    wanted = {
        name.removeprefix("model."): tuple(value.shape)
        for name, value in networks.probe_of("imagebind_huge").state_dict().items()
    }
    assert {name: tuple(value.shape) for name, value in given.items()} == wanted
    assert sum(value.numel() for value in given.values()) == 630_763_520
    norms = [one for one in networks.probe_of("imagebind_huge").modules() if isinstance(one, nn.LayerNorm)]
    assert len(norms) == 65
    assert {norm.eps for norm in norms} == {1e-6}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: {"state": tensors}, "names and tensors alone"),
        (lambda tensors: {"a": torch.zeros(2)}, "no tensor that begins with modality_trunks.vision"),
        (
            lambda tensors: tensors | {f"{TRUNK}blocks.0.attn.bias_k": torch.zeros(1)},
            "has no tensor '.*bias_k'",
        ),
        (lambda tensors: tensors | {PATCHES: torch.zeros(SIZE, 3, 14, 14)}, "for two frames"),
        (
            lambda tensors: {k: v for k, v in tensors.items() if "norm_2.bias" not in k},
            "2 tensors are missing",
        ),
    ],
)
@pytest.mark.usefixtures("small")
def test_other_files_are_refused(change: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(change(checkpoint()), path)
    with pytest.raises(ModelFileError, match=said):
        kizu.representation(f"imagebind:{path}@2")


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match=r"CC BY-NC-SA 4.0.*give the path") as told:
        kizu.representation(f"imagebind:{tmp_path / 'none.pth'}@8,16,24,32")
    assert "\n" not in str(told.value)
    path = tmp_path / "text.pth"
    path.write_text("nothing")
    with pytest.raises(ModelFileError, match="not ImageBind's checkpoint, or damaged"):
        kizu.representation(f"imagebind:{path}@8")
    torch.save({"a": Ran()}, path)
    with pytest.raises(ModelFileError, match="not ImageBind's checkpoint, or damaged"):
        kizu.representation(f"imagebind:{path}@8")
    assert not Ran.was
    with pytest.raises(UsageError, match="needs weights="):
        kizu.representations.Backbone("imagebind_huge", source="imagebind")


class Ran:
    """Code in a file: it must not run."""

    was = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Ran, "was", True)
