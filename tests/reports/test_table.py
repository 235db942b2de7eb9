"""The experiment table: means, spreads, empty cells, published rows and charts."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from kizu import papers, reports
from kizu.errors import DataError, OutputExists, UnknownName
from kizu.reports import _svg


def run(detector: str, category: str, seed: int, value: float | None, **changes: Any) -> dict[str, Any]:
    made = {
        "representation": "wide_resnet50_2",
        "detector": detector,
        "dataset": "mvtec",
        "category": category,
        "protocol": "one_class",
    }
    return {**made, "shots": None, "seed": seed, "weights": "imagenet", "image_auroc": value, **changes}


RUNS = [
    *(run("patchcore", "screw", seed, value) for seed, value in enumerate((0.96, 0.97, 0.99))),
    *(run("patchcore", "tile", seed, value) for seed, value in enumerate((0.98, 0.99, 1.0))),
    run("padim", "screw", 0, 0.85),
    run("padim", "tile", 0, None),
]


def cells(text: str, start: str) -> list[str]:
    line = next(line for line in text.splitlines() if start in line)
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_mean_spread_and_empty_cells() -> None:
    text = reports.table(pl.DataFrame(RUNS))
    row = cells(text, "| patchcore |")
    spread = 100 * statistics.stdev([0.96, 0.97, 0.99])
    assert row[-3] == f"97.3 ± {spread:.1f} (3)"
    means = [(a + b) / 2 for a, b in ((0.96, 0.98), (0.97, 0.99), (0.99, 1.0))]
    assert row[-1] == f"{100 * statistics.mean(means):.1f} ± {100 * statistics.stdev(means):.1f} (3)"
    assert cells(text, "| padim |")[-3:] == ["85.0", "", ""], (
        "not run: empty, and no mean over what is not complete"
    )


def test_reads_csv_and_writes_files(tmp_path: Path) -> None:
    pl.DataFrame(RUNS).write_csv(tmp_path / "runs.csv")
    text = reports.table(
        tmp_path / "runs.csv",
        out=tmp_path / "t.md",
        plot=tmp_path / "t.png",
        published=papers.recontrast("A2"),
    )
    assert (tmp_path / "t.md").read_text("utf-8") == f"<!-- written by kizu -->\n\n{text}"
    with Image.open(tmp_path / "t.png") as image:
        assert image.width > 800
    assert text.startswith("image_auroc")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runs.csv", "t.md", "t.png"]
    reports.table(tmp_path / "runs.csv", out=tmp_path / "t.md", plot=tmp_path / "t.png")  # its own: replaced
    with pytest.raises(OutputExists, match="kizu did not write it"):
        reports.table(tmp_path / "runs.csv", out=tmp_path / "runs.csv")


def test_published_rows_say_why_they_are_not_comparable() -> None:
    text = reports.table(
        pl.DataFrame([*RUNS, run("recontrast", "screw", 0, 0.97)]), published=papers.recontrast("1")
    )
    comparable, apart = text.split("Published, not comparable:")
    assert cells(comparable, "| Ours (wide_resnet50_2) |")[1] == "98.0", (
        "the last iteration, as Table 6 tells"
    )
    text = apart
    assert cells(text, "| PatchCore |")[-2] == "weights not stated by the paper"
    assert cells(text, "| PatchCore |")[1:3] == ["98.1", "98.7"]
    assert cells(text, "| DRAEM |")[-2].startswith("detector: draem; here: padim, patchcore, recontrast")
    assert "NeurIPS 2023, Table 1" in cells(text, "| PaDiM |")[-1]


def test_the_best_step_on_the_test_set_is_not_comparable() -> None:
    ours = [run("recontrast", category, 0, 0.97) for category in ("screw", "tile")]
    printed = papers.recontrast("6").filter(pl.col("row").str.starts_with("Ours"))
    printed = printed.with_columns(pl.lit("screw").alias("category"))
    text = reports.table(pl.DataFrame(ours), published=printed)
    comparable, apart = text.split("Published, not comparable:")
    assert cells(comparable, "| Ours (last) (wide_resnet50_2) |")[1] in ("99.4", "99.5")
    assert cells(apart, "| Ours (best) (wide_resnet50_2) |")[-2] == "best step chosen on the test set"


def test_only_the_same_variant_of_a_metric_is_comparable() -> None:
    """One run meets all other conditions of one published row: only the definition of the figure differs."""
    facts = {"representation": "resnet50@1,2,3", "weights": "imagenet simsiam", "dataset": "visa"}
    ours = [run("padim", category, 0, 0.8, **facts, image_ap=0.8) for category in ("pcb1", "candle")]
    published = papers.spd("7").filter(pl.col("row") == "SimSiam")
    same = reports.table(pl.DataFrame(ours), published=published)
    assert cells(same.split("Published, under the same")[1], "| SimSiam (resnet50) |")[1:3] == [
        "83.9",
        "85.4",
    ]
    assert "not comparable" not in same
    text = reports.table(pl.DataFrame(ours), metric="image_ap", published=published)
    assert "Published, under" not in text
    line = cells(text.split("Published, not comparable:")[1], "| SimSiam (resnet50) |")
    assert line[1:4] == ["81.1", "83.5", ""]
    assert line[-2] == "metric: trapezoid_au_pr; here: average_precision"


def test_aupro_by_the_image_is_not_comparable_with_that_of_the_data_set() -> None:
    ours = [run("recontrast", "screw", 0, 0.97) | {"aupro_0.3": 0.98}]
    printed = papers.recontrast("A2")
    text = reports.table(pl.DataFrame(ours), metric="aupro_0.3", published=printed)
    line = cells(text.split("Published, not comparable:")[1], "| Ours (wide_resnet50_2) |")
    assert (line[1], line[-2]) == ("98.5", "metric: aupro_per_image; here: aupro")
    exact = printed.with_columns(
        pl.when(pl.col("metric") == "aupro_0.3").then(pl.lit("aupro")).otherwise("variant").alias("variant")
    )
    text = reports.table(pl.DataFrame(ours), metric="aupro_0.3", published=exact)
    assert "not comparable" not in text
    assert cells(text.split("Published, under the same")[1], "| Ours (wide_resnet50_2) |")[1] == "98.5"
    unknown = papers.recontrast("2").with_columns(pl.lit("screw").alias("category")).unique(["row", "metric"])
    text = reports.table(pl.DataFrame(ours), metric="aupro_0.3", published=unknown)
    assert (
        "which variant of the metric the paper does not state; here: aupro"
        in cells(text, "| PatchCore |")[-2]
    )


@pytest.mark.parametrize(
    ("protocol", "reason"),
    [
        ("imbalanced", "shots not stated by the paper"),
        ("few_shot", "protocol: imbalanced; here: few_shot"),
    ],
)
def test_a_few_shot_row_without_shots_is_not_comparable(protocol: str, reason: str) -> None:
    ours = [run("gaussian", "", 0, 0.6, dataset="semicon", shots=10, protocol=protocol) | {"category": None}]
    text = reports.table(
        pl.DataFrame(ours, schema_overrides={"category": pl.String}),
        published=papers.fewshot_contrastive("8").filter(pl.col("detector") == "gaussian"),
    )
    assert cells(text, "| Ours, 5 anomalies (resnet18) |")[-2] == reason


def test_a_published_row_under_the_same_conditions_is_comparable() -> None:
    spread = papers.recontrast("A2")
    ours = [run("recontrast", "screw", 0, 0.97)]
    assert "Published, under the same" in reports.table(pl.DataFrame(ours), published=spread)
    for change, reason in (
        ({"protocol": "unified"}, "protocol: one_class; here: unified"),
        ({"shots": 10}, "shots: all good images; here: 10"),
        ({"weights": "dino"}, "weights: imagenet; here: dino"),
        ({"weights": None}, "weights not stated by these results"),
        ({"representation": "resnet18"}, "backbone: wide_resnet50_2; here: resnet18"),
    ):
        text = reports.table(pl.DataFrame([run("recontrast", "screw", 0, 0.97, **change)]), published=spread)
        assert f"| {reason} |" in text, text
        assert "Published, under" not in text


def test_parameters_that_vary_are_shown_and_no_others() -> None:
    small, large = '{"image_size": 224, "coreset": 0.1}', '{"image_size": 320, "coreset": 0.1}'
    ours = [
        run("patchcore", "screw", 0, 0.7, parameters=small),
        run("patchcore", "screw", 0, 0.8, parameters=large),
        run("padim", "screw", 0, 0.6, parameters=small),
    ]
    text = reports.table(pl.DataFrame(ours))
    assert cells(text, "| image_size=224 |")[-1] == "70.0"
    assert cells(text, "| image_size=320 |")[-1] == "80.0"
    assert cells(text, "| padim |")[2] == ""
    assert "coreset" not in text
    assert "| parameters |" not in reports.table(pl.DataFrame(ours[1:]))
    plain = run("padim", "screw", 0, 0.5, parameters="{}")
    text = reports.table(pl.DataFrame([*ours, plain]))
    assert cells(text, "| padim | coreset=0.1, image_size=224 |")[-1] == "60.0"
    assert cells(text, "| padim |  |")[-1] == "50.0", (
        "a parameter that is left out differs from one that is given"
    )


def test_no_category_means_one_column() -> None:
    ours = [
        run(
            "gaussian",
            "",
            0,
            0.6,
            dataset="magnetic_tile",
            shots=10,
            protocol="few_shot",
            representation="resnet18",
        )
        | {"category": None}
    ]
    text = reports.table(
        pl.DataFrame(ours, schema_overrides={"category": pl.String}),
        published=papers.fewshot_contrastive("2"),
    )
    assert "mean |" not in text.splitlines()[2]
    assert cells(text, "| DeepSVDD (resnet18, 5 shots) |")[1] == "54.8"


def test_errors_teach() -> None:
    frame = pl.DataFrame(RUNS)
    with pytest.raises(UnknownName, match="image_auroc"):
        reports.table(frame, metric="image_aurocc")
    with pytest.raises(DataError, match="lack the columns"):
        reports.table(frame.drop("seed"))
    with pytest.raises(DataError, match="twice with one seed"):
        reports.table(pl.concat([frame, frame]))
    with pytest.raises(DataError, match="not percent"):
        reports.table(frame.with_columns(pl.col("image_auroc") * 100))


def test_names_do_not_break_the_table() -> None:
    text = reports.table(pl.DataFrame([run("a|b\nc", "screw", 0, 0.5)]))
    assert "a\\|b c" in text


def test_histogram_counts_every_score() -> None:
    """The areas of the bars add up to the number of scores."""
    rng = np.random.default_rng(0)
    above, below = rng.normal(2, 1, 300), rng.normal(4, 1, 200)
    chart = str(_svg.histogram(list(above), list(below), ("good", "flawed"), 3.0))
    heights = {
        kind: sum(
            float(part.split('height="')[1].split('"')[0])
            for part in chart.split(f'<rect class="{kind}"')[1:]
        )
        for kind in ("good", "flawed")
    }
    assert heights["good"] / heights["flawed"] == pytest.approx(1.5, rel=0.02)
    assert "threshold 3" in chart
    assert _svg.histogram([], [], ("a", "b"), None) == ""
    assert "<rect" in _svg.histogram([1.0], [], ("a", "b"), None)
    assert "log scale" in _svg.histogram([1.0] * 9 + [500.0], [900.0], ("a", "b"), 2.0)
    assert "<rect" in _svg.histogram([1.0] * 9 + [500.0], [900.0], ("a", "b"), -1.0)
    assert "<rect" in _svg.histogram([float("nan"), 1.0, float("inf")], [2.0], ("a", "b"), 0.0)


def test_thinned_line_stays_within_its_tolerance() -> None:
    rng = np.random.default_rng(1)
    xs = np.sort(rng.random(4000)) * 200
    ys = np.cumsum(rng.random(4000)) / 20
    path = list(zip(xs.tolist(), ys.tolist(), strict=True))
    short = _svg.thin(path, 0.15)
    assert len(short) < len(path) / 3
    back = np.interp(xs, [x for x, _ in short], [y for _, y in short])
    assert np.abs(back - ys).max() < 0.6
    assert short[0] == path[0]
    assert short[-1] == path[-1]


def test_ticks_are_round_and_inside() -> None:
    assert _svg.ticks(0, 10, 5) == [0, 2, 4, 6, 8, 10]
    assert _svg.ticks(0.13, 0.41, 3) == [0.2, 0.3, 0.4]
    assert _svg.ticks(5, 5) == [5]
