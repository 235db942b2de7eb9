"""The published tables: schema, the papers' own arithmetic, and numbers read off the papers by hand."""

from __future__ import annotations

import polars as pl
import pytest

from kizu import papers, registry
from kizu.errors import UnknownName
from kizu.papers.base import COSTS, DEFINITIONS, SCHEMA, TEXTURES, averages

NAMES = ["adpretrain", "fewshot_contrastive", "recontrast", "spd"]
METRICS = {
    "image_auroc",
    "image_ap",
    "pixel_auroc",
    "pixel_ap",
    "aupro_0.3",
    "image_f1_max_oracle",
    "image_accuracy_oracle",
    "loco_auroc_structural",
    "loco_auroc_logical",
    "loco_auroc_mean",
}
PROTOCOLS = {
    *("one_class", "two_class", "few_shot", "imbalanced", "unified", "reference_sensitivity"),
    *("sample_efficiency share=0.1", "noisy ratio=0.1 overlap"),
}


def one(frame: pl.DataFrame, **where: object) -> float:
    for column, value in where.items():
        frame = frame.filter(pl.col(column) == value)
    assert frame.height == 1, frame
    return float(frame["value"][0])


def test_the_room_holds_the_four_papers() -> None:
    assert registry.names("papers") == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_schema_and_plausibility(name: str) -> None:
    frame = getattr(papers, name)()
    assert frame.columns == ["paper", "source", *SCHEMA]
    costs = frame.filter(pl.col("metric").is_in(COSTS))
    assert set(costs["dataset"]) | set(costs["protocol"]) | set(costs["detector"]) <= {"none"}
    frame = frame.filter(~pl.col("metric").is_in(COSTS))
    assert frame.height > 250
    assert frame["value"].is_between(0, 100).all()
    assert set(frame["metric"]) <= METRICS
    assert set(frame["protocol"]) <= PROTOCOLS
    for column in ("paper", "source", "table", "row", "metric", "value", "dataset", "protocol", "detector"):
        assert frame[column].null_count() == 0, column
    few = frame.filter(pl.col("protocol").is_in(["few_shot", "imbalanced"]) & pl.col("shots").is_null())
    assert few["note"].fill_null("").str.contains("does not say how many shots").all()
    assert set(frame["selection"]) <= {"last", "best_on_test", None}
    assert set(frame["variant"]) <= {*registry.names("metrics"), "aupro_dilated", None}
    assert set(frame["metric"]) <= set(DEFINITIONS)
    keys = ["table", "row", "metric", "dataset", "category", "shots", "backbone", "weights"]
    assert frame.select(keys).is_unique().all(), "one line per printed number"
    assert frame["source"].str.contains("Table").all()


@pytest.mark.parametrize("name", NAMES)
def test_printed_averages_are_the_means_of_their_rows_or_carry_a_note(name: str) -> None:
    table = averages(getattr(papers, name)())
    two_digits = (
        pl.when(pl.col("table").is_in(["A2"]) | (pl.lit(name) == "fewshot_contrastive"))
        .then(0.0101)
        .otherwise(0.0501)
    )
    wrong = table.filter((pl.col("printed") - pl.col("recomputed")).abs() > two_digits)
    right = table.join(
        wrong, on=["table", "row", "metric", "dataset", "shots", "category"], how="anti", nulls_equal=True
    )
    assert wrong.filter(~pl.col("note").fill_null("").str.contains("inconsistent in the paper")).is_empty(), (
        wrong
    )
    assert right.filter(pl.col("note").fill_null("").str.contains("inconsistent")).is_empty()


def test_how_many_averages_are_checked_and_how_many_papers_slip() -> None:
    checked = {name: averages(getattr(papers, name)()) for name in NAMES}
    assert {name: t.height for name, t in checked.items()} == {
        "recontrast": 33,
        "fewshot_contrastive": 31,
        "adpretrain": 0,
        "spd": 32,
    }
    slips = {n: t["note"].fill_null("").str.contains("inconsistent").sum() for n, t in checked.items()}
    assert slips == {"recontrast": 5, "fewshot_contrastive": 11, "adpretrain": 0, "spd": 0}


