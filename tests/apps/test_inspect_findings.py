"""`kizu inspect`: where the flaws are, raw maps, names that tell images apart, and the region of interest."""

from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import kizu
from kizu import outputs
from kizu.apps._findings import names_of, stem_of

Cli = Callable[..., tuple[int, str, str]]
SIZE = (96, 160)
FLAW = (112, 24, 16, 24)
"""x, y, width, height."""
FAST = ("--detector", "padim", "--representation", "random/resnet10t@1,2", "--set", "image_size=64")
FAST = (*FAST, "--set", "dimensions=16", "--false-alarm-rate", "0.1")


def draw(path: Path, number: int, *flaws: tuple[int, int, int, int]) -> Path:
    rng = np.random.default_rng(number)
    values = 100 + 8 * np.sin(np.arange(SIZE[1]) / 6)[None, :, None] + rng.normal(0, 4, (*SIZE, 3))
    for x, y, width, height in flaws:
        values[y : y + height, x : x + width] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    for number in range(20):
        draw(folder / f"{number:03d}.png", number)
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images called 002.png: a good one, one with a flaw, one with two."""
    folder = tmp_path_factory.mktemp("parts")
    draw(folder / "good" / "002.png", 50)
    draw(folder / "spot" / "002.png", 51, FLAW)
    draw(folder / "two" / "002.png", 52, FLAW, (16, 56, 24, 16))
    return folder


@pytest.fixture(scope="module")
def model(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(good, tmp_path_factory.mktemp("model") / "model.kizu")


def fitted(good: Path, path: Path, *more: str) -> Path:
    from kizu.apps import cli

    with pytest.raises(SystemExit) as stop:
        cli.main(["fit", str(good), *FAST, *more, "-o", str(path), "--json"])
    assert stop.value.code == 0
    return path


def lines(out: str) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in out.splitlines()]
    return {Path(row["path"]).parent.name: row for row in rows if "path" in row}


def overlap(box: list[int], truth: tuple[int, int, int, int]) -> float:
    """Share of the true box that a region's box covers."""
    sides = [
        max(0, min(box[axis] + box[axis + 2], truth[axis] + truth[axis + 2]) - max(box[axis], truth[axis]))
        for axis in (0, 1)
    ]
    return sides[0] * sides[1] / (truth[2] * truth[3])


