"""The HTML report: complete, self-contained, escaped, honest about what is missing."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from kizu import reports
from kizu.errors import LayoutError, UsageError
from kizu.reports._page import photo_uri
from kizu.reports._run import open_run, worst_first
from kizu.reports._words import wilson

Make = Callable[..., Path]
VOID = {"meta", "img", "br", "rect", "line", "circle", "polyline", "link", "input"}


class Page(HTMLParser):
    """Checks that tags balance and collects attributes, table cells and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: list[list[str]] = []
        self.scripts = 0
        self.seen_text = ""
        self.feed(text)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.scripts += tag == "script"
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.seen_text += data
        if "tr" in self.open and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


def page_of(folder: Path, **options: Any) -> Page:
    text = reports.html(folder, **options).read_text("utf-8")
    check_self_contained(text)
    return Page(text)


def check_self_contained(text: str) -> None:
    assert not re.search(r"https?:", text), "no address of another machine anywhere"
    page = Page(text)
    for _, name, value in page.attributes:
        if name in ("src", "href", "srcset", "poster", "data"):
            assert value.startswith("data:image/"), value[:60]
        assert not name.startswith("on"), f"inline handler {name}"
    assert "@import" not in text
    assert not re.search(r"url\(", text)
    assert page.scripts == 1
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(value for value in page.values("content") if value.startswith("default-src 'none'"))
    assert f"'sha256-{digest}'" in policy, "the only script that may run is this one"
    for tag, alternatives in (("img", page.values("alt")),):
        assert all(alternatives), f"{tag} without alternative text"
    assert page.values("lang") == ["en"]


def test_says_what_was_measured(make_run: Make) -> None:
    folder = make_run(good=8, defects={"scratch": 6, "rust": 3})
    samples = pl.read_parquet(folder / "samples.parquet")
    alarms = samples.filter((pl.col("label") == 0) & pl.col("is_anomalous")).height
    found = samples.filter((pl.col("label") == 1) & pl.col("is_anomalous")).height
    page = page_of(folder)
    text = page.seen_text
    assert f"Of 8 good parts, {alarms or 'none'} w" in text
    assert f"Of 9 flawed parts, {found} were found" in text
    assert "promised: at most 5\N{NO-BREAK SPACE}%" in text
    assert "trained on 250 good images (washers, m8)" in text
    assert "AUPRO (FPR ≤ 0.3)" in text
    assert "F1 max (oracle)" in text
    rows = {row[0]: row[1:] for row in page.rows}
    assert rows["image"] == ["0.963", "0.971", "", "0.934"], "image AUPRO does not exist: empty, not zero"
    assert rows["pixel"] == ["0.981", "0.612", "0.923", "0.599"]
    scratched = samples.filter(pl.col("defect") == "scratch")
    assert rows["scratch"] == ["6", str(scratched["is_anomalous"].sum()), "0.950"]
    assert page.values("class").count("chart") == 5
    assert page.values("class").count("chart hist") == 1


def test_names_from_strangers_are_text(make_run: Make) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>.png"
    info = {
        "name": f"run {evil}",
        "category": evil,
        "command": evil,
        "notes": [evil],
        "errors": [{"path": evil, "reason": evil}],
        "parameters": {evil: evil},
    }
    folder = make_run(good=1, defects={evil: 2}, info=info, names=lambda i: f"{i}{evil}")
    page = page_of(folder)
    assert page.scripts == 1
    assert not [value for tag, name, value in page.attributes if tag == "img" and name == "onerror"]
    assert "<script>alert(1)</script>" in page.seen_text, "shown as it is spelt"


def test_unicode_names(make_run: Make) -> None:
    folder = make_run(
        good=1, defects={"傷": 1}, info={"name": "螺子 M8 – øæå"}, names=lambda i: f"部品{i}_ñ.png"
    )
    text = page_of(folder).seen_text
    assert "螺子 M8 – øæå" in text
    assert "部品0_ñ.png" in text
    assert "傷" in text


def test_without_pixel_metrics_their_cells_are_empty(make_run: Make) -> None:
    page = page_of(make_run(pixel=False))
    rows = {row[0]: row[1:] for row in page.rows}
    assert rows["pixel"] == ["", "", "", ""]
    assert page.values("class").count("chart") == 2


def test_without_calibration_there_are_scores_but_no_decisions(make_run: Make) -> None:
    page = page_of(make_run(calibrated=False))
    text = page.seen_text
    assert "not calibrated" in text
    assert (
        "false alarm"
        not in text.lower().replace("rate", "").partition("Images")[2].partition("What was run")[0]
    )
    assert "p-value" not in text
    assert {row[0]: row[2] for row in page.rows if row[0] in ("scratch", "rust")} == {
        "scratch": "",
        "rust": "",
    }
    assert "threshold 3" not in text


def test_without_flawed_images(make_run: Make) -> None:
    page = page_of(make_run(defects={}))
    assert "The test holds no flawed parts" in page.seen_text
    rows = {row[0]: row[1:] for row in page.rows}
    assert rows["image"] == ["", "", "", ""]


def test_without_good_images(make_run: Make) -> None:
    text = page_of(make_run(good=0)).seen_text
    assert "Of 6 flawed parts" in text
    assert "good parts" not in text.partition("The patchcore")[0]


def test_one_image_and_none(make_run: Make, tmp_path: Path) -> None:
    folder = make_run(good=1, defects={})
    page_of(folder)
    empty = pl.read_parquet(folder / "samples.parquet").clear()
    empty.write_parquet(folder / "samples.parquet")
    assert "The run holds no test images" in page_of(folder).seen_text