def test_recontrast_prints_the_last_iteration() -> None:
    """Table 6 has both; Tables 2 and A4 print its last figures. Only what Table 6 calls best is an oracle."""
    ladder = papers.recontrast("6")
    where = {"metric": "aupro_0.3", "dataset": "mvtec"}
    assert one(ladder, row="Ours (last)", **where) == 95.20
    assert one(ladder, row="Ours (best)", **where) == 95.29
    assert one(papers.recontrast("2"), row="Ours", metric="aupro_0.3", category="mean") == 95.2
    assert one(papers.recontrast("A4"), row="alpha = 1", metric="aupro_0.3") == 95.20
    assert one(papers.recontrast("A4"), row="alpha = -inf", metric="aupro_0.3") == one(
        ladder, row="Config.E (last)", **where
    )
    everything = papers.recontrast()
    best = everything.filter(pl.col("selection") == "best_on_test")
    assert set(best["table"]) == {"6"}
    assert best["row"].str.ends_with("(best)").all()
    own = everything.filter(pl.col("row").str.starts_with("Ours") & ~pl.col("row").str.ends_with("(best)"))
    assert set(own["selection"]) == {"last"}


def test_recontrast_segmentation_by_category_averages_to_table_2() -> None:
    """Table A1 is by category, Table 2 has its averages; of the objects the AUPRO is lost in part."""
    table, printed = papers.recontrast("A1"), papers.recontrast("2")
    assert one(table, category="screw", metric="pixel_auroc") == 99.6
    assert one(table, category="carpet", metric="aupro_0.3") == 97.9
    for metric, textures in (("pixel_auroc", True), ("pixel_auroc", False), ("aupro_0.3", True)):
        part = table.filter((pl.col("metric") == metric) & (pl.col("category").is_in(TEXTURES) == textures))
        want = one(
            printed, row="Ours", metric=metric, category="mean_textures" if textures else "mean_objects"
        )
        assert part["value"].mean() == pytest.approx(want, abs=0.0501)
    assert table.filter(pl.col("metric") == "aupro_0.3").height == 8


def test_recontrast_on_loco() -> None:
    table = papers.recontrast("A7")
    assert one(table, row="Ours", metric="loco_auroc_structural") == 90.7
    assert one(table, row="GCAD", metric="loco_auroc_logical") == 86.0
    for row in table["row"].unique():
        kinds = [one(table, row=row, metric=f"loco_auroc_{kind}") for kind in ("structural", "logical")]
        assert one(table, row=row, metric="loco_auroc_mean") == pytest.approx(sum(kinds) / 2, abs=0.0501)


def test_recontrast_numbers() -> None:
    table = papers.recontrast("table1")
    screws = {row: one(table, row=row, category="screw") for row in ("PatchCore", "PaDiM", "RD4AD", "Ours")}
    assert screws == {"PatchCore": 98.1, "PaDiM": 85.8, "RD4AD": 97.0, "Ours": 98.0}
    assert one(papers.recontrast("A2"), category="screw", metric="aupro_0.3") == 98.50
    assert papers.recontrast("A2").filter(pl.col("category") == "screw")["spread"].to_list() == [
        0.14,
        0.02,
        0.07,
    ]
    assert one(papers.recontrast("2"), row="PatchCore", metric="aupro_0.3", category="mean") == 93.4


def test_recontrast_tables_agree_with_each_other() -> None:
    """Table 3 prints the averages of the twelve categories of Table A3; Table A2 (three seeds) averages close
    to Tables 1 and 2."""
    parts = papers.recontrast("A3").group_by("metric").agg(pl.col("value").mean())
    for metric, mean in parts.iter_rows():
        assert one(papers.recontrast("3"), row="Ours", metric=metric) == pytest.approx(mean, abs=0.0501)
    for metric, table in (("image_auroc", "1"), ("pixel_auroc", "2"), ("aupro_0.3", "2")):
        single = one(papers.recontrast(table), row="Ours", metric=metric, category="mean")
        assert one(papers.recontrast("A2"), metric=metric, category="mean") == pytest.approx(single, abs=0.15)


