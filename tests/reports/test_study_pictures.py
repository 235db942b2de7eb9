"""Pictures of a study: distributions of scores, embedded features, negatives beside anomalies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kizu import reports
from kizu.errors import DataError, EmptyData, LayoutError, NotFinite, OutputExists, ShapeError, UsageError
from kizu.reports import _chart
from kizu.reports.feature_embedding import _shown, embedded
from kizu.reports.score_distributions import _groups, kernel_density

BLUE, VERMILION = (32, 104, 158), (198, 84, 22)
LABELS = np.repeat([0, 1], 30)


def scores(shift: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=60) + shift * LABELS


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB"))


def near(image: np.ndarray, ink: tuple[int, int, int], within: int = 40) -> np.ndarray:
    """(H, W) bool: where the picture has about this colour."""
    return np.abs(image.astype(int) - ink).max(2) < within


# -- distributions of scores ---------------------------------------------------------------------------------


def test_a_kernel_density_against_its_definition() -> None:
    """By scipy's, at the same width; and its area is 1."""
    from scipy.stats import gaussian_kde

    given, places = scores(0.0)[:40], np.linspace(-8, 8, 801)
    quarter, three = np.percentile(given, [25, 75])
    width = 0.9 * min(given.std(), (three - quarter) / 1.34) * 40**-0.2
    theirs = gaussian_kde(given, bw_method=width / given.std(ddof=1))(places)
    ours = kernel_density(given, places, least=1e-9)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-14)
    assert ours.sum() * (places[1] - places[0]) == pytest.approx(1.0)


def test_equal_scores_are_a_peak() -> None:
    curve = kernel_density(np.full(9, 2.0), np.array([1.0, 2.0, 3.0]), least=0.1)
    assert curve[1] == pytest.approx(1 / (0.1 * np.sqrt(2 * np.pi)))
    assert curve[0] < 1e-20


