"""Heat colours, panels and the contact sheet."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kizu import reports
from kizu.errors import EmptyData, ShapeError, UsageError
from kizu.reports import _draw, _heat

GREY = np.full((40, 60, 3), 120, dtype=np.uint8)


def test_one_colour_means_one_value() -> None:
    low = _heat.colour(_heat.to_unit(np.array([[0.0, 2.0]]), (0.0, 4.0)))
    high = _heat.colour(_heat.to_unit(np.array([[2.0, 9.0]]), (0.0, 4.0)))
    np.testing.assert_array_equal(low[0, 1], high[0, 0])


def test_unit_clips_and_survives_what_is_not_finite() -> None:
    unit = _heat.to_unit(np.array([[-1.0, 0.0, 1.0, 2.0, 5.0, np.nan, np.inf, -np.inf]]), (0.0, 2.0))
    np.testing.assert_array_equal(unit, [[0, 0, 0.5, 1, 1, 0, 1, 0]])
    np.testing.assert_array_equal(_heat.to_unit(np.array([[1.0, 2.0]]), (1.0, 1.0)), [[0, 1]])
    with pytest.raises(UsageError, match="low <= high"):
        _heat.to_unit(np.zeros((2, 2)), (1.0, 0.0))


def test_the_ramp_rises_in_lightness() -> None:
    """CIE lightness of sRGB, by its definition: monotone, so the ramp reads in grey print too."""
    linear = ((_heat.ramp() / 255 + 0.055) / 1.055) ** 2.4
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) > -2e-3).all()
    assert luminance[-1] - luminance[0] > 0.8


def test_overlay_leaves_low_values_alone_and_covers_high_ones() -> None:
    unit = np.zeros((40, 60), dtype=np.float32)
    np.testing.assert_array_equal(_heat.overlay(GREY, unit), GREY)
    unit[5, 5] = 1
    mixed = _heat.overlay(GREY, unit)
    expected = np.round(120 * (1 - _heat.OPAQUE) + _heat.ramp()[255] * _heat.OPAQUE)
    np.testing.assert_array_equal(mixed[5, 5], expected)
    with pytest.raises(ShapeError):
        _heat.overlay(GREY, unit[:5])


def test_outline_runs_around_the_mask_and_hides_none_of_it() -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[20, 10:30] = True
    drawn = _heat.draw_outline(GREY, mask)
    np.testing.assert_array_equal(drawn[mask], GREY[mask])
    assert (drawn[18, 10:30] == 255).all()
    assert (drawn[17, 10:30] == 0).all()
    assert (drawn[:10] == 120).all()


def test_grow_against_a_brute_force() -> None:
    mask = np.random.default_rng(0).random((9, 11)) < 0.1
    brute = np.array(
        [[mask[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].any() for j in range(11)] for i in range(9)]
    )
    np.testing.assert_array_equal(_heat.grow(mask), brute)


@pytest.mark.parametrize("shape", [(40, 60), (1, 1), (7, 900), (1200, 50), (333, 222)])
def test_panel_of_any_size(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), dtype=np.uint8)
    mask = np.ones((20, 20), dtype=bool)
    for given in (None, mask):
        made = reports.panel(
            image,
            np.random.default_rng(0).random((13, 17)),
            mask=given,
            map_range=(0.0, 1.0),
            title="a" * 400,
            score=1.5,
        )
        assert made.mode == "RGB"
        assert made.width <= 2 * 16 + 4 * 320 + 3 * 12
        assert made.height < 460


def test_panel_shows_its_tiles_where_it_says() -> None:
    """Image, heat map and framed decision, left to right; the frame alone depends on the decision."""
    image = np.full((200, 200, 3), 90, dtype=np.uint8)
    heat = np.full((10, 10), 4.0)
    made = {
        d: np.asarray(reports.panel(image, heat, map_range=(0.0, 4.0), is_anomalous=d)) for d in (True, False)
    }
    for picture in made.values():
        assert (picture[42:242, 16:216] == 90).all()
        assert (picture[42:242, 228:428] == _heat.ramp()[255]).all()
    assert tuple(made[True][42, 441]) == _draw.CALLED
    assert tuple(made[False][42, 441]) == _draw.PASSED


def test_panel_refuses_what_it_cannot_draw() -> None:
    with pytest.raises(UsageError, match="uint8"):
        reports.panel(GREY.astype(np.float32), np.zeros((4, 4)), map_range=(0, 1))  # type: ignore[arg-type]
    with pytest.raises(ShapeError):
        reports.panel(GREY[..., 0], np.zeros((4, 4)), map_range=(0, 1))
    with pytest.raises(ShapeError):
        reports.panel(GREY, np.zeros((1, 4, 4)), map_range=(0, 1))


def test_long_and_strange_names_are_shortened_in_the_middle() -> None:
    face = _draw.font(15)
    short = _draw.shorten("begin" + "x" * 300 + "end.png", face, 200)
    assert face.getlength(short) <= 200
    assert short.startswith("begin")
    assert short.endswith("end.png")
    assert "\n" not in _draw.shorten("a\nb", face, 200)
    assert _draw.shorten("傷.png", face, 200) == "傷.png"


def test_contact_sheet(make_run: Callable[..., Path]) -> None:
    folder = make_run(good=4, defects={"scratch": 5})
    few = reports.contact_sheet(folder, folder / "few.png", limit=3)
    many = reports.contact_sheet(folder)
    assert many == folder / "contact_sheet.png"
    with Image.open(few) as small, Image.open(many) as large:
        assert small.width * 2 == large.width
        assert small.height < large.height
    with pytest.raises(UsageError, match="limit >= 1"):
        reports.contact_sheet(folder, limit=0)


def test_contact_sheet_without_maps_calibration_or_images(make_run: Callable[..., Path]) -> None:
    import polars as pl

    folder = make_run(good=1, defects={"scratch": 1}, calibrated=False)
    (folder / "maps.npz").unlink()
    (folder / "images" / "0.jpg").unlink()
    assert reports.contact_sheet(folder).stat().st_size > 1000
    pl.read_parquet(folder / "samples.parquet").clear().write_parquet(folder / "samples.parquet")
    with pytest.raises(EmptyData, match="no test images"):
        reports.contact_sheet(folder)


def test_reports_need_no_torch() -> None:
    members = "html", "panel", "contact_sheet", "inspection_html", "table"
    code = f"import sys, kizu.reports as r; [getattr(r, n) for n in {members}]; print('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "False"
    )