def test_recontrast_ladder_and_medical_numbers() -> None:
    ladder = papers.recontrast("6")
    assert one(ladder, row="Config.C+cp (last)", metric="image_auroc", dataset="mvtec") == 97.59
    assert one(ladder, row="Config.D (best)", metric="aupro_0.3") == 87.38
    assert one(ladder, row="Ours (last)", dataset="aptos") == one(
        papers.recontrast("5"), row="Ours", dataset="aptos", metric="image_auroc"
    )
    assert one(papers.recontrast("A6"), row="Ours, 3 trained only", dataset="aptos") == 97.73
    assert one(papers.recontrast("A5"), row="RD4AD", backbone="resnet18", metric="aupro_0.3") == 91.2
    assert one(papers.recontrast("4"), row="UniAD", category="screw") == 87.5


def test_fewshot_numbers() -> None:
    table = papers.fewshot_contrastive("2")
    assert table.height == 6 * 9
    assert one(table, row="Ours (w/o np)", dataset="magnetic_tile", shots=10) == 61.93
    assert one(table, row="DeepSVDD", dataset="aitex", shots=50) == 80.07
    lost = papers.fewshot_contrastive("1").filter((pl.col("row") == "Ours (w/ np)") & (pl.col("shots") == 2))
    assert lost["category"].to_list() == ["mean"], "the row with a lost category holds its average only"


def test_fewshot_table_1_is_whole() -> None:
    """16 numbers a row, but for the averages copied from elsewhere and the row that lost a category."""
    rows = papers.fewshot_contrastive("1").group_by("row", "shots").len().filter(pl.col("len") != 16)
    short = {("DiffNet*", 5), ("DiffNet*", 10), ("TDG*", 5), ("TDG*", 10), ("Ours (w/ np)", 2)}
    assert {(row, shots) for row, shots, _ in rows.rows()} == short
    ten = papers.fewshot_contrastive("1").filter(pl.col("shots") == 10)
    assert ten["row"].n_unique() == 10
    assert one(ten, row="CutPaste", category="leather") == 99.50
    assert one(ten, row="Ours (w/ np)", category="mean") == 82.71


def test_fewshot_superclasses_are_those_of_the_data_set() -> None:
    from kizu.datasets.cifar100_c import SUPERCLASSES

    four = papers.fewshot_contrastive("4").filter(pl.col("row") == "CutPaste")
    assert four["category"].to_list() == [*SUPERCLASSES, "mean"]
    assert four["note"][17] == "printed as Sup.Cls. 17; taken for the superclass with this label"


def test_fewshot_contradictions_carry_a_note() -> None:
    five, six = papers.fewshot_contrastive("5"), papers.fewshot_contrastive("6")
    notes = [
        five.filter(pl.col("value") == 73.68)["note"][0],
        six.filter(pl.col("value") == 76.29)["note"][0],
    ]
    assert ["72.27" in notes[0], "62.97" in notes[1]] == [True, True]
    assert one(papers.fewshot_contrastive("3"), row="Ours (w/o np)", category="mean") == 72.27


def test_fewshot_tables_agree_with_each_other() -> None:
    six = papers.fewshot_contrastive("6").filter(pl.col("row") == "Ours (w/o np)")
    for dataset, value in six.select("dataset", "value").iter_rows():
        assert one(papers.fewshot_contrastive("2"), row="Ours (w/o np)", dataset=dataset, shots=5) == value


def test_fewshot_ablation_backbone_and_imbalance() -> None:
    """The full method of Table 5 is the average of Table 3; Tables 7 and 8 as printed."""
    five = papers.fewshot_contrastive("5")
    assert one(five, row="random weights") == 52.54
    full = one(papers.fewshot_contrastive("3"), row="Ours (w/ np)", category="mean")
    assert one(five, row="contrastive, positive and negative pairs") == full == 74.56
    assert papers.fewshot_contrastive("4").height == 3 * 21
    assert (
        one(papers.fewshot_contrastive("4"), row="Ours (w/ np)", category="large_man-made_outdoor_things")
        == 81.17
    )
    assert (
        one(papers.fewshot_contrastive("7"), row="contrastive, positive pairs", backbone="resnet101") == 86.65
    )
    eight = papers.fewshot_contrastive("8")
    assert set(eight["protocol"]) == {"imbalanced"}
    assert (one(eight, row="Ours, 50 anomalies"), one(eight, row="AE, 20 anomalies")) == (80.72, 76.83)


