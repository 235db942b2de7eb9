"""What every view owes its users; a new file in views/ is picked up by itself."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from kizu import registry
from kizu.errors import ShapeError, UsageError

NAMES = registry.names("views")
SIZES = [(32, 32), (24, 48)]


def drawn_images(
    count: int = 3, size: tuple[int, int] = (32, 32), dtype: torch.dtype = torch.float32
) -> Tensor:
    return torch.rand(count, 3, *size, generator=seeded(11)).to(dtype)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def view(name: str, images: Tensor, seed: int = 0, **options: Any) -> Any:
    function = registry.load("views", name)
    others = list(inspect.signature(function).parameters)[1:]
    given = {"textures": 1 - drawn_images(4, tuple(images.shape[2:]))} if "textures" in others else {}
    return function(images, **given, generator=seeded(seed), **options)


def planting() -> list[str]:
    return [
        name for name in NAMES if "return_mask" in inspect.signature(registry.load("views", name)).parameters
    ]


@pytest.mark.parametrize("name", NAMES)
def test_signature_and_words(name: str) -> None:
    first, *others = inspect.signature(registry.load("views", name)).parameters.values()
    assert first.name == "images"
    assert [
        p for p in others if p.name == "generator" and p.kind is p.KEYWORD_ONLY and p.default is p.empty
    ], "randomness is an argument"
    assert all(p.kind is p.KEYWORD_ONLY for p in others if p.default is not p.empty)
    assert registry.summary("views", name)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_shape_range_and_input_untouched(name: str, count: int, size: tuple[int, int]) -> None:
    images = drawn_images(count, size)
    before = images.clone()
    out = view(name, images)
    assert out.shape == images.shape
    assert out.dtype == images.dtype
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.isfinite(out).all()
    assert torch.equal(images, before)
    assert out.untyped_storage().data_ptr() != images.untyped_storage().data_ptr()


@pytest.mark.parametrize("edge", [0.0, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_black_and_white_stay_in_range(name: str, edge: float) -> None:
    for seed in range(4):
        out = view(name, torch.full((4, 3, 32, 32), edge), seed)
        assert out.min() >= 0
        assert out.max() <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_dtype_is_kept(name: str, dtype: torch.dtype) -> None:
    images = drawn_images(4, dtype=dtype)
    out = view(name, images)
    assert out.dtype == dtype
    assert (out.float() - view(name, images.float())).abs().max() < 0.01


@pytest.mark.parametrize("name", NAMES)
def test_same_generator_state_same_output(name: str) -> None:
    torch.manual_seed(0)
    first = view(name, drawn_images(), 1)
    torch.manual_seed(99)
    assert torch.equal(first, view(name, drawn_images(), 1))
    assert not torch.equal(first, view(name, drawn_images(), 2))


@pytest.mark.parametrize("name", NAMES)
def test_leaves_the_global_generator_alone(name: str) -> None:
    before = torch.get_rng_state()
    view(name, drawn_images())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_each_image_by_its_own_draws(name: str) -> None:
    same = drawn_images(1).expand(6, -1, -1, -1)
    out = view(name, same, 3)
    assert len(torch.unique(out.flatten(1), dim=0)) >= 5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_its_images_in_turn(name: str, size: tuple[int, int]) -> None:
    images, function = drawn_images(6, size), registry.load("views", name)
    given = (
        {"textures": 1 - drawn_images(4, size)}
        if "textures" in inspect.signature(function).parameters
        else {}
    )
    generator = seeded(5)
    singles = torch.cat([function(images[i : i + 1], **given, generator=generator) for i in range(6)])
    assert torch.allclose(view(name, images, 5), singles, atol=2e-6)


@pytest.mark.parametrize("name", planting())
def test_the_mask_is_what_changed(name: str) -> None:
    images = drawn_images(8)
    out, mask = view(name, images, 2, return_mask=True)
    assert mask.shape == (8, 32, 32)
    assert mask.dtype == torch.bool
    assert torch.equal(mask, (out != images).any(dim=1))
    assert mask.any()
    assert not mask.all()
    assert torch.equal(out, view(name, images, 2))


@pytest.mark.parametrize("name", NAMES)
def test_misuse_is_refused(name: str) -> None:
    with pytest.raises(ShapeError, match="images"):
        view(name, torch.rand(2, 1, 32, 32))
    with pytest.raises(ShapeError, match="images"):
        view(name, torch.rand(2, 3, 4, 32))
    with pytest.raises(UsageError, match="divide bytes by 255"):
        view(name, torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    function = registry.load("views", name)
    extra = {"textures": drawn_images()} if "textures" in inspect.signature(function).parameters else {}
    with pytest.raises(UsageError, match="generator"):
        function(drawn_images(), **extra, generator=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("name", NAMES)
def test_device_changes_nothing_but_rounding(name: str) -> None:
    out = view(name, drawn_images(4).cuda()).cpu()
    assert ((out - view(name, drawn_images(4))).abs() > 1e-4).float().mean() < 1e-3
