"""CutPaste against pasting by slices, and its scars against the geometry of a turned rectangle."""

from __future__ import annotations

import math

import pytest
import torch

from kizu.errors import UnknownName
from kizu.views import _random
from kizu.views.cutpaste import cutpaste

STILL = (0.0, 0.0, 0.0, 0.0)


def numbered(count: int, height: int, width: int) -> torch.Tensor:
    """Images whose pixels tell where they come from: red is the row, green the column, blue 0."""
    rows = torch.arange(height, dtype=torch.float64)[:, None].expand(height, width) / 512
    columns = torch.arange(width, dtype=torch.float64).expand(height, width) / 512
    return torch.stack([rows, columns, torch.zeros_like(rows)]).expand(count, -1, -1, -1).clone()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_patch_is_a_slice_pasted() -> None:
    images = numbered(20, 90, 120)
    out, mask = cutpaste(images, generator=seeded(1), jitter=STILL, return_mask=True)
    u = _random.uniforms(seeded(1), 20, 19)
    for i in range(20):
        area, aspect = (
            90 * 120 * (0.02 + 0.13 * u[i, 1]),
            0.3 + 0.7 * u[i, 3] if u[i, 2] < 0.5 else 1 + 2.3 * u[i, 3],
        )
        tall, wide = min(90, round(math.sqrt(area / aspect))), min(120, round(math.sqrt(area * aspect)))
        cut_y, cut_x, y, x = (
            int(v * n) for v, n in zip(u[i, 7:11], (91 - tall, 121 - wide) * 2, strict=True)
        )
        truth = images[i].clone()
        truth[:, y : y + tall, x : x + wide] = images[i][:, cut_y : cut_y + tall, cut_x : cut_x + wide]
        assert torch.equal(out[i], truth)
        assert mask[i].sum() in (0, tall * wide)


def test_patch_area_and_aspect() -> None:
    _, mask = cutpaste(numbered(300, 100, 100), generator=seeded(2), jitter=STILL, return_mask=True)
    tall, wide = mask.any(dim=2).sum(dim=1), mask.any(dim=1).sum(dim=1)
    area, aspect = (tall * wide) / 1e4, wide / tall
    assert area.min() > 0.018
    assert area.max() < 0.152
    assert area.mean() == pytest.approx(0.085, abs=0.01)
    assert aspect.min() > 0.27
    assert aspect.max() < 3.5
    assert (aspect < 1).float().mean() == pytest.approx(0.5, abs=0.1)


def test_scar_is_a_turned_rectangle_of_its_size() -> None:
    images = numbered(80, 256, 256)
    _, mask = cutpaste(images, generator=seeded(3), kind="scar", jitter=STILL, return_mask=True)
    u = _random.uniforms(seeded(3), 80, 19)
    for i in range(80):
        wide, tall = round(2 + 14 * float(u[i, 4])), round(10 + 15 * float(u[i, 5]))
        angle = (float(u[i, 6]) - 0.5) * math.pi / 2
        assert int(mask[i].sum()) == pytest.approx(wide * tall, abs=0.12 * wide * tall + 4)
        rows, columns = mask[i].nonzero().double().T
        assert rows.max() - rows.min() + 1 <= tall * math.cos(angle) + wide * abs(math.sin(angle)) + 1
        assert columns.max() - columns.min() + 1 <= wide * math.cos(angle) + tall * abs(math.sin(angle)) + 1
        if tall > 2 * wide:  # its long axis lies at that angle
            spread = torch.cov(torch.stack([rows, columns]))
            axis = torch.linalg.eigh(spread).eigenvectors[:, -1]
            assert abs(float(axis[0] * math.cos(angle) + axis[1] * math.sin(angle))) > 0.98


def test_scar_shows_one_place_turned() -> None:
    """Pixels of a scar come from an unturned rectangle: its rows and columns are whole, distinct and as many
    as the scar is big."""
    images = numbered(50, 256, 256)
    out, mask = cutpaste(images, generator=seeded(4), kind="scar", jitter=STILL, return_mask=True)
    u = _random.uniforms(seeded(4), 50, 19)
    for i in range(50):
        wide, tall = round(2 + 14 * float(u[i, 4])), round(10 + 15 * float(u[i, 5]))
        rows, columns = (out[i, channel][mask[i]] * 512 for channel in (0, 1))
        assert rows.max() - rows.min() < tall
        assert columns.max() - columns.min() < wide
        assert torch.equal(rows, rows.round())


def test_scars_follow_the_image_size() -> None:
    small, large = (
        cutpaste(numbered(60, n, n), generator=seeded(5), kind="scar", return_mask=True)[1]
        for n in (128, 256)
    )
    share = small.float().mean() / large.float().mean()
    assert share == pytest.approx(1, abs=0.15)


def test_both_gives_each_image_one_kind() -> None:
    images = numbered(120, 64, 64)
    out = cutpaste(images, generator=seeded(6), kind="both")
    patch, scar = (cutpaste(images, generator=seeded(6), kind=kind) for kind in ("patch", "scar"))
    is_patch = ((out - patch).abs() < 1e-12).flatten(1).all(dim=1)
    is_scar = ((out - scar).abs() < 1e-12).flatten(1).all(dim=1)
    assert (is_patch | is_scar).all()
    assert is_patch.float().mean() == pytest.approx(0.5, abs=0.15)


def test_places_cover_the_image() -> None:
    for kind, covered in (("patch", 0.97), ("scar", 0.5)):
        _, mask = cutpaste(
            numbered(400, 64, 64), generator=seeded(7), kind=kind, jitter=STILL, return_mask=True
        )
        assert mask.any(dim=0).float().mean() > covered
        assert mask.any(dim=0)[2:-2].any(dim=1).all()
        assert mask.any(dim=0)[:, 2:-2].any(dim=0).all()


def test_jitter_changes_only_the_piece() -> None:
    images = torch.rand(10, 3, 64, 64, generator=seeded(0))
    still, mask = cutpaste(images, generator=seeded(8), jitter=STILL, return_mask=True)
    jittered = cutpaste(images, generator=seeded(8))
    differs = (still != jittered).any(dim=1)
    assert differs.flatten(1).any(dim=1).all()
    assert not (differs & ~mask).any()


def test_unknown_kind() -> None:
    with pytest.raises(UnknownName, match="scar"):
        cutpaste(torch.rand(1, 3, 32, 32), generator=seeded(0), kind="scarr")
