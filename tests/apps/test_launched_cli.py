"""Commands that torchrun or `fabric run` started more than once: `kizu pretrain` shares its work, no other
does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import kizu

Cli = Callable[..., tuple[int, str, str]]
COMMANDS = (
    ("fit", "good", "-o", "m.kizu"),
    ("adapt", "good", "--adaptation", "residual", "-o", "rep"),
    ("inspect", "m.kizu", "good", "-o", "out"),
    ("evaluate", "m.kizu", "good", "-o", "out"),
    ("demo", "-o", "out"),
    ("bench", "x.toml", "-o", "out"),
    ("attention", "good", "--representation", "kizu/starter", "-o", "out"),
    ("diagnose", "good", "-o", "out"),
    ("list", "detectors"),
    ("data", "check", "mvtec", "good"),
)


@pytest.fixture
def by_torchrun(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of the first of 2 processes on each of 3 machines."""
    for name, value in (("LOCAL_WORLD_SIZE", "2"), ("WORLD_SIZE", "6"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    return monkeypatch


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_one_sentence(command: tuple[str, ...], by_torchrun: pytest.MonkeyPatch, run_cli: Cli) -> None:
    code, out, err = run_cli(*command)
    assert (code, out) == (2, "")
    assert "started 6 processes of this command, and only `kizu pretrain` shares" in err
    assert len(err.splitlines()) == 1


def test_one_process_is_no_matter(by_torchrun: pytest.MonkeyPatch, run_cli: Cli) -> None:
    by_torchrun.setenv("LOCAL_WORLD_SIZE", "1")
    by_torchrun.setenv("WORLD_SIZE", "1")
    assert run_cli("list", "detectors")[0] == 0


@pytest.mark.parametrize("said", [("--devices", "1"), ("--nodes", "1"), ("--devices", "1", "--nodes", "1")])
def test_pretrain_with_other_counts_than_the_launcher(
    said: tuple[str, ...], by_torchrun: pytest.MonkeyPatch, tmp_path: Path, run_cli: Cli
) -> None:
    """Else each process would train alone and write to the same folder."""
    code, _, err = run_cli("pretrain", "simsiam", "--data", "procedural", *said, "-o", tmp_path / "rep")
    assert code == 2
    assert "started 2 processes on each of 3 machines" in err
    assert not (tmp_path / "rep" / "recipe.json").exists()


def weights(number: int) -> torch.Tensor:
    """What a small detector learns from images that differ by `number`, as one row."""
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(number))
    settings = {"image_size": 32, "iterations": 2, "batch_size": 4, "hidden": 16, "device": "cpu"}
    model = kizu.detector("simplenet", "random/resnet10t@1", **settings).fit(images)
    return torch.cat([value.flatten().float() for value in model.network_.state_dict().values()])


@pytest.mark.parametrize("launcher", ["torchrun", "fabric run"])
def test_a_fit_under_a_launcher_stays_in_its_process(launcher: str, by_torchrun: pytest.MonkeyPatch) -> None:
    """No other process is waited for; and the environment is afterwards what it was."""
    if launcher == "fabric run":
        for name, value in (("LT_CLI_USED", "1"), ("LT_DEVICES", "2"), ("LT_NUM_NODES", "3")):
            by_torchrun.setenv(name, value)
    before = dict(os.environ)
    found = weights(1)
    assert before.items() <= os.environ.items()
    for name in [name for name in before if name.startswith("LT_")]:
        by_torchrun.delenv(name)
    by_torchrun.delenv("TORCHELASTIC_RUN_ID")
    assert torch.equal(found, weights(1))


PROGRAM = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from test_launched_cli import weights
torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
torch.save([weights(rank)] + ([weights(7)] if rank else []), {folder!r} + f"/{{rank}}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_of_a_users_program_fit_apart(tmp_path: Path) -> None:
    """Each on its own images, one of them once more than the other."""
    (tmp_path / "program.py").write_text(
        PROGRAM.format(tests=str(Path(__file__).parent), folder=str(tmp_path)), "utf-8"
    )
    command = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    source = str(Path(kizu.__file__).parents[1])
    done = subprocess.run(
        [*command, str(tmp_path / "program.py")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(first[0], weights(0))
    assert torch.equal(second[0], weights(1))
    assert torch.equal(second[1], weights(7))


def test_several_machines_take_a_launcher(tmp_path: Path, run_cli: Cli) -> None:
    """Without one the first process waited for the others for ever."""
    more = ("--nodes", 2, "--device", "cpu", "-o", tmp_path / "rep")
    code, _, err = run_cli("pretrain", "simsiam", "--data", "procedural", *more)
    assert (code, "2 machines take a launcher on each" in err, "torchrun --nnodes 2" in err) == (
        2,
        True,
        True,
    )


def test_a_batch_that_cannot_be_shared_starts_no_process(tmp_path: Path, run_cli: Cli) -> None:
    more = ("--devices", 3, "--batch-size", 8, "--size", 32, "--backbone", "resnet10t", "--device", "cpu")
    code, _, err = run_cli("pretrain", "simsiam", "--data", "procedural", *more, "-o", tmp_path / "rep")
    assert (code, err.count("cannot be shared by 3 processes")) == (2, 1)
