"""Perlin blots: the blend against its formula, the masks against DRAEM's and GLASS's rules."""

from __future__ import annotations

import pytest
import torch

from kizu.errors import ShapeError, UnknownName
from kizu.views import _noise, _random
from kizu.views.perlin import perlin


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain(count: int, value: float, size: int = 48) -> torch.Tensor:
    return torch.full((count, 3, size, size), value, dtype=torch.float64)


def test_beta_of_draem_is_uniform_below_eight_tenths() -> None:
    """White on black: the change inside the mask is 1 - beta."""
    out, mask = perlin(plain(300, 0), plain(1, 1), generator=seeded(0), return_mask=True)
    beta = 1 - out.amax(dim=(1, 2, 3))[mask.flatten(1).any(dim=1)]
    assert beta.min() < 0.03
    assert 0.77 < beta.max() < 0.8
    assert beta.mean() == pytest.approx(0.4, abs=0.04)
    assert torch.allclose(
        out.amax(dim=1)[mask],
        (1 - _random.uniforms(seeded(0), 300, 2 + 1 + _noise.COLUMNS)[:, 1] * 0.8).repeat_interleave(
            mask.sum(dim=(1, 2))
        ),
    )


def test_beta_of_glass_is_normal_within_limits() -> None:
    out = perlin(plain(300, 0), plain(1, 1), generator=seeded(1), recipe="glass")
    beta = 1 - out.amax(dim=(1, 2, 3))
    assert beta.min() >= 0.2
    assert beta.max() <= 0.8
    assert beta.mean() == pytest.approx(0.5, abs=0.02)
    assert beta.std() == pytest.approx(0.1, abs=0.015)


def test_the_mask_of_draem_is_noise_above_half() -> None:
    images, textures = plain(12, 0.2), plain(1, 0.9)
    _, mask = perlin(images, textures, generator=seeded(2), return_mask=True)
    u = _random.uniforms(seeded(2), 12, 3 + _noise.COLUMNS)
    assert torch.equal(mask, _noise.noise(u[:, 3:], 48, 48, torch.device("cpu")) > 0.5)


def test_glass_takes_one_two_joined_or_two_crossed() -> None:
    columns = 1 + 2 * _noise.COLUMNS
    _, mask = perlin(plain(60, 0), plain(1, 1), generator=seeded(3), recipe="glass", return_mask=True)
    u = _random.uniforms(seeded(3), 60, 2 + 10 * columns)[:, 2:].unflatten(1, (10, columns))
    seen = set()
    for i in range(60):
        for attempt in range(10):
            draws = u[i : i + 1, attempt]
            first, second = (
                _noise.noise(part, 48, 48, torch.device("cpu"))[0] > 0.5
                for part in draws[:, 1:].chunk(2, dim=1)
            )
            third = int(draws[0, 0] * 3)
            truth = (first, first & second, first | second)[third]
            if truth.any():
                break
        seen.add((third, attempt > 0))
        assert torch.equal(mask[i], truth)
    assert {kind for kind, _ in seen} == {0, 1, 2}
    assert any(again for _, again in seen), "no image of this seed needed a second try"


def test_masks_vary_in_size_and_glass_is_hardly_ever_empty() -> None:
    empty = {}
    for recipe in ("draem", "glass"):
        _, mask = perlin(
            plain(400, 0, 32), plain(1, 1, 32), generator=seeded(4), recipe=recipe, return_mask=True
        )
        share = mask.flatten(1).float().mean(dim=1)
        empty[recipe] = float((share == 0).float().mean())
        assert share.std() > 0.02
        assert 0.02 < share.mean() < 0.12
    assert 0 < empty["draem"] < 0.15
    assert empty["glass"] < 0.01


def test_foreground_holds_the_flaw() -> None:
    foreground = torch.zeros(60, 48, 48, dtype=torch.bool)
    foreground[:, 10:30, 20:40] = True
    for recipe in ("draem", "glass"):
        _, mask = perlin(
            plain(60, 0),
            plain(1, 1),
            generator=seeded(5),
            recipe=recipe,
            foreground=foreground,
            return_mask=True,
        )
        assert mask.any()
        assert not (mask & ~foreground).any()


def test_every_texture_is_used() -> None:
    textures = torch.stack([plain(1, value)[0] for value in (0.4, 0.6, 1.0)])
    out, mask = perlin(plain(90, 0), textures, generator=seeded(6), recipe="glass", return_mask=True)
    brightest = out.amax(dim=(1, 2, 3))
    which = (_random.uniforms(seeded(6), 90, 2 + 10 * (1 + 2 * _noise.COLUMNS))[:, 0] * 3).long()
    beta = 1 - brightest / torch.tensor([0.4, 0.6, 1.0], dtype=torch.float64)[which]
    assert which.unique().tolist() == [0, 1, 2]
    assert beta[mask.flatten(1).any(dim=1)].min() >= 0.2 - 1e-9


def test_misuse_is_refused() -> None:
    with pytest.raises(ShapeError, match="resize or crop"):
        perlin(plain(1, 0), plain(1, 0, 32), generator=seeded(0))
    with pytest.raises(ShapeError, match="foreground"):
        perlin(plain(2, 0), plain(1, 0), generator=seeded(0), foreground=torch.ones(1, 48, 48))
    with pytest.raises(UnknownName, match="glass"):
        perlin(plain(1, 0), plain(1, 0), generator=seeded(0), recipe="glas")
