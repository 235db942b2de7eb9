"""Two processes are one process with the whole batch; kill -9 costs nothing but the time since the last
checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_objectives import curves, norms

from kizu import store

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder and the reports of both processes."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [*command, str(HERE / "small_objectives.py"), str(folder)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, [json.loads((folder / f"{rank}.json").read_text("utf-8")) for rank in (0, 1)]


def test_two_processes_give_the_curve_of_one(two: tuple[Path, list[dict[str, Any]]]) -> None:
    alone = curves()
    for report in two[1]:
        for case, values in alone.items():
            if case == "own statistics":
                assert max(abs(a - b) for a, b in zip(report[case], values, strict=True)) > 1e-2
            else:  # norms divide by deviations, so that rounding grows
                tolerance = 1e-3 if "batch norm" in case else 1e-6
                assert report[case] == pytest.approx(values, rel=tolerance, abs=tolerance), case
    assert alone["line 2"] == pytest.approx(alone["line 1"], rel=1e-6, abs=1e-6), "parts add up to the batch"


def test_norms_take_their_statistics_from_all_processes(two: tuple[Path, list[dict[str, Any]]]) -> None:
    alone = norms()
    for report in two[1]:
        for case, values in alone.items():
            assert report["norms"][case] == pytest.approx(values, rel=1e-5, abs=1e-5), case


def test_a_signal_to_one_process_stops_all(two: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, reports = two
    assert [report["stopped"] for report in reports] == ["exit 143", "exit 143"]
    assert store.load_card(folder / "stopped" / "checkpoint.kizu")["step"] == 3


def test_nan_in_one_process_stops_all(two: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, reports = two
    assert "The loss of another process is not finite at step 2" in reports[0]["not finite"]
    assert "The loss is nan at step 2" in reports[1]["not finite"]
    assert [file.name for file in (folder / "nan").glob("*.kizu")] == ["not_finite_1.kizu"]


DIES = """
import os, signal, torch
torch.set_num_threads(1)
from kizu.pretraining import pretrain
from kizu.pretraining.simsiam import SimSiam
after = SimSiam.after_step
def dies(self, step, steps):
    if step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    after(self, step, steps)
SimSiam.after_step = dies
pretrain("simsiam", ["procedural"], {out!r}, **{parameters!r})
"""
PARAMETERS: dict[str, Any] = {
    "steps": 6, "backbone": "resnet10t", "stages": 2, "size": 32, "batch_size": 4,
    "hidden": 16, "predictor_hidden": 8, "spd": True,
    "learning_rate": 3.0, "checkpoint_every": 3, "log_every": 1, "device": "cpu", "show": False,
}  # fmt: skip


def test_kill_9_and_resume_end_in_the_same_weights(tmp_path: Path) -> None:
    import torch

    from kizu.pretraining import pretrain, resume

    out = tmp_path / "killed"
    program = DIES.format(out=str(out), parameters=PARAMETERS)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == -9, done.stderr[-3000:]
    assert not (out / store.WEIGHTS).exists()
    assert store.load_card(out / "checkpoint.kizu")["step"] == 3
    assert any("momentum_buffer" in name for name in store.load(out / "checkpoint.kizu")[0])
    resume(out, show=False)
    pretrain("simsiam", ["procedural"], tmp_path / "whole", **PARAMETERS)
    (resumed, card), (whole, other) = store.load(out), store.load(tmp_path / "whole")
    assert set(resumed) == set(whole)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    curve, expected = (
        [(row["step"], row["loss"]) for row in c["representation"]["curve"]] for c in (card, other)
    )
    assert curve == expected
    assert [step for step, _ in curve] == [1, 2, 3, 4, 5, 6]


COMMAND = (
    "pretrain", "simsiam", "--data", "procedural", "--spd", "--steps", "6", "--checkpoint-every", "2",
    "--backbone", "resnet10t", "--size", "32", "--batch-size", "8", "--device", "cpu", "--precision", "fp32",
    "--set", "stages=2", "--set", "hidden=16", "--set", "predictor_hidden=8",
)  # fmt: skip
ONE_DIES = """
import os, signal, sys
from kizu.apps import cli
from kizu.pretraining.simsiam import SimSiam
def dies(self, step, steps):
    if step == 4 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