def test_regions_lie_where_the_flaws_are(model: Path, parts: Path, tmp_path: Path, run_cli: Cli) -> None:
    code, out, err = run_cli("inspect", model, parts, "-o", tmp_path / "out", "--json", "--csv")
    assert code == 0, err
    rows = lines(out)
    assert rows["good"]["is_anomalous"] is False
    assert rows["good"]["regions"] == []
    (spot,) = rows["spot"]["regions"]
    assert overlap(spot["box"], FLAW) > 0.9
    for place in (spot["peak_at"], spot["centre"]):  # a map of random features is no finer than this
        assert FLAW[0] - 16 <= place[0] <= FLAW[0] + FLAW[2] + 16
        assert FLAW[1] - 16 <= place[1] <= FLAW[1] + FLAW[3] + 16
    assert spot["peak"] == pytest.approx(rows["spot"]["score"]), "PaDiM's score is its map's peak"
    assert spot["area"] <= spot["box"][2] * spot["box"][3]
    boxes = [region["box"] for region in rows["two"]["regions"]]
    for truth in (FLAW, (16, 56, 24, 16)):
        assert max(overlap(box, truth) for box in boxes) > 0.9
    with (tmp_path / "out" / "results.csv").open(newline="", encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    assert {row["path"] for row in table} == {str(path) for path in parts.rglob("*.png")}
    assert [row["region"] for row in table if Path(row["path"]).parent.name == "good"] == [""]
    (line,) = [row for row in table if Path(row["path"]).parent.name == "spot"]
    assert [int(line[name]) for name in ("x", "y", "width", "height")] == spot["box"]
    assert float(line["peak"]) == spot["peak"]


def test_images_of_one_name_are_told_apart(model: Path, parts: Path, tmp_path: Path, run_cli: Cli) -> None:
    code, out, _ = run_cli("inspect", model, parts, "-o", tmp_path / "out", "--json")
    assert code == 0
    for name, row in lines(out).items():
        assert f"-{name}-002.png" in row["panel"]
        assert (tmp_path / "out" / row["panel"]).is_file()
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    for name in ("good", "spot", "two"):
        assert f">{name}/002.png<" in page
    assert run_cli("inspect", model, parts, "-o", tmp_path / "out", "--overwrite")[0] == 0, "all is kizu's"


def test_names() -> None:
    assert names_of(["a/1.png"]) == {"a/1.png": "1.png"}
    assert names_of([]) == {}
    assert stem_of(7, "ab c/Δ/../x.png") == "000007-ab-c-..-x"
    assert stem_of(0, "傷.png") == "000000-image"
    assert len(stem_of(1, "x" * 500 + ".png")) < 140


@pytest.mark.parametrize("kind", ["npy", "tiff"])
def test_maps_are_whole_and_of_the_size_of_the_image(
    kind: str, model: Path, parts: Path, tmp_path: Path, run_cli: Cli
) -> None:
    code, out, _ = run_cli(
        *("inspect", model, parts / "spot", "-o", tmp_path / "out", "--json", "--no-panels", "--maps", kind)
    )
    assert code == 0
    (row,) = lines(out).values()
    path = tmp_path / "out" / row["map"]
    heat = np.load(path, allow_pickle=False) if kind == "npy" else np.asarray(Image.open(path))
    assert heat.dtype == np.float32
    assert heat.shape == SIZE
    raw = kizu.load(model).predict(row["path"]).map[0].numpy()
    wanted = Image.fromarray(raw).resize((SIZE[1], SIZE[0]), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(heat, np.asarray(wanted), rtol=1e-4, atol=1e-4 * np.abs(raw).max())


def test_maps_of_an_unknown_format(model: Path, parts: Path, tmp_path: Path, run_cli: Cli) -> None:
    code, _, err = run_cli("inspect", model, parts, "-o", tmp_path / "out", "--maps", "jpeg")
    assert code == 2
    assert "--maps is npy (NumPy) or tiff" in err
    assert not (tmp_path / "out").exists()


def test_maps_onto_a_full_disk(
    model: Path, parts: Path, tmp_path: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = outputs._flush

    def full(path: Path) -> None:
        if path.parent.name == "maps":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path)

    monkeypatch.setattr(outputs, "_flush", full)
    code, _, err = run_cli("inspect", model, parts, "-o", tmp_path / "out", "--maps", "npy", "--no-panels")
    assert code == 2
    assert "disk is full" in err
    assert list((tmp_path / "out" / "maps").iterdir()) == []
    monkeypatch.undo()
    code, _, err = run_cli("inspect", model, parts, "-o", tmp_path / "out", "--resume", "--no-panels")
    assert code == 2
    assert "with another --maps" in err
    again = ("inspect", model, parts, "-o", tmp_path / "out", "--resume", "--no-panels", "--maps", "npy")
    assert run_cli(*again)[0] == 0
    assert len(list((tmp_path / "out" / "maps").iterdir())) == 3


def test_a_region_of_interest(good: Path, parts: Path, tmp_path: Path, run_cli: Cli) -> None:
    """The model keeps it; flaws outside are neither scored nor shown, those inside lie where they are."""
    left = fitted(good, tmp_path / "left.kizu", "--roi", "0,32,104,64")
    more = ("--json", "--maps", "npy")
    code, out, _ = run_cli("inspect", left, parts, "-o", tmp_path / "left", *more)
    assert code == 0
    rows = lines(out)
    assert rows["spot"]["is_anomalous"] is False, "its flaw lies outside"
    assert max(overlap(region["box"], (16, 56, 24, 16)) for region in rows["two"]["regions"]) > 0.9
    for region in rows["two"]["regions"]:
        assert region["box"][0] + region["box"][2] <= 104
        assert region["box"][1] >= 32
    heat = np.load(tmp_path / "left" / rows["two"]["map"])
    inside = np.zeros(SIZE, bool)
    inside[32:, :104] = True
    np.testing.assert_array_equal(np.isfinite(heat), inside)
    clean = draw(tmp_path / "clean" / "spot" / "002.png", 51)
    code, out, _ = run_cli("inspect", left, clean, "-o", tmp_path / "clean_out", "--json")
    assert lines(out)["spot"]["score"] == rows["spot"]["score"]


def test_a_mask_as_a_region_of_interest(good: Path, parts: Path, tmp_path: Path, run_cli: Cli) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[8:88, 8:60], mask[8:60, 60:100] = 255, 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    model = fitted(good, tmp_path / "m.kizu", "--roi", str(tmp_path / "mask.png"))
    (tmp_path / "mask.png").unlink()  # the model has its own
    code, out, _ = run_cli("inspect", model, parts, "-o", tmp_path / "out", "--json")
    assert code == 0
    rows = lines(out)
    assert rows["spot"]["is_anomalous"] is False
    assert rows["two"]["regions"]
    run = tmp_path / "run"
    labelled = tmp_path / "labelled"
    draw(labelled / "good" / "1.png", 60)
    draw(labelled / "spot" / "1.png", 61, (16, 56, 24, 16))
    truth = np.zeros(SIZE, np.uint8)
    truth[56:72, 16:40] = 255
    (labelled / "ground_truth" / "spot").mkdir(parents=True)
    Image.fromarray(truth).save(labelled / "ground_truth" / "spot" / "1_mask.png")
    code, out, err = run_cli("evaluate", model, labelled, "-o", run, "--json")
    assert code == 0, err
    assert json.loads(out)["pixel_auroc"] > 0.9, "maps and masks are cut alike"


@pytest.mark.parametrize(
    ("roi", "said"),
    [
        ("150,0,20,20", "reaches beyond it"),
        ("1,2,3", "x,y,width,height, four numbers"),
        ("none.png", "there is no such file"),
        ("0,0,0,5", "at least 1 x 1"),
        ("EMPTY", "is empty: every pixel is zero"),
        ("OTHER", "was drawn on images of 10 x 10"),
    ],
)
def test_regions_that_cannot_be_meant(roi: str, said: str, good: Path, tmp_path: Path, run_cli: Cli) -> None:
    values = {"EMPTY": np.zeros(SIZE, np.uint8), "OTHER": np.eye(10, dtype=np.uint8)}
    if roi in values:
        Image.fromarray(values[roi]).save(tmp_path / "mask.png")
        roi = str(tmp_path / "mask.png")
    code, _, err = run_cli("fit", good, *FAST, "--roi", roi, "-o", tmp_path / "m.kizu")
    assert code == 2
    assert said in err
    assert not (tmp_path / "m.kizu").exists()


def test_a_model_of_whole_images_takes_no_part(
    model: Path, parts: Path, tmp_path: Path, run_cli: Cli
) -> None:
    code, _, err = run_cli("inspect", model, parts, "-o", tmp_path / "out", "--roi", "0,0,40,40")
    assert code == 2
    assert "Fit a model with this --roi" in err
    assert not (tmp_path / "out").exists()
