"""A full disk, at each kind of write: a small tmpfs takes the output of every command that writes.

What must hold: one sentence, exit code 2; what was there before is still there, and nothing half-written;
with more space the same command, or its --resume, gives what a run on a large disk gives."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import kizu
from kizu import store
from kizu.samples import Samples

Cli = Callable[..., tuple[int, str, str]]
Disk = Callable[[int], None]
NET = "random/resnet10t@1,2"
LARGE = 64 * 2**20

pytestmark = pytest.mark.slow


def mount(folder: Path, *options: str) -> bool:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a file system whose size `resize` sets."""
    folder = tmp_path_factory.mktemp("disk")
    try:
        mounted = mount(folder, f"size={LARGE}")
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a tmpfs takes Linux and its rights")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(disk: Path, size: int) -> None:
    assert mount(disk, "remount", f"size={max(size // 4096, 1) * 4096}")


def used(folder: Path) -> int:
    """Bytes in files of 4 KiB pages, as a tmpfs counts them."""
    files = [folder] if folder.is_file() else [file for file in folder.rglob("*") if file.is_file()]
    return sum(math.ceil(file.stat().st_size / 4096) * 4096 for file in files)


def listing(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def parent(samples: Samples) -> Path:
    return Path(samples.paths[0]).parents[3]


def setting(**values: object) -> list[str]:
    return [part for name, value in values.items() for part in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module")
def data(tiny_planted: Samples) -> Path:
    return parent(tiny_planted)


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small calibrated model."""
    good = kizu.dataset("mvtec", data).train
    detector = kizu.detector("gaussian", NET, image_size=32)
    from kizu.evaluation.calibrated import fit_calibrated

    fit_calibrated(detector, good, method="cross", false_alarm_rate=0.1, seed=0)
    return detector.save(tmp_path_factory.mktemp("model") / "model.kizu")


def command(kind: str, data: Path, model: Path, folder: Path) -> list[object]:
    """A command of each kind that writes, up to its -o."""
    learned = setting(
        image_size=32, batch_size=4, embedding_width=8, iterations=4, precision="fp32",
        training_precision="fp32",
    )  # fmt: skip
    fit: list[object] = ["fit", data, "--dataset", "mvtec", "--representation", NET]
    experiment = folder / "experiment.toml"
    experiment.write_text(
        f'name = "small"\n[[dataset]]\nname = "mvtec"\npath = "{data}"\n[[representation]]\nname = "{NET}"\n'
        '[[detector]]\nname = "gaussian"\nparameters = { image_size = 32 }\n'
        '[[protocol]]\nname = "one_class"\n'
    )
    commands: dict[str, list[object]] = {
        "fit": [*fit, "--detector", "gaussian", *setting(image_size=32), "--calibration", "split"],
        "fit_trained": [*fit, "--detector", "recontrast", *learned, "--calibration", "none"],
        "adapt": ["adapt", data, "--dataset", "mvtec", "--adaptation", "residual", "--representation", NET,
                  "--image-size", 64, "--set", "shots=3"],
        "pretrain": ["pretrain", "simsiam", "--data", "procedural", "--steps", 4, "--checkpoint-every", 2,
                     "--backbone", "resnet10t", "--size", 32, "--batch-size", 4, "--device", "cpu",
                     *setting(stages=1, hidden=16, predictor_hidden=8)],
        "inspect": ["inspect", model, data / "capsule" / "test"],
        "evaluate": ["evaluate", model, data, "--dataset", "mvtec"],
        "bench": ["bench", experiment, "--data", data.parent],
        "attention": ["attention", data, "--dataset", "mvtec", "--representation", NET, "--image-size", 32,
                      "--count", 2],
    }  # fmt: skip
    return commands[kind]


KINDS = {
    "fit": "model.kizu",
    "fit_trained": "model.kizu",
    "adapt": "adapted",
    "pretrain": "pretrained",
    "inspect": "inspected",
    "evaluate": "evaluated",
    "bench": "bench",
    "attention": "attention",
}
PARTS = {
    "fit_trained": "--resume",
    "pretrain": "--resume",
    "inspect": "--resume",
    "bench": "",
    "evaluate": "--overwrite",
    "attention": "--overwrite",
}
"""Kinds of several writes, and how one goes on: figures are whole before their page is drawn."""


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk(
    kind: str, share: float, disk: Path, data: Path, model: Path, tmp_path: Path, run_cli: Cli
) -> None:
    given = command(kind, data, model, tmp_path)
    whole, out = tmp_path / KINDS[kind], disk / f"{kind}_{share}" / KINDS[kind]
    assert run_cli(*given, "-o", whole)[0] == 0
    resize(disk, LARGE)
    out.parent.mkdir()
    before = used(disk)
    resize(disk, before + round(share * used(whole)))
    code, _, error = run_cli(*given, "-o", out)
    assert code == 2, error
    assert "The disk is full" in error
    assert "Traceback" not in error
    left = listing(out.parent)
    assert not [name for name in left if name.endswith(".part")]
    if kind not in PARTS:
        assert left == {}
    resize(disk, LARGE)
    how = PARTS.get(kind)
    if kind == "pretrain" and not (out / "checkpoint.kizu").exists():
        how = "--overwrite"  # nothing to go on from
    again = [*given, how] if how and left else given
    code, _, error = run_cli(*again, "-o", out)
    assert code == 0, error
    assert same(kind, whole, out)
    resize(disk, LARGE)


def same(kind: str, whole: Path, out: Path) -> bool:
    """Whether two runs of a command have the same results."""
    if kind in ("fit", "fit_trained", "adapt", "pretrain"):
        expected, made = store.load(whole)[0], store.load(out)[0]
        return expected.keys() == made.keys() and all(
            torch.equal(value, made[name]) for name, value in expected.items()
        )
    if kind == "inspect":
        return (whole / "results.jsonl").read_text("utf-8") == (out / "results.jsonl").read_text("utf-8")
    if kind == "evaluate":
        first, second = (json.loads((folder / "metrics.json").read_text("utf-8")) for folder in (whole, out))
        return bool(first == second)
    return sorted(listing(whole)) == sorted(listing(out))


def test_the_old_model_stays(disk: Path, data: Path, model: Path, tmp_path: Path, run_cli: Cli) -> None:
    """--overwrite on a full disk: the model of before is there to the byte."""
    given = command("fit", data, model, tmp_path)
    resize(disk, LARGE)
    for name in ("old.kizu", "old_folder"):
        assert run_cli(*given, "-o", disk / name)[0] == 0
        was = listing(disk)
        resize(disk, used(disk) + 8192)
        code, _, error = run_cli(*given, "--seed", 1, "--overwrite", "-o", disk / name)
        assert code == 2
        assert "The disk is full" in error
        assert listing(disk) == was
        resize(disk, LARGE)
        assert kizu.load(disk / name).decision_ is not None