SimSiam.after_step = dies
cli.main(sys.argv[1:])
"""


LEAVES = """
import sys, torch
from kizu.apps import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as stop:
    assert stop.code == 0
assert not torch.distributed.is_initialized()
print("left")
"""


def launched(*command: str) -> subprocess.CompletedProcess[str]:
    """A command by torchrun, in two processes."""
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    return subprocess.run(
        [*launcher, *command], env=ENVIRONMENT, capture_output=True, text=True, timeout=600, check=False
    )


def test_processes_leave_each_other_before_they_end(tmp_path: Path) -> None:
    """One that exits with its connection open was aborted at times, while the other still wrote."""
    (tmp_path / "leaves.py").write_text(LEAVES, "utf-8")
    done = launched(str(tmp_path / "leaves.py"), *COMMAND, "-o", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("left") == 2
    assert (tmp_path / "out" / store.WEIGHTS).exists()


def test_one_of_two_processes_is_killed_and_the_command_resumed(tmp_path: Path) -> None:
    import torch

    (tmp_path / "dies.py").write_text(ONE_DIES, "utf-8")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    done = launched(str(tmp_path / "dies.py"), *COMMAND, "-o", str(killed))
    assert done.returncode != 0
    assert not (killed / store.WEIGHTS).exists()
    assert store.load_card(killed / "checkpoint.kizu")["step"] == 4
    done = launched("-m", "kizu.apps.cli", "pretrain", "--resume", "-o", str(killed))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("Use it with --representation") == 1, "one process speaks"
    done = launched("-m", "kizu.apps.cli", *COMMAND, "-o", str(whole))
    assert done.returncode == 0, done.stderr[-3000:]
    (resumed, card), (expected, other) = store.load(killed), store.load(whole)
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())
    assert not (killed / "checkpoint.kizu").exists()
    curve, whole_curve = (
        [(row["step"], row["loss"]) for row in one["representation"]["curve"]] for one in (card, other)
    )
    assert curve == whole_curve


@pytest.mark.parametrize("launcher", ["torchrun", "fabric run"])
def test_two_processes_name_all_files_that_they_skipped(launcher: str, tmp_path: Path) -> None:
    """As docs/methods/pretraining.md says to start them."""
    photos, out = tmp_path / "photos", tmp_path / "rep"
    photos.mkdir()
    for number in range(12):
        Image.effect_noise((40, 40), 60).convert("RGB").save(photos / f"{number:02}.png")
    for number in (3, 7, 8):
        (photos / f"{number:02}.png").write_text("no image")
    small = ("--backbone", "resnet10t", "--size", "32", "--batch-size", "4", "--steps", "4")
    heads = ("--set", "stages=1", "--set", "hidden=16", "--set", "predictor_hidden=8", "--precision", "fp32")
    command = ("pretrain", "simsiam", *small, *heads, "--data", str(photos), "-o", str(out))
    programs = Path(sys.executable).parent
    start = {
        "torchrun": (
            *("torchrun", "--nproc-per-node", "2", "--standalone", "-m", "kizu.apps.cli"),
            *(*command, "--device", "cpu"),
        ),
        "fabric run": (
            *("fabric", "run", "--accelerator", "cpu", "--devices", "2", "--main-port", "29519"),
            *(str(programs / "kizu"), "--", *command),
        ),
    }[launcher]
    done = subprocess.run(
        [programs / start[0], *start[1:]],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert "3 images could not be read" in done.stderr, done.stderr[-3000:]
    skipped = json.loads((out / "skipped.json").read_text("utf-8"))
    assert list(skipped) == [str(photos / name) for name in ("03.png", "07.png", "08.png")]
    assert store.load_card(out)["representation"]["skipped_images"] == 3
