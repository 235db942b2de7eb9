"""Names of files that are hard to write down: not UTF-8, with an end of line, with a terminal's escape."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from trees import draw_image, mask

import kizu
from kizu.errors import LayoutError, printable
from kizu.image_files import find_images

Cli = Callable[..., tuple[int, str, str]]
FAST = (
    *("--detector", "gaussian", "--representation", "random/resnet10t@1"),
    *("--set", "image_size=32", "--calibration", "none"),
)
NOT_UTF8 = os.fsdecode(b"b\xff\xe4d.png")
ODD = ("nl\n2.png", "ls\u2028x.png", "ä€😀.png", "q'\"<b>&.png", "a" * 251 + ".png", "esc\x1b[31m.png")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux alone")


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """good/ and scratch/ with a plain name, the odd ones, and one that is not UTF-8; and a model."""
    for number, name in enumerate(("plain.png", *ODD)):
        draw_image(tmp_path / "lab" / "good" / name, number)
        draw_image(tmp_path / "lab" / "scratch" / name, 20 + number)
    for place in ("good", "scratch"):
        shutil.copy(tmp_path / "lab" / place / "plain.png", tmp_path / "lab" / place / NOT_UTF8)
    return tmp_path / "lab"


@pytest.fixture
def model(lab: Path, run_cli: Cli) -> Path:
    for number in range(3):
        draw_image(lab.parent / "others" / f"{number}.png", 40 + number)
    path = lab.parent / "m.kizu"
    assert run_cli("fit", lab.parent / "others", *FAST, "-o", path)[0] == 0
    return path


def test_odd_names_are_used_and_those_that_are_not_utf8_are_said(
    lab: Path, model: Path, tmp_path: Path, run_cli: Cli
) -> None:
    shown = printable(str(lab / "scratch" / NOT_UTF8))
    code, out, _ = run_cli("fit", lab / "good", *FAST, "-o", tmp_path / "f.kizu", "--json")
    result = json.loads(out)
    assert (code, result["images"]) == (1, 1 + len(ODD))
    assert [entry["path"] for entry in result["skipped"]] == [printable(str(lab / "good" / NOT_UTF8))]
    code, out, _ = run_cli("inspect", model, lab / "scratch", "-o", tmp_path / "i", "--json")
    rows = [json.loads(line) for line in out.split("\n") if line]
    names = {Path(row["path"]).name for row in rows if row["error"] is None}
    assert (code, names) == (1, {"plain.png", *ODD})
    assert [row["path"] for row in rows if row["error"]] == [shown]
    kept = (tmp_path / "i" / "results.jsonl").read_bytes()
    code, _, err = run_cli("inspect", model, lab / "scratch", "-o", tmp_path / "i", "--resume")
    assert (code, (tmp_path / "i" / "results.jsonl").read_bytes()) == (1, kept)
    assert sum(shown in line for line in err.split("\n")) == 1
    assert "not UTF-8" in (tmp_path / "i" / "index.html").read_text("utf-8")
    code, out, _ = run_cli("evaluate", model, lab, "-o", tmp_path / "e", "--json")
    assert (code, len(json.loads(out)["errors"])) == (1, 2)
    assert "not UTF-8" in (tmp_path / "e" / "report.html").read_text("utf-8")
    code, out, _ = run_cli("data", "check", "folder", lab)
    assert (code, "not UTF-8" in out) == (1, True)


@pytest.mark.parametrize("command", ["fit", "inspect", "evaluate", "adapt", "pretrain", "attention", "bench"])
def test_arguments_that_are_not_utf8(command: str, lab: Path, model: Path, run_cli: Cli) -> None:
    odd = lab.parent / os.fsdecode(b"d\xff")
    shutil.copytree(lab, odd)
    arguments: dict[str, tuple[object, ...]] = {
        "fit": (odd, *FAST),
        "inspect": (model, odd / "good" / "plain.png"),
        "evaluate": (model, odd),
        "adapt": (odd, "--adaptation", "residual"),
        "pretrain": ("simsiam", "--data", odd),
        "attention": (odd,),
        "bench": (odd / "x.toml",),
    }
    before = sorted(lab.parent.iterdir())
    for more in ((*arguments[command], "-o", lab.parent / "o"), ("-o", odd / "out", *arguments[command])):
        code, _, err = run_cli(command, *more)
        assert (code, err.count("\n")) == (2, 1), err
        assert "d\\udcff" in err
        assert "its name is not UTF-8" in err
    assert sorted(lab.parent.iterdir()) == before


def test_in_python(lab: Path) -> None:
    samples = kizu.dataset("folder", lab)
    assert len(samples) == 2 * (1 + len(ODD))
    assert len(samples.unused) == 2
    odd = lab.parent / os.fsdecode(b"d\xff")
    shutil.move(lab, odd)
    for work in (lambda: kizu.dataset("folder", odd), lambda: find_images([odd])):
        with pytest.raises(LayoutError, match="not UTF-8"):
            work()
    with pytest.raises(LayoutError, match="not UTF-8"):
        kizu.dataset("folder", odd / "list.csv")


def test_masks_with_such_names(tmp_path: Path, run_cli: Cli) -> None:
    draw_image(tmp_path / "lab" / "good" / "a.png")
    draw_image(tmp_path / "lab" / "bad" / "x.png")
    mask(tmp_path / "lab" / "masks" / "x.png")
    shutil.copy(tmp_path / "lab" / "masks" / "x.png", tmp_path / "lab" / "masks" / NOT_UTF8)
    assert len(kizu.dataset("folder", tmp_path / "lab").anomalous.pixel_labelled) == 1


def test_printable() -> None:
    assert printable("a\nb\x1b[31m\u2028ü") == "a\\nb\\x1b[31m\\u2028ü"


def test_a_name_too_long_for_the_disk(run_cli: Cli, tmp_path: Path) -> None:
    code, _, err = run_cli("evaluate", tmp_path / ("x" * 300), tmp_path, "-o", tmp_path / "out")
    assert (code, "file name too long" in err, "Errno" in err) == (2, True, False)