def test_missing_optional_files_and_a_broken_thumbnail(make_run: Make) -> None:
    folder = make_run(info={"map_range": None, "calibration": None})
    for name in ("metrics.json", "curves.json", "maps.npz"):
        (folder / name).unlink()
    (folder / "images" / "0.jpg").write_bytes(b"not an image")
    (folder / "images" / "1.jpg").unlink()
    text = page_of(folder).seen_text
    assert "no map kept" in text
    assert "no image was kept" in text


def test_seen_errors_and_notes_are_shown(make_run: Make) -> None:
    info = {"seen": True, "notes": ["two cameras"], "errors": [{"path": "a/b.png", "reason": "truncated"}]}
    text = page_of(make_run(info=info)).seen_text
    for said in ("Seen:", "two cameras", "Files not used (1)", "a/b.png", "truncated"):
        assert said in text
    assert "Seen:" not in page_of(make_run(info={"seen": False})).seen_text


def test_limit_states_what_is_left_out(make_run: Make) -> None:
    folder = make_run(good=6, defects={"scratch": 6})
    text = page_of(folder, limit=5).seen_text
    assert "7 of 12 test images are not shown" in text
    with pytest.raises(UsageError, match="limit >= 1"):
        reports.html(folder, limit=0)


@pytest.mark.slow
def test_two_hundred_noisy_images_stay_under_eight_megabytes(make_run: Make, tmp_path: Path) -> None:
    """Thumbnails of pure noise, the worst that can be compressed."""
    folder = make_run(good=2, defects={"scratch": 2})
    samples = pl.read_parquet(folder / "samples.parquet")
    many = pl.concat([samples] * 50).with_columns(pl.Series("row", range(200), dtype=pl.Int64))
    many.write_parquet(folder / "samples.parquet")
    rng = np.random.default_rng(0)
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)).save(stream, "JPEG", quality=90)
    heat = rng.normal(2, 1, (64, 64)).astype(np.float16)
    np.savez_compressed(folder / "maps.npz", scale=np.float32(1), **{str(row): heat for row in range(200)})
    for row in range(200):
        (folder / "images" / f"{row}.jpg").write_bytes(stream.getvalue())
    assert page_of(folder, longest=160).seen_text.count("heat map") >= 200
    assert (folder / "report.html").stat().st_size < 8e6


def test_a_image_keeps_to_its_budget() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    sizes = [len(photo_uri(noise, budget)) * 3 / 4 for budget in (10**6, 7000)]
    assert sizes[1] < 7100 < sizes[0]


def test_writes_whole_files_only(make_run: Make, tmp_path: Path) -> None:
    folder = make_run()
    target = reports.html(folder, tmp_path / "new" / "r.html")
    assert target == tmp_path / "new" / "r.html"
    assert [p.name for p in target.parent.iterdir()] == ["r.html"]
    old = target.read_text("utf-8")
    (folder / "metrics.json").write_text("{broken")
    with pytest.raises(LayoutError, match=r"metrics\.json is damaged"):
        reports.html(folder, target)
    assert target.read_text("utf-8") == old


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"has no run\.json"):
        reports.html(tmp_path)


def test_pickled_maps_are_refused(make_run: Make) -> None:
    folder = make_run(good=1, defects={})
    np.savez(folder / "maps.npz", **{"0": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(LayoutError, match="allow_pickle"):
        reports.html(folder)
    (folder / "maps.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(LayoutError, match=r"maps\.npz is damaged"):
        reports.html(folder)
    np.savez(folder / "maps.npz", **{"0": np.zeros(3, dtype=np.float16)})
    with pytest.raises(LayoutError, match=r"shape \(3,\)"):
        reports.html(folder)


def test_worst_first() -> None:
    """Order by hand: false alarms from the top, misses from the bottom, in turn; then the rest by distance to
    the threshold."""
    scores = [9.0, 4.0, 1.0, 2.5, 8.0, 3.1, 0.1]
    labels = [0, 0, 1, 1, 1, 1, 0]
    assert _order(scores, labels, [s > 3.0 for s in scores]) == [0, 2, 1, 3, 5, 6, 4]


def test_worst_first_without_decisions_ranks_by_inversions() -> None:
    """Good 5.0 lies above both flawed (1, 2), flawed 1.0 below both good (0.5? no: 5.0 only)."""
    scores, labels = [5.0, 0.5, 1.0, 2.0], [0, 0, 1, 1]
    assert _order(scores, labels, [None] * 4)[0] == 0
    assert _order(scores, labels, [None] * 4)[-1] == 1


def _order(scores: list[float], labels: list[int], called: list[Any]) -> list[int]:
    import tempfile

    frame = pl.DataFrame(
        {"row": range(len(scores)), "image": "x", "label": labels, "score": scores, "is_anomalous": called},
        schema_overrides={"is_anomalous": pl.Boolean},
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frame.write_parquet(folder / "samples.parquet")
        (folder / "run.json").write_text('{"calibration": {"threshold": 3.0, "false_alarm_rate": 0.1}}')
        with open_run(folder) as run:
            return worst_first(run)["row"].to_list()


def test_maps_come_back_raw(make_run: Make) -> None:
    folder = make_run(good=1, defects={})
    with np.load(folder / "maps.npz") as file, open_run(folder) as run:
        heat = run.heat(0)
        assert heat is not None
        np.testing.assert_array_equal(heat, file["0"].astype(np.float32) / 4)
        assert run.heat(99) is None


def test_wilson_interval_against_published_values() -> None:
    """Newcombe (1998), Table I: 81 of 263 -> 0.2553 to 0.3662; 0 of 20 -> 0 to 0.1611; 1 of 29 -> 0.0061 to
    0.1718."""
    for hits, n, low, high in ((81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)):
        assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)
