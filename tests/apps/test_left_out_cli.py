"""Files that a command does not use: one line, exit code 1, in JSON and on the page too."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from trees import draw_image, mask

import kizu
from kizu.loader import masks_for

Cli = Callable[..., tuple[int, str, str]]
FAST = (
    *("--detector", "gaussian", "--representation", "random/resnet10t@1"),
    *("--set", "image_size=32"),
)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    for number in range(6):
        draw_image(tmp_path / "good" / f"{number}.png", number)
    return tmp_path / "good"


@pytest.fixture
def model(good: Path, run_cli: Cli) -> Path:
    path = good.parent / "m.kizu"
    assert run_cli("fit", good, *FAST, "-o", path)[0] == 0
    return path


def pages(path: Path) -> None:
    images = [Image.fromarray(np.full((12, 16), value, np.uint8)) for value in (9, 200)]
    images[0].save(path, save_all=True, append_images=images[1:])


def test_fit(good: Path, tmp_path: Path, run_cli: Cli) -> None:
    pages(good / "stack.tif")
    shutil.copy(good / "0.png", good / "copy")
    code, out, _ = run_cli("fit", good, *FAST, "-o", tmp_path / "a.kizu", "--json")
    result = json.loads(out)
    assert (code, result["images"]) == (1, 8)
    assert [entry["path"] for entry in result["skipped"]] == [f"{good / 'stack.tif'}, page 2"]
    code, _, err = run_cli("fit", good, *FAST, "-o", tmp_path / "b.kizu")
    assert code == 1
    assert sum(f"1 file not used: {good / 'stack.tif'}, page 2 (one of 2" in line for line in err.split("\n"))


@pytest.mark.parametrize("method", ["split", "cross", "none"])
def test_a_damaged_file_costs_exit_code_1_wherever_it_falls(
    good: Path, tmp_path: Path, method: str, run_cli: Cli
) -> None:
    """With every seed it is in the calibration share of some."""
    (good / "broken.png").write_bytes((good / "0.png").read_bytes()[:90])
    for seed in range(4):
        code, out, _ = run_cli(
            *("fit", good, *FAST, "--calibration", method, "--seed", seed, "--json"),
            *("-o", tmp_path / f"{seed}.kizu"),
        )
        skipped = [Path(entry["path"]).name for entry in json.loads(out)["skipped"]]
        assert (code, skipped) == (1, ["broken.png"])


def test_inspect(model: Path, tmp_path: Path, run_cli: Cli) -> None:
    parts = tmp_path / "parts"
    for name in ("a.png", "deep/b.png", "ground_truth/a.png", ".trash/c.png"):
        draw_image(parts / name)
    shutil.copy(parts / "a.png", parts / "noending")
    pages(parts / "stack.tif")
    (parts / "line").symlink_to(parts / "deep", target_is_directory=True)
    code, out, _ = run_cli("inspect", model, parts, "-o", parts / "inspected", "--json")
    rows = {Path(row["path"]).name: row["error"] for row in map(json.loads, out.splitlines())}
    assert code == 1
    assert [name for name, error in rows.items() if error is None] == [
        "a.png", "b.png", "noending", "stack.tif"
    ]  # fmt: skip
    assert "only the first is looked at" in rows["stack.tif, page 2"]
    page = (parts / "inspected" / "index.html").read_text("utf-8")
    assert "Files not used (1)" in page
    assert "stack.tif, page 2" in page
    code, _, err = run_cli("inspect", model, parts, "-o", parts / "again")
    assert code == 1
    assert "1 file not used: " in err
    for folder in (
        "ground_truth (a folder of masks)",
        ".trash (a hidden folder)",
        "inspected (kizu wrote it)",
    ):
        assert folder in err
    page = (parts / "again" / "index.html").read_text("utf-8")
    assert "Folders passed over (3)" in page
    for name, reason in (
        (".trash", "a hidden folder"),
        ("ground_truth", "a folder of masks"),
        ("inspected", "kizu wrote it"),
    ):
        assert f'<th scope="row">{parts / name}</th><td>{reason}</td>' in page
    kept = (parts / "again" / "results.jsonl").read_text("utf-8")
    assert len(kept.splitlines()) == 5, "panels are no parts"
    assert run_cli("inspect", model, parts, "-o", parts / "again", "--resume")[0] == 1
    assert (parts / "again" / "results.jsonl").read_text("utf-8") == kept
    code, _, err = run_cli("inspect", model, parts / "inspected", "-o", tmp_path / "x")
    assert (code, "kizu wrote it" in err) == (2, True)


def test_evaluate(model: Path, tmp_path: Path, run_cli: Cli) -> None:
    lab = tmp_path / "lab"
    for number in range(3):
        draw_image(lab / "test" / "good" / f"{number}.png", 20 + number)
    draw_image(lab / "test" / "bad" / "x.png", 40)
    mask(lab / "ground_truth" / "bad" / "x.png")
    draw_image(lab / "val" / "good" / "v.png", 50)
    code, out, _ = run_cli("evaluate", model, lab, "-o", tmp_path / "run", "--json")
    assert code == 1
    assert [entry["path"] for entry in json.loads(out)["errors"]] == [str(lab / "val" / "good" / "v.png")]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))["images"]["normal"] == 3
    assert "v.png" in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_figures_of_one_class_are_null_and_say_why(model: Path, tmp_path: Path, run_cli: Cli) -> None:
    for number in range(3):
        draw_image(tmp_path / "flawed" / "test" / "bad" / f"{number}.png", 20 + number)
        draw_image(tmp_path / "sound" / "good" / f"{number}.png", 30 + number)
    shutil.copytree(tmp_path / "good", tmp_path / "flawed" / "train" / "good")
    code, out, _ = run_cli("evaluate", model, tmp_path / "flawed", "-o", tmp_path / "a", "--json")
    figures = json.loads(out)
    assert (code, figures["image_auroc"], figures["false_alarm_rate"]) == (0, None, None)
    notes = json.loads((tmp_path / "a" / "run.json").read_text("utf-8"))["notes"]
    assert any("no good image" in note and "false-alarm rate" in note for note in notes)
    code, out, _ = run_cli("evaluate", model, tmp_path / "sound", "-o", tmp_path / "b", "--json")
    figures = json.loads(out)
    assert (code, figures["image_auroc"], figures["detection_rate"]) == (0, None, None)
    assert figures["false_alarm_rate"] is not None
    code, _, err = run_cli("evaluate", model, tmp_path / "flawed" / "test" / "bad", "-o", tmp_path / "c")
    assert code == 2
    assert "nothing says which are good" in err


def test_no_masks(model: Path, tmp_path: Path, run_cli: Cli) -> None:
    """A flawed image without a mask is an error, unless masks are left aside."""
    lab = tmp_path / "lab"
    for number in range(2):
        draw_image(lab / "good" / f"{number}.png", 20 + number)
        draw_image(lab / "bad" / f"{number}.png", 40 + number)
    mask(lab / "ground_truth" / "bad" / "0.png")
    command = ("evaluate", model, lab, "--json")
    code, _, err = run_cli(*command, "-o", tmp_path / "a")
    assert (code, "1 image without a mask: 1.png" in err) == (2, True)
    code, out, _ = run_cli(*command, "--no-masks", "-o", tmp_path / "b")
    figures = json.loads(out)
    assert (code, figures["pixel_auroc"], figures["errors"]) == (0, None, [])
    assert figures["image_auroc"] is not None
    code, _, err = run_cli(*command, "--no-masks", "--mask-rule", "half", "-o", tmp_path / "c")
    assert (code, "--mask-rule has no effect with --no-masks" in err) == (2, True)
    code, _, err = run_cli(*command, "--no-masks", "--dataset", "mvtec", "-o", tmp_path / "d")
    assert (code, "--no-masks is for the data set folder; mvtec" in err) == (2, True)


def test_a_csv_file_without_its_masks(tmp_path: Path) -> None:
    draw_image(tmp_path / "a.png")
    mask(tmp_path / "m.png")
    (tmp_path / "list.csv").write_text("image,mask,label\na.png,m.png,1\n")
    assert kizu.dataset("folder", tmp_path / "list.csv").table["mask"].to_list() == [str(tmp_path / "m.png")]
    samples = kizu.dataset("folder", tmp_path / "list.csv", use_masks=False)
    assert samples.table["mask"].to_list() == [None]
    assert samples.labels.tolist() == [1]


def test_mask_rule(model: Path, tmp_path: Path, run_cli: Cli) -> None:
    """The error's advice can be followed: class numbers 80 and 160, 28 + 12 pixels."""
    lab = tmp_path / "lab"
    for number in range(2):
        draw_image(lab / "good" / f"{number}.png", 20 + number)
    draw_image(lab / "bad" / "x.png", 40)
    values = np.zeros((12, 16), np.uint8)
    values[1:5, 1:8], values[7:10, 3:7] = 80, 160
    (lab / "mask").mkdir()
    Image.fromarray(values).save(lab / "mask" / "x.png")
    command = ("evaluate", model, lab, "-o", tmp_path / "run")
    code, _, err = run_cli(*command)
    assert (code, "--mask-rule nonzero" in err) == (2, True)
    assert run_cli("data", "check", "folder", lab)[0] == 1
    assert run_cli(*command, "--mask-rule", "nonzero", "--json")[0] == 0
    assert run_cli("data", "check", "folder", lab, "--mask-rule", "nonzero")[0] == 0
    with Image.open(next((tmp_path / "run" / "masks").iterdir())) as shown:  # at 32 x 32
        assert np.asarray(shown).astype(bool).mean() == pytest.approx(40 / 192, abs=0.02)
    code, _, err = run_cli(*command, "--mask-rule", "most", "--overwrite")
    assert (code, "'half', 'nonzero'" in err) == (2, True)
    samples = kizu.dataset("folder", lab, mask_rule="nonzero")
    assert int(masks_for(samples.anomalous, (12, 16)).sum()) == 40
    with pytest.raises(kizu.errors.UsageError, match="cannot be joined"):
        samples.concat(kizu.dataset("folder", lab))


