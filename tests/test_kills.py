"""Killed at a random moment and taken up again: the same result, and nothing that was printed is lost.

One round of each kind here; KIZU_KILLS=50 makes the 50 rounds that docs/security.md reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kizu
from kizu.evaluation.calibrated import fit_calibrated
from kizu.samples import Samples

ROUNDS = int(os.environ.get("KIZU_KILLS", "1"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="forks and kills")
@pytest.mark.parametrize("kind", ["fit", "fit_trained", "pretrain", "inspect"])
def test_killed_at_random_moments(kind: str, tiny_planted: Samples, tmp_path: Path) -> None:
    data = Path(tiny_planted.paths[0]).parents[3]
    model = kizu.detector("gaussian", "random/resnet10t@1,2", image_size=32)
    fit_calibrated(model, tiny_planted.train, method="cross", false_alarm_rate=0.1, seed=0)
    model.save(tmp_path / "known.kizu")
    driver = Path(__file__).parent / "kills.py"
    given = [kind, str(ROUNDS), "12", str(tmp_path / "rounds"), str(data), str(tmp_path / "known.kizu")]
    done = subprocess.run([sys.executable, str(driver), *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rounds) == ROUNDS
    assert [one["report"] for one in rounds] == [""] * ROUNDS
    assert ROUNDS > 1 or rounds[0]["kills"] == 1, "the moment of this seed is before the end"
