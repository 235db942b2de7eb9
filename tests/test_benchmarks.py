"""The benchmarks run: each at a tiny size into a folder of its own, and the page of what it wrote there."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import trees

import kizu
from kizu import accel

ROOT = Path(kizu.__file__).parents[2]
FOLDER = ROOT / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))
NOT_QUICK = ("table", "whole_job")
"""The page has no size, and the whole job needs real data and a peer."""
WITH_PHOTOGRAPHS = ("coreset", "fit_time", "nearest")
KEPT = (FOLDER / "results", ROOT / "docs", ROOT / "runs")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="installed without its benchmarks"),
]


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script as a module; its `main` takes the words of the command line."""
    monkeypatch.syspath_prepend(FOLDER)
    if name == "nearest":
        pytest.importorskip("faiss")
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def state() -> dict[Path, tuple[int, int]]:
    """What the project keeps of measured runs: time of writing and size of each file."""
    files = [file for folder in KEPT for file in folder.rglob("*") if file.is_file()]
    return {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in files}


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        script(name, monkeypatch).main(["--help"])
    said = capsys.readouterr().out
    assert "--out" in said
    assert ("--quick" in said) == (name not in NOT_QUICK)


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in NOT_QUICK])
def test_a_quick_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes its result or its page into the folder that was named, and nothing else anywhere."""
    monkeypatch.delenv("KIZU_DATA", raising=False)
    before = state()
    script(name, monkeypatch).main(["--quick", "--out", str(tmp_path)])
    assert state() == before
    written = tmp_path / f"{name}.json"
    assert written.exists() or list(tmp_path.glob("*.md"))
    if written.exists():
        assert json.loads(written.read_text("utf-8"))["benchmark"] == name
    table = script("table", monkeypatch)
    table.main(["--out", str(tmp_path)])
    sections = re.findall(r"^## (.*)$", (tmp_path / "benchmarks.md").read_text("utf-8"), re.MULTILINE)
    assert sections == ([table.SECTIONS[name][0]] if name in table.SECTIONS else [])


@pytest.mark.parametrize("name", WITH_PHOTOGRAPHS)
def test_photographs_are_measured_where_they_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of the two data sets is there: it has rows in the result and on the page, of the other one is said
    why not; without a data folder the page says so."""
    trees.magnetic_tile(tmp_path / "data" / "magnetic-tile")
    arguments = ["--quick", "--out", str(tmp_path)]
    script(name, monkeypatch).main([*arguments, "--data", str(tmp_path / "data")])
    assert "screw was left out: there is no mvtec-screw" in capsys.readouterr().out
    table = script("table", monkeypatch)
    page = table.page(tmp_path)
    assert "| magnetic tile" in page
    assert table.WITHOUT not in page
    monkeypatch.delenv("KIZU_DATA", raising=False)
    script(name, monkeypatch).main(arguments)
    assert "Real features were left out" in capsys.readouterr().out
    assert "| magnetic tile" not in table.page(tmp_path)
    assert table.WITHOUT in table.page(tmp_path)


def test_a_peer_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "slow.py").write_text("import sys, time; sys.stdin.read(); time.sleep(600)")
    harness = script("_harness", monkeypatch)
    monkeypatch.setattr(harness, "HERE", tmp_path)
    monkeypatch.setattr(harness, "PATIENCE", 0.2)
    monkeypatch.setenv("KIZU_PEER_PYTHON", sys.executable)
    peer = harness.Peer("slow")
    peer.close()
    assert peer.process.returncode < 0


def test_engines_that_are_not_there_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KIZU_PEER_PYTHON", str(tmp_path / "none"))
    forward = script("forward", monkeypatch)
    assert forward.opened() is None
    assert "onnxruntime and OpenVINO were left out. No peer environment" in capsys.readouterr().err


def test_ours_over_every_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a peer that answers at once: seconds of its own, and its columns on the page."""
    forward, table = script("forward", monkeypatch), script("table", monkeypatch)

    class Answers:
        def ask(self, **request: object) -> dict[str, object]:
            return (
                {"engines": ["fast"], "missing": {"other": "gone"}}
                if "load" in request
                else {"seconds": 1e-9}
            )

    row = forward.measure(64, 1, Answers(), argparse.Namespace(rounds=1, passes=1))
    assert row["ours_over"]["fast"] > 1e3
    assert row["seconds"]["fast"]["median"] == 1e-9
    assert 0 <= row["difference"] < 0.1
    assert "over fast" in table.forward({"rows": [row]})[0]


def test_every_result_has_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/benchmarks.md is what table.py makes of the results that are kept."""
    table = script("table", monkeypatch)
    assert (ROOT / "docs" / "benchmarks.md").read_text("utf-8") == table.page(FOLDER / "results")
    shown = set(table.SECTIONS)
    assert {path.stem for path in (FOLDER / "results").glob("*.json")} <= shown


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in NOT_QUICK])
def test_a_quick_run_must_say_where(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        script(name, monkeypatch).main(["--quick"])
    assert "--out FOLDER" in capsys.readouterr().err


def test_interleaved_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every case in turn, what it says of its own time, the warm-up left out."""
    order: list[str] = []
    own = {"one": iter([9.0, 1.0, 3.0, 2.0]), "two": iter([9.0, 5.0, 5.0, 5.0])}

    def case(name: str) -> float:
        order.append(name)
        return next(own[name])

    harness = script("_harness", monkeypatch)
    found = harness.interleave({name: lambda name=name: case(name) for name in own}, repeats=3, warmup=1)
    assert order == ["one", "two"] * 4
    assert (found["one"]["median"], found["one"]["min"], found["one"]["runs"]) == (2.0, 1.0, 3)
    assert (found["two"]["median"], found["two"]["q1"]) == (5.0, 5.0)


@pytest.mark.skipif(not accel.enabled(), reason="the tree is a twin")
def test_search_by_products_leaves_the_tree_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it runs only; and a bank without a tree has no such case."""
    latency = script("latency", monkeypatch)
    images = torch.rand(36, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    detector = kizu.detector("patchcore", "random/resnet10t@2", image_size=64, precision="fp32", coreset=1.0)
    predict = latency.turns(detector.fit(images), images[:2], 2)
    without = latency.by_products(detector, predict)
    calls: list[int] = []
    tree = detector._scorer._index._twin.tree
    query = tree.query
    monkeypatch.setattr(tree, "query", lambda rows: calls.append(len(rows)) or query(rows))
    without()
    assert not calls
    predict()
    assert calls
    few = detector.clone().fit(images[:1, :, :32])
    assert latency.by_products(few, predict) is None


def test_our_side_of_the_whole_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a data set made up for it: both sides of `choose`, and every part that the summary names."""
    whole_job = script("whole_job", monkeypatch)
    trees.magnetic_tile(tmp_path / "data")
    monkeypatch.setattr(whole_job, "SIZE", 64)
    row = whole_job.job("padim", str(tmp_path / "data"), 2, str(tmp_path))
    assert set(whole_job.PARTS) - {"process_seconds"} <= set(row)
    assert row["images"] == {"train": 2, "test": 2, "without_mask": 0}


def test_peers_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each script in peers/ can be compiled and is asked by a benchmark; each that is asked is there."""
    asked = {
        name for path in FOLDER.glob("*.py") for name in re.findall(r'Peer\("(\w+)"\)', path.read_text())
    }
    assert asked == {path.stem for path in (FOLDER / "peers").glob("*.py")}
    for path in (FOLDER / "peers").glob("*.py"):
        ast.parse(path.read_text("utf-8"))