def test_bench(tmp_path: Path, run_cli: Cli) -> None:
    for number in range(3):
        draw_image(tmp_path / "lab" / "good" / f"{number}.png", number)
        draw_image(tmp_path / "lab" / "bad" / f"{number}.png", 20 + number)
    pages(tmp_path / "lab" / "bad" / "stack.tif")
    file = tmp_path / "x.toml"
    file.write_text(
        f'[[dataset]]\nname = "folder"\npath = "{tmp_path / "lab"}"\n[[representation]]\n'
        'name = "random/resnet10t@1"\n[[detector]]\nname = "gaussian"\nparameters = { image_size = 32 }\n'
        '[[protocol]]\nname = "few_shot"\ngrid = { shots = [2] }\n'
    )
    for _ in range(2):
        code, out, _ = run_cli("bench", file, "-o", tmp_path / "out", "--json")
        result = json.loads(out)
        assert (code, result["failed"]) == (1, 0)
        assert [entry["path"] for entry in result["skipped"]] == [
            f"{tmp_path / 'lab' / 'bad' / 'stack.tif'}, page 2"
        ]


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Take permission from a folder; chmod would not hold for root, as which tests may run."""

    def close(folder: Path) -> None:
        allowed = os.access

        def access(path: str | Path, mode: int) -> bool:
            return Path(path) != folder and allowed(path, mode)

        monkeypatch.setattr(os, "access", access)

    return close


def test_a_folder_that_may_not_be_opened(
    good: Path, model: Path, tmp_path: Path, closed: Callable[[Path], None], run_cli: Cli
) -> None:
    draw_image(good / "more" / "a.png", 40)
    closed(good / "more")
    for command in (("fit", good, *FAST), ("inspect", model, good)):
        code, _, err = run_cli(*command, "-o", tmp_path / command[0])
        assert code == 1
        assert f"1 file not used: {good / 'more'}/ (a folder that may not be opened: permission den" in err


def test_an_output_that_may_not_be_written_is_found_before_the_work(
    good: Path, tmp_path: Path, closed: Callable[[Path], None], run_cli: Cli
) -> None:
    (tmp_path / "full").mkdir()
    closed(tmp_path / "full")
    for out in ("full/m.kizu", "full/a/b.kizu"):
        code, _, err = run_cli("fit", good, *FAST, "-o", tmp_path / out)
        assert (code, "may not be written to: permission denied" in err, err.count("\n")) == (2, True, 1)
    code, _, err = run_cli("fit", good, *FAST, "-o", good / "0.png" / "m.kizu")
    assert (code, "0.png is a file, so that" in err, err.count("\n")) == (2, True, 1)


def test_adapt(good: Path, tmp_path: Path, run_cli: Cli) -> None:
    """Files that could not be read were counted as learned from, with exit code 0."""
    (good / "broken.png").write_bytes((good / "0.png").read_bytes()[:90])
    command = ("adapt", good, "--adaptation", "residual", "--representation", "random/resnet10t@1")
    code, out, _ = run_cli(*command, "--image-size", 32, "-o", tmp_path / "adapted", "--json")
    result = json.loads(out)
    assert (code, result["images"]) == (1, 6)
    assert [entry["path"] for entry in result["skipped"]] == [str(good / "broken.png")]


def damaged_tree(folder: Path) -> Path:
    """good/ and bad/ in train/ and test/, with a damaged image in each split, and an image in val/."""
    for number in range(5):
        draw_image(folder / "train" / "good" / f"{number}.png", number)
        draw_image(folder / "test" / "good" / f"{number}.png", 20 + number)
        draw_image(folder / "test" / "bad" / f"{number}.png", 40 + number)
    (folder / "train" / "good" / "t.png").write_bytes(b"half")
    (folder / "test" / "good" / "g.png").write_bytes(b"half")
    draw_image(folder / "val" / "good" / "v.png", 50)
    return folder


UNUSED = ["g.png", "t.png", "v.png"]


@pytest.mark.parametrize("detector", ["gaussian", "simplenet"])
def test_bench_says_what_it_could_not_read(tmp_path: Path, run_cli: Cli, detector: str) -> None:
    """The counts are those of the images behind the figures."""
    lab = damaged_tree(tmp_path / "lab")
    few = ", iterations = 2" if detector == "simplenet" else ""
    (tmp_path / "x.toml").write_text(
        f"""
