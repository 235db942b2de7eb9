"""`kizu attention`, whole: pairs, maps, figures, page; and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kizu.errors import EmptyData
from kizu.evaluation.attention import compare_attention, spread_out
from kizu.samples import Samples

Cli = Callable[..., tuple[int, str, str]]
NET = "random/resnet10t@1,2"


@pytest.mark.slow
def test_two_side_by_side(tiny_planted: Samples, tmp_path: Path, run_cli: Cli) -> None:
    data, out = Path(tiny_planted.paths[0]).parents[3], tmp_path / "out"
    arguments = (
        "attention",
        data,
        "--dataset",
        "mvtec",
        "--representation",
        NET,
        "--representation",
        f"coarse={NET[:-2]}",
        "--count",
        7,
    )
    code, said, _ = run_cli(*arguments, "--image-size", 64, "-o", out, "--json")
    assert code == 0
    facts = json.loads(said)
    assert facts["images"] == 7
    assert set(facts["share_inside"]) == {NET, "coarse"}
    assert all(0 <= share <= 1 for share in facts["share_inside"].values())
    assert (out / "attention.png").stat().st_size > 10_000
    info = json.loads((out / "attention.json").read_text("utf-8"))
    assert (
        len({column["defect"] for column in info["columns"]}) == 6
    )  # each kind of flaw before a second of one
    assert all("/train/good/" in column["normal"] for column in info["columns"])
    with np.load(out / "attention.npz", allow_pickle=False) as held:
        maps, masks = held["maps"].astype(np.float64), held["masks"]
    assert maps.shape == (2, 7, 64, 64)
    assert np.allclose(maps.max((2, 3)), 1)
    inside = (maps * masks).sum((2, 3)) / maps.sum((2, 3))
    told = [
        [column["looks"][label]["share_inside"] for column in info["columns"]]
        for label in info["representations"]
    ]
    assert np.allclose(inside, told, atol=2e-3)
    assert run_cli(*arguments, "-o", out)[0] == 2  # it is there already


def test_nearest_is_the_twin(tiny_planted: Samples, tmp_path: Path) -> None:
    """A flawed image that stands among the good ones too is nearest to itself, and nothing sets it apart."""
    flawed = tiny_planted.test.anomalous.take([0, 5])
    twins = flawed.table.with_columns(
        pl.lit(0, dtype=pl.Int8).alias("label"), pl.lit("good").alias("defect"), mask=pl.lit(None, pl.String)
    )
    good = Samples(pl.concat([tiny_planted.train.table, twins]))
    info, errors = compare_attention([NET], good, flawed, tmp_path / "out", image_size=(64, 64))
    assert [column["normal"] for column in info["columns"]] == flawed.paths
    assert all(column["looks"][NET]["similarity"] > 1 - 1e-5 for column in info["columns"])
    assert not errors


def test_only_its_own_category_is_compared(tiny_planted: Samples, tmp_path: Path) -> None:
    flawed = tiny_planted.test.anomalous.take([0])
    other = Samples(tiny_planted.train.table.with_columns(category=pl.lit("bolt")))
    with pytest.raises(EmptyData, match="no good image of capsule"):
        compare_attention([NET], other, flawed, tmp_path / "out", image_size=(64, 64))


def test_spread_out_is_seeded(tiny_planted: Samples) -> None:
    flawed = tiny_planted.test.anomalous
    assert spread_out(flawed, 4, 1).paths == spread_out(flawed, 4, 1).paths
    assert spread_out(flawed, 4, 1).paths != spread_out(flawed, 4, 2).paths
    assert len(spread_out(flawed, 100, 0)) == len(flawed)


def test_refusals(tiny_planted: Samples, tmp_path: Path, run_cli: Cli) -> None:
    data = Path(tiny_planted.paths[0]).parents[3]
    named = ("--dataset", "mvtec", "--image-size", "64", "-o", tmp_path / "out")
    for arguments, sentence in (
        ((data, *named), "--representation NAME"),
        ((data, *named, "--representation", NET, "--level", 4), "level 4 is not one of them"),
        ((data, *named, "--representation", NET, "--count", 0), "at least 1"),
        ((data, *named, "--representation", NET, "--image-size", "big"), "448,192"),
        ((data, *named, "--representation", NET, "--image-size", 7), "8 to 8192 pixels"),
        ((data, *named, "--representation", NET, "--image-size", 99999999), "8 to 8192 pixels"),
        (
            (data, *named, "--representation", f"X={NET}", "--representation", f"X={NET}"),
            "a label of its own",
        ),
        (
            (data / "capsule" / "train" / "good", "-o", tmp_path / "out", "--representation", NET),
            "no flawed images",
        ),
    ):
        code, _, said = run_cli("attention", *arguments)
        assert code == 2, arguments
        assert sentence in said
    assert not (tmp_path / "out").exists()