def test_spd_by_category_agrees_with_table_4() -> None:
    """Tables 12 to 14 print by category what Table 4 averages over VisA; Table 3 is the high-shot side."""
    names = {"Supervised": "Sup. pre-train", "Supervised +SPD": "Sup. pre-train+SPD"}
    four = papers.spd("4")
    for number, kind, shots in (("12", "image", 10), ("13", "pixel", 5), ("14", "pixel", 10)):
        table = papers.spd(number)
        assert table.height == 4 * 13 * 2
        for row in ("SimSiam", "SimSiam +SPD", "Supervised", "Supervised +SPD"):
            for metric in (f"{kind}_ap", f"{kind}_auroc"):
                mean = one(table, row=row, metric=metric, category="mean")
                assert mean == one(four, row=names.get(row, row), metric=metric, shots=shots)
    assert one(papers.spd("14"), row="Supervised +SPD", category="pipe_fryum", metric="pixel_ap") == 53.3
    restored = papers.spd("12").filter(pl.col("note").fill_null("").str.contains("restored"))
    assert restored.height == 6
    assert one(papers.spd("3"), row="SimSiam +SPD", metric="pixel_ap") == 59.7
    assert one(papers.spd("3"), row="Sup. pre-train", metric="image_auroc") == 99.5


def test_variants_are_those_of_each_papers_code() -> None:
    def variants(frame: pl.DataFrame, metric: str) -> set[str | None]:
        return set(frame.filter(pl.col("metric") == metric)["variant"])

    assert variants(papers.spd(), "image_ap") == {"trapezoid_au_pr"}
    assert variants(papers.spd(), "pixel_auroc") == {"spot_diff_pixel_202"}
    own = papers.recontrast().filter(pl.col("row").str.starts_with("Ours"))
    assert variants(own, "aupro_0.3") == {"aupro_per_image"}
    assert variants(papers.recontrast("2").filter(pl.col("row") != "Ours"), "aupro_0.3") == {None}
    assert variants(papers.adpretrain("1"), "aupro_0.3") == {"aupro_200_thresholds", "aupro_dilated"}
    for name in NAMES:
        assert variants(getattr(papers, name)(), "image_auroc") == {"auroc"}


def test_spd_numbers_and_cross_check() -> None:
    assert one(papers.spd("2"), row="SimSiam +SPD", metric="image_auroc", dataset="mvtec") == 88.0
    assert one(papers.spd("6"), row="Sup. pre-train", metric="pixel_ap", dataset="visa") == 38.4
    five, two = papers.spd("5"), papers.spd("2")
    for metric in ("image_ap", "image_auroc", "pixel_ap", "pixel_auroc"):
        for dataset in ("visa", "mvtec"):
            same = {"metric": metric, "dataset": dataset}
            assert one(five, row="+SPD (eta = 0.1)", **same) == one(two, row="SimSiam +SPD", **same)
            assert one(five, row="SimSiam w/ Res50", **same) == one(two, row="SimSiam", **same)
    for row, other in (("SimSiam", "SimSiam"), ("Supervised +SPD", "Sup. pre-train+SPD")):
        mean = one(papers.spd("7"), row=row, category="mean", metric="image_auroc")
        assert one(two, row=other, dataset="visa", metric="image_auroc") == pytest.approx(mean, abs=0.0501)


def test_adpretrain_numbers() -> None:
    table = papers.adpretrain("1")
    assert table.height == 25 * 6 * 2 * 2
    where = {"dataset": "mvtec", "backbone": "imagebind", "metric": "image_auroc"}
    assert (one(table, row="PatchCore", **where), one(table, row="PatchCore†", **where)) == (98.5, 98.9)
    assert (
        one(papers.adpretrain("5"), row="FeatureNorm (ours)", dataset="visa", metric="aupro_0.3", shots=4)
        == 89.3
    )


def test_an_unknown_table_lists_those_held() -> None:
    with pytest.raises(UnknownName, match=r"no table of recontrast named '99'.*A2"):
        papers.recontrast("99")