[[dataset]]
name = "folder"
path = "{lab}"
[[representation]]
name = "random/resnet10t@1"
[[detector]]
name = "{detector}"
parameters = {{ image_size = 32{few} }}
[[protocol]]
name = "one_class"
"""
    )
    code, out, _ = run_cli("bench", tmp_path / "x.toml", "-o", tmp_path / "run", "--json")
    assert code == 1
    assert sorted(Path(entry["path"]).name for entry in json.loads(out)["skipped"]) == UNUSED
    (row,) = pl.read_csv(tmp_path / "run" / "results.csv").to_dicts()
    assert [row[name] for name in ("train_images", "test_normal", "test_anomalous")] == [5, 5, 5]
    again = run_cli("bench", tmp_path / "x.toml", "-o", tmp_path / "run", "--json")
    assert (again[0], json.loads(again[1])["skipped"]) == (1, json.loads(out)["skipped"]), "nothing was run"


def test_diagnose_and_attention_say_what_they_could_not_read(tmp_path: Path, run_cli: Cli) -> None:
    lab, net = damaged_tree(tmp_path / "lab"), ("--representation", "random/resnet10t@1,2")
    small = ("iterations=2", "image_size=32", "batch_size=4", "embedding_width=8")
    sets = [part for text in small for part in ("--set", text)]
    code, out, _ = run_cli("diagnose", lab, *net, *sets, "--every", 2, "-o", tmp_path / "d", "--json")
    assert code == 1
    assert sorted(Path(entry["path"]).name for entry in json.loads(out)["skipped"]) == UNUSED
    facts = json.loads((tmp_path / "d" / "full" / "diagnosis.json").read_text("utf-8"))
    assert facts["images"] == {"train": 5, "test": 10}
    assert [Path(one["path"]).name for one in facts["skipped"]] == ["v.png", "t.png", "g.png"]
    assert "Files not used (3)" in (tmp_path / "d" / "diagnosis.html").read_text("utf-8")
    code, out, _ = run_cli("attention", lab, *net, "--image-size", 32, "-o", tmp_path / "a", "--json")
    assert code == 1
    assert {"t.png", "v.png"} <= {Path(entry["path"]).name for entry in json.loads(out)["errors"]}
