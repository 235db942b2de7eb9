"""weak and strong: their recipes' constants, seen from outside."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from kizu.errors import UnknownName, UsageError
from kizu.views.strong import RECIPES, strong
from kizu.views.weak import weak

STILL = (0.0, 0.0, 0.0, 0.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramp(count: int, size: int = 48) -> torch.Tensor:
    """Red runs down, green across from 0 to 1, blue is 0.3: where a pixel came from can be read from it."""
    line = (torch.arange(size) + 0.5) / size
    return torch.stack(
        [line[:, None].expand(size, size), line.expand(size, size), torch.full((size, size), 0.3)]
    ).expand(count, -1, -1, -1)


def kept(out: torch.Tensor) -> torch.Tensor:
    """Part of the area that a crop of `ramp` kept: the product of how far red and green still run."""
    size = out.shape[-1]
    middle = slice(size // 4, size - size // 4)
    down = (out[:, 0, middle].diff(dim=1).mean(dim=(1, 2))).abs() * size
    across = (out[:, 1, :, middle].diff(dim=2).mean(dim=(1, 2))).abs() * size
    return down * across


def test_weak_keeps_nine_tenths_and_flips_half() -> None:
    out = weak(ramp(400), generator=seeded(0), jitter=STILL)
    share = kept(out)
    assert share.min() > 0.87
    assert share.max() < 1.01
    assert share.mean() == pytest.approx(0.943, abs=0.008)
    assert (out[:, 1, 24, 0] > out[:, 1, 24, -1]).float().mean() == pytest.approx(0.5, abs=0.08)


def test_weak_jitter_chance_and_strength() -> None:
    plain = torch.full((500, 3, 8, 8), 0.5) * torch.tensor([1.0, 0.9, 0.8])[:, None, None]
    out = weak(plain, generator=seeded(1))
    changed = ((out - plain).abs() > 1e-6).flatten(1).any(dim=1)
    assert changed.float().mean() == pytest.approx(0.8, abs=0.06)
    ratio = out.amax(dim=(1, 2, 3)) / 0.5
    assert ratio.min() > 0.87
    assert ratio.max() < 1.13


def test_weak_without_change_is_the_image() -> None:
    images = torch.rand(4, 3, 32, 32, generator=seeded(0))
    out = weak(
        images,
        generator=seeded(2),
        crop_scale=(1, 1),
        crop_ratio=(1, 1),
        jitter=STILL,
        blur_sigma=(1e-3, 1e-3),
        flip_chance=0,
    )
    assert torch.allclose(out, images, atol=1e-6)


def test_weak_is_weak_and_strong_is_strong() -> None:
    images = torch.rand(64, 3, 6, 6, generator=seeded(3))
    images = torch.nn.functional.interpolate(images, (64, 64), mode="bicubic").clamp(0, 1)
    images = (images + images.flip(3)) / 2  # a flip changes nothing
    change = {
        name: (view(images, generator=seeded(4)) - images).abs().mean()
        for name, view in (("weak", weak), ("strong", strong))
    }
    assert change["weak"] < 0.7 * change["strong"]


@pytest.mark.parametrize(
    ("recipe", "least"), [("simsiam", 0.2), ("moco_v1", 0.2), ("simclr", 0.08), ("csi", 0.08)]
)
def test_crop_areas(recipe: str, least: float) -> None:
    """Grey or not, jittered or not: the recipe's boxes alone."""
    from kizu.views import _augment, _random

    u = _random.uniforms(seeded(5), 3000, 22)
    _, _, tall, wide = _augment.crop_boxes(
        u, 224, 224, RECIPES[recipe].crop_scale, RECIPES[recipe].crop_ratio
    )
    share = tall * wide / 224**2
    assert share.min() == pytest.approx(least, abs=0.012)
    assert share.max() > 0.99


def test_the_looks_of_csi_have_one_area() -> None:
    from kizu.views import _augment, _random

    u, recipe = _random.uniforms(seeded(5), 3000, 22), RECIPES["csi_fixed"]
    _, _, tall, wide = _augment.crop_boxes(u, 224, 224, recipe.crop_scale, recipe.crop_ratio)
    assert ((tall * wide / 224**2 - 0.54).abs() < 0.01).all()


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_a_fifth_is_grey(recipe: str) -> None:
    images = torch.rand(600, 3, 1, 1, generator=seeded(6)).expand(-1, -1, 8, 8) * 0.5 + 0.25
    out = strong(images, generator=seeded(7), recipe=recipe)
    grey = (out.amax(dim=1) - out.amin(dim=1)).flatten(1).amax(dim=1) < 1e-5
    assert grey.float().mean() == pytest.approx(0.0 if recipe == "plain" else 0.2, abs=0.05)


def test_blur_chance() -> None:
    """Noise of one pixel loses its edges when blurred; sigma 0.1 blurs nothing, so a little less than half
    shows."""
    images = torch.rand(300, 3, 32, 32, generator=seeded(8))

    def sharpness(recipe: str) -> torch.Tensor:
        out = tv.rgb_to_grayscale(strong(images, generator=seeded(9), recipe=recipe))
        return out.diff(dim=3).abs().mean(dim=(1, 2, 3)) / out.std(dim=(1, 2, 3)).clamp(min=1e-3)

    blurred = (sharpness("moco_v2") < 0.9 * sharpness("moco_v1")).float().mean()
    assert 0.3 < blurred < 0.5


def test_simsiam_is_moco_v2_and_the_others_differ() -> None:
    images = torch.rand(8, 3, 32, 32, generator=seeded(0))
    out = {recipe: strong(images, generator=seeded(1), recipe=recipe) for recipe in RECIPES}
    assert torch.equal(out["simsiam"], out["moco_v2"])
    assert not torch.equal(out["moco_v1"], out["moco_v2"])
    assert not torch.equal(out["simclr"], out["moco_v2"])


@pytest.mark.parametrize("view", [weak, strong])
def test_size_and_misuse(view: object) -> None:
    images = torch.rand(2, 3, 40, 30, generator=seeded(0))
    assert view(images, generator=seeded(0), size=(16, 24)).shape == (2, 3, 16, 24)  # type: ignore[operator]
    with pytest.raises(UsageError, match="size"):
        view(images, generator=seeded(0), size=(0, 3))  # type: ignore[operator]
    with pytest.raises(UnknownName, match="simclr"):
        strong(images, generator=seeded(0), recipe="simcl")
    with pytest.raises(UsageError, match="flip_chance"):
        weak(images, generator=seeded(0), flip_chance=1.5)