def test_good_scores_lie_left_of_anomalous_ones(tmp_path: Path) -> None:
    path = reports.score_distributions(
        {"one": scores(9.0)}, tmp_path / "s.png", labels=LABELS, kind="density"
    )
    image = pixels(path)
    chart = image[image.shape[0] // 4 : -image.shape[0] // 4]  # without title and legend
    blue, red = (np.argwhere(near(chart, ink))[:, 1] for ink in (BLUE, VERMILION))
    assert len(blue) > 50
    assert len(red) > 50
    assert np.median(blue) + 100 < np.median(red)


@pytest.mark.parametrize("kind", ["histogram", "density", "both"])
def test_models_stand_side_by_side(tmp_path: Path, kind: str) -> None:
    models = {f"model {n}": scores(n) for n in range(5)}
    wide = pixels(reports.score_distributions(models, tmp_path / "s.png", labels=LABELS, kind=kind)).shape
    one = pixels(
        reports.score_distributions({"a": scores(1)}, tmp_path / "one.png", labels=LABELS, kind=kind)
    ).shape
    assert wide[1] > 3 * one[1]
    assert wide[0] > 1.6 * one[0]


def test_a_run_folder_brings_its_labels(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    folder = make_run()
    good, anomalous = _groups("run", folder, None)
    import polars as pl

    table = pl.read_parquet(folder / "samples.parquet")
    assert sorted(good) == sorted(table.filter(pl.col("label") == 0)["score"])
    assert sorted(anomalous) == sorted(table.filter(pl.col("label") == 1)["score"])
    path = reports.score_distributions({"run": folder}, tmp_path / "s.svg")
    text = path.read_text("utf-8")
    assert "AUROC" in text
    with pytest.raises(LayoutError, match="run folder"):
        reports.score_distributions({"run": tmp_path}, tmp_path / "s.svg")


def test_the_auroc_is_that_of_the_scores(tmp_path: Path) -> None:
    from sklearn.metrics import roc_auc_score

    given = scores(1.0)
    path = reports.score_distributions({"<b>": given}, tmp_path / "s.svg", labels=LABELS)
    text = path.read_text("utf-8")
    assert f"AUROC {roc_auc_score(LABELS, given):.3f}" in text
    assert "<b>" not in text


@pytest.mark.parametrize(
    ("models", "more", "error"),
    [
        ({}, {}, UsageError),
        ({"a": scores(0)}, {"labels": None}, DataError),
        ({"a": scores(0)[:-1]}, {}, DataError),
        ({"a": scores(0)}, {"labels": LABELS + 1}, DataError),
        ({"a": scores(0)}, {"labels": np.zeros(60)}, DataError),
        ({"a": np.full(60, np.nan)}, {}, NotFinite),
        ({"a": scores(0)}, {"kind": "violin"}, UsageError),
        ({"a": scores(0)}, {"bins": 0}, UsageError),
        ({"a": scores(0)}, {"out": "s.jpg"}, UsageError),
    ],
)
def test_nonsense_scores(
    tmp_path: Path, models: dict[str, Any], more: dict[str, Any], error: type[Exception]
) -> None:
    given = {"labels": LABELS, **more}
    out = tmp_path / given.pop("out", "s.png")
    with pytest.raises(error):
        reports.score_distributions(models, out, **given)
    assert not out.exists()


# -- embedded features ---------------------------------------------------------------------------------------


def features(apart: float, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(60, 12))
    return rows + apart * LABELS[:, None]


def test_far_clusters_stay_apart_and_neighbours_neighbours() -> None:
    """Each point's nearest neighbour in the picture is of its own cluster."""
    places = embedded(features(9.0), 10.0, 0)
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (LABELS[distances.argmin(1)] == LABELS).all()
    np.testing.assert_array_equal(places, embedded(features(9.0), 10.0, 0))


def test_one_panel_a_stage_in_both_colours(tmp_path: Path) -> None:
    stages = {"pretrained": features(0.0), "adapted": features(9.0)[:, :5]}
    image = pixels(reports.feature_embedding(stages, LABELS, tmp_path / "f.png", perplexity=10))
    half = image.shape[1] // 2
    for side in (image[:, :half], image[:, half:]):
        assert near(side, BLUE, 90).any()
        assert near(side, VERMILION, 90).any()


def test_one_dimension_is_enough() -> None:
    assert embedded(features(3.0)[:, :1], 10.0, 0).shape == (60, 2)


def test_the_same_images_are_shown_at_every_stage() -> None:
    np.testing.assert_array_equal(_shown(9, 9, 0), np.arange(9))
    chosen = _shown(1000, 100, 3)
    assert len(set(chosen.tolist())) == 100
    np.testing.assert_array_equal(chosen, _shown(1000, 100, 3))
    assert not np.array_equal(chosen, _shown(1000, 100, 4))


@pytest.mark.parametrize(
    ("stages", "more", "error"),
    [
        ({}, {}, UsageError),
        ({"a": features(0)[:5]}, {}, DataError),
        ({"a": features(0)[:, 0]}, {}, DataError),
        ({"a": np.full((60, 3), np.inf)}, {}, NotFinite),
        ({"a": features(0)}, {"perplexity": 60}, UsageError),
        ({"a": features(0)}, {"perplexity": 0}, UsageError),
        ({"a": features(0)}, {"limit": 0}, UsageError),
        ({"a": features(0)}, {"seed": -1}, UsageError),
        ({"a": features(0)}, {"labels": [0, 2] * 30}, DataError),
        ({"a": features(0)}, {"out": "f.gif"}, UsageError),
    ],
)
def test_nonsense_features(
    tmp_path: Path, stages: dict[str, Any], more: dict[str, Any], error: type[Exception]
) -> None:
    given = {"labels": LABELS, **more}
    with pytest.raises(error):
        reports.feature_embedding(stages, given.pop("labels"), tmp_path / given.pop("out", "f.png"), **given)


# -- negatives beside anomalies ------------------------------------------------------------------------------


def image(value: int, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    return np.full((*size, 3), value, dtype=np.uint8)


def test_rows_and_columns_of_the_sheet(tmp_path: Path) -> None:
    good, planted, real = ([image(start + n) for n in range(6)] for start in (20, 90, 160))
    path = reports.negatives_sheet(good, planted, real, tmp_path / "n.png", limit=3)
    sheet = pixels(path)
    for row, start in enumerate((20, 90, 160)):
        for column in range(3):
            top, left = 68 + row * 50, 24 + 170 + column * 70
            assert (sheet[top : top + 40, left : left + 60] == start + column).all()
    assert sheet.shape == (68 + 3 * 40 + 2 * 10 + 24, 2 * 24 + 170 + 3 * 70 - 10, 3)


def test_paths_numbers_and_bytes_look_the_same(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(drawn).save(tmp_path / "a.png")
    as_numbers = drawn.transpose(2, 0, 1).astype(np.float32) / 255
    path = reports.negatives_sheet([drawn], [tmp_path / "a.png"], [as_numbers], tmp_path / "n.png")
    sheet = pixels(path)
    for row in range(3):
        np.testing.assert_array_equal(sheet[68 + row * 50 :][:40, 194:254], drawn)


def test_what_was_planted_is_outlined(tmp_path: Path) -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:20, 30:40] = True
    path = reports.negatives_sheet([image(99)], [image(99)], [image(99)], tmp_path / "n.png", masks=[mask])
    tiles = [pixels(path)[68 + row * 50 :][:40, 194:254] for row in range(3)]
    assert (tiles[0] == 99).all()
    assert (tiles[1][mask] == 99).all()
    assert (tiles[1][8, 30:40] == 255).all()
    assert (tiles[2] == 99).all()


@pytest.mark.parametrize(
    ("rows", "more", "error"),
    [
        (([], [], [image(1)]), {}, EmptyData),
        (([image(1)], [image(1)], []), {}, EmptyData),
        (([image(1)] * 2, [image(1)], [image(1)]), {}, DataError),
        (([image(1)], [image(1)], [image(1)]), {"masks": []}, DataError),
        (([image(1)], [image(1)], [image(1)]), {"masks": [np.zeros((4, 4), bool)]}, ShapeError),
        (([image(1)], [image(1)], [np.zeros((40, 60))]), {}, ShapeError),
        (([image(1)], [np.full((3, 9, 9), 2.0)], [image(1)]), {}, DataError),
        (([image(1)], [image(1)], [image(1)]), {"names": ["a"]}, UsageError),
        (([image(1)], [image(1)], [image(1)]), {"limit": 0}, UsageError),
        (([image(1)], [image(1)], [image(1)]), {"longest": 3}, UsageError),
        (([image(1)], [image(1)], [image(1)]), {"out": "n.svg"}, UsageError),
    ],
)
def test_nonsense_images(
    tmp_path: Path, rows: tuple[Any, Any, Any], more: dict[str, Any], error: type[Exception]
) -> None:
    given = {"out": "n.png", **more}
    with pytest.raises(error):
        reports.negatives_sheet(*rows, tmp_path / given.pop("out"), **given)


# -- writing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_ours_is_replaced_and_another_s_is_not(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"s{suffix}"
    for shift in (0.0, 2.0, 2.0):
        before = out.read_bytes() if out.exists() else b""
        reports.score_distributions({"a": scores(shift)}, out, labels=LABELS)
    assert out.read_bytes() == before  # the same scores, the same file
    out.write_bytes(b"somebody's")
    with pytest.raises(OutputExists):
        reports.score_distributions({"a": scores(0.0)}, out, labels=LABELS)
    assert out.read_bytes() == b"somebody's"


def test_at_most_four_panels_stand_in_a_row() -> None:
    drawn, axes = _chart.panels(6)
    assert len(axes) == 6
    assert len({round(one.get_position().y0, 3) for one in axes}) == 2
    assert len(drawn.axes) == 8
