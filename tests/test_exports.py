"""What users call is public and typed: the written exports, the user's script, and mypy's view of both."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import kizu
from kizu import registry

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "tests" / "user_script.py"
PUBLIC = """dataset representation detector adapt representation_ load fit predict map score
    p_value is_anomalous save image_metrics pixel_metrics StreamingPixelMetrics update compute greedy_coreset
    nearest conformal_threshold p_values views losses"""
"""The names of the design's section 8 that exist."""


def from_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


exports = from_file(ROOT / "tools" / "exports.py")


def test_the_committed_exports_are_those_of_the_folders() -> None:
    stale = [path for path, text in exports.written() if path.read_text("utf-8") != text]
    assert not stale, "run: python tools/exports.py"


def test_exports_of_a_folder() -> None:
    assert exports.exports("metrics")["auroc"] == "auroc"
    assert exports.exports("detectors")["PatchCore"] == "patchcore"
    assert exports.exports("detectors")["Detector"] == "base"
    assert exports.exports("pretraining")["pretrain"] == "run"  # by the __all__ of run.py
    assert not [name for room in registry.ROOMS for name in exports.exports(room) if name.startswith("_")]


def test_two_files_that_export_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_support", lambda room, file: ["PatchCore"])
    with pytest.raises(ValueError, match="Rename one"):
        exports.exports("detectors")


def test_a_member_without_an_object_of_its_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_defined", lambda room, file: ["other"])
    with pytest.raises(ValueError, match=r"kizu/losses/\w+\.py has to define one class or function"):
        exports.exports("losses")


def test_types_are_shipped() -> None:
    assert (Path(kizu.__file__).parent / "py.typed").exists()


def test_the_user_script_names_all_that_is_public() -> None:
    text = SCRIPT.read_text("utf-8")
    assert not [name for name in PUBLIC.split() if name not in text]


def test_the_user_script_runs(tmp_path: Path) -> None:
    script = from_file(SCRIPT)
    draw = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for index in range(4):
        pixels = draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / f"{index}.png")
    prediction = script.inspect(tmp_path / "data", tmp_path / "model.kizu")
    assert prediction.map.shape == (4, 64, 64)
    masks = torch.arange(4 * 64 * 64).reshape(4, 64, 64) % 7 == 0
    assert set(script.measure(prediction, [0, 1, 0, 1], masks)) == {"auroc", "ap", "f1_max", "aupro"}
    threshold, p_values = script.decide(prediction.score, torch.arange(20.0))
    assert threshold <= 19.0
    assert len(p_values) == 4
    distances = script.parts(torch.rand(4, 3, 16, 16), torch.Generator().manual_seed(0))
    assert distances.shape == (4, 1)
    assert isinstance(script.direct(), kizu.Detector)


@pytest.mark.slow
def test_mypy_sees_what_users_call(tmp_path: Path) -> None:
    """The user's script is clean under --strict, every export has a type, a slip is an error."""
    members = [f"kizu.{room}.{name}" for room in registry.ROOMS for name in getattr(kizu, room).__all__]
    members += [f"kizu.{name}" for name in kizu.__all__]
    (tmp_path / "members.py").write_text("import kizu\n" + "".join(f"reveal_type({m})\n" for m in members))
    (tmp_path / "slips.py").write_text(
        "import kizu\nkizu.metrics.aurocc\nkizu.Sample\nkizu.detectors.base.Detectr\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file="]
    cache = ROOT / ".mypy_cache" / "user_script"  # its own: other options would empty the one of `make check`
    files = [SCRIPT, tmp_path / "members.py", tmp_path / "slips.py"]
    result = subprocess.run(
        [*command, f"--cache-dir={cache}", *map(str, files)],
        capture_output=True,
        text=True,
        env=os.environ | {"MYPYPATH": str(Path(kizu.__file__).parent.parent)},
    )
    lines = result.stdout.splitlines()
    errors = [line for line in lines if ": error:" in line]
    assert [line.rpartition("/")[2].partition(": error")[0] for line in errors] == [
        "slips.py:2",
        "slips.py:3",
        "slips.py:4",
    ], result.stdout + result.stderr
    revealed = [line for line in lines if "Revealed type is" in line]
    assert len(revealed) == len(members)
    assert not [line for line in revealed if '"Any"' in line or "ModuleType" in line]
