"""`kizu pretrain` at the command line: a run, a resumed one, and every refusal with its one sentence and its
exit code."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import kizu
from kizu import store

Cli = Callable[..., tuple[int, str, str]]
SMALL = (
    "--backbone",
    "resnet10t",
    "--size",
    "32",
    "--batch-size",
    "4",
    "--device",
    "cpu",
    "--precision",
    "fp32",
)
HEADS = ("--set", "stages=1", "--set", "hidden=16", "--set", "predictor_hidden=8")
QUICK = ("pretrain", "simsiam", *SMALL, *HEADS, "--data", "procedural")


@pytest.mark.slow
def test_three_steps(tmp_path: Path, run_cli: Cli) -> None:
    out = tmp_path / "rep"
    code, said, err = run_cli(*QUICK, "--steps", 3, "--spd", "--half", "-o", out)
    assert code == 0
    assert said == ""
    assert "Training resnet10t with simsiam + SPD on procedural" in err
    assert "after 3 steps. Use it with --representation" in err
    assert kizu.representation(out).card["name"] == "simsiam+spd/resnet10t"
    code, _, err = run_cli(*QUICK, "--steps", 3, "-o", out)
    assert code == 2
    assert "exists already" in err
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    code, said, err = run_cli("pretrain", "--resume", "-o", out, "--json")
    assert (code, err, json.loads(said)["representation"]) == (0, "", str(out))
    code, _, err = run_cli(*QUICK, "--steps", 3, "--spd", "-o", out, "--resume")
    assert code == 0
    assert f"{out} is finished already and stays as it is" in err
    code, _, err = run_cli(*QUICK, "--steps", 4, "-o", out, "--resume")
    assert code == 2
    assert "steps is 3 there, not 4" in err
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


@pytest.mark.slow
def test_json_and_broken_images(tmp_path: Path, run_cli: Cli) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(6):
        Image.effect_noise((40, 40), 60).convert("RGB").save(photos / f"{number}.png")
    (photos / "3.png").write_text("no image")
    given = ("pretrain", "simsiam", *SMALL, *HEADS, "--data", photos, "--data", "procedural:4")
    code, said, err = run_cli(*given, "--steps", 4, "--seed", 3, "-o", tmp_path / "rep", "--json")
    assert code == 1, "done, but an image could not be read"
    result = json.loads(said)
    assert result["representation"] == str(tmp_path / "rep")
    assert result["name"] == "simsiam/resnet10t"
    assert result["skipped"] == 1
    assert result["last"]["step"] == 4
    assert err == ""
    card = store.load_card(tmp_path / "rep")["representation"]
    assert card["recipe"]["parameters"]["seed"] == 3
    assert card["trained_on"] == ["photos", "procedural"]


@pytest.mark.slow
def test_interrupted_and_resumed(tmp_path: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from kizu.pretraining.simsiam import SimSiam

    out = tmp_path / "rep"
    for number, code_due in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with monkeypatch.context() as patch:
            patch.setattr(
                SimSiam,
                "after_step",
                lambda self, step, steps, number=number: step in (0, 2) and os.kill(os.getpid(), number),
            )
            resumed = (
                ("pretrain", "--resume", "-o", out) if out.exists() else (*QUICK, "--steps", 5, "-o", out)
            )
            code, _, err = run_cli(*resumed)
        assert code == code_due
        assert code == 143 or "Interrupted" in err
        assert store.load_card(out / "checkpoint.kizu")["step"] == (1 if code == 143 else 3)
    code, _, err = run_cli("pretrain", "--resume", "-o", out)
    assert code == 0
    assert "after 5 steps" in err
    assert not (out / "checkpoint.kizu").exists()


REFUSED = [
    (("simsiam", "--data", "procedural", "--steps", "0"), "steps is a whole number from 1 on, got 0"),
    (("simsiam",), "--data FOLDER"),
    (("--data", "procedural"), "Say what to train: one of adpretrain, byol, moco"),
    (("simsian", "--data", "procedural"), "Did you mean 'simsiam'?"),
    (("simsiam", "--data", "absent"), "absent is no folder"),
    (("simsiam", "--data", "procedural", "--set", "hiden=3"), "Did you mean 'hidden'?"),
    (("simsiam", "--data", "procedural", "--set", "hidden=many"), "The parameter hidden is int, got 'many'"),
    (
        ("simsiam", "--data", "procedural", "--set", "eta=1"),
        "eta is a parameter of SPD, which is off: add --spd",
    ),
    (
        ("simsiam", "--data", "procedural", "--set", "eta=1", "--set", "spd_share=0.5"),
        "eta, spd_share are parameters of SPD, which is off: add --spd, or leave them out",
    ),
    (("simsiam", "--data", "procedural", "--spd", "--set", "etta=1"), "Did you mean 'eta'?"),
    (("simsiam", "--data", "procedural", "--spd", "--set", "spd_anker=view"), "Did you mean 'spd_anchor'?"),
    (
        ("simsiam", "--data", "procedural", "--spd", "--set", "perturbation=cutpast"),
        "Did you mean 'cutpaste'?",
    ),
    (
        ("simsiam", "--data", "procedural", "--spd", "--set", "spd_share=0"),
        "SPD's share is a finite number, above 0",
    ),
    (
        ("simsiam", "--data", "procedural", "--spd", "--set", "eta=-1"),
        "SPD's eta is a finite number, at least 0",
    ),
    (
        ("simsiam", "--data", "procedural", "--spd", "--set", "eta=much"),
        "The parameter eta is float, got 'much'",
    ),
    (
        ("simsiam", "--data", "procedural", "--set", "learning_rate=-1"),
        "learning_rate is a finite number, above 0",
    ),
    (
        ("simsiam", "--data", "procedural", "--backbone", "resnet19"),
        "There is no timm model named 'resnet19'",
    ),
    (
        ("simsiam", "--data", "procedural", "--backbone", "halonet26t", "--size", "64"),
        "halonet26t does not take images of 64 x 64 pixels; it is built for 256 x 256",
    ),
    (
        ("simsiam", "--data", "procedural", "--batch-size", "1"),
        "batch_size is a whole number from 2 on, got 1",
    ),
    (("simsiam", *SMALL, *HEADS, "--data", "procedural", "--device", "gpu"), "device is auto, cpu, cuda"),
    (("simsiam", *SMALL, *HEADS, "--data", "procedural", "--precision", "fp8"), "precision is auto"),
    (("simsiam", *SMALL, *HEADS, "--data", "procedural", "--accumulate", "3"), "cannot be shared"),
    (("--resume",), "holds no pretraining run"),
]


@pytest.mark.parametrize(("arguments", "says"), REFUSED)
def test_what_cannot_be_meant(arguments: tuple[str, ...], says: str, tmp_path: Path, run_cli: Cli) -> None:
    code, out, err = run_cli("pretrain", *arguments, "-o", tmp_path / "rep")
    assert code == 2
    assert out == ""
    assert says in err
    assert "Traceback" not in err
    assert not (tmp_path / "rep").exists() or not any((tmp_path / "rep").iterdir())


def test_listed(run_cli: Cli) -> None:
    code, out, _ = run_cli("list", "pretraining", "--json")
    assert code == 0
    assert {"byol", "moco", "simclr", "simsiam", "supervised"} <= set(
        json.dumps(json.loads(out)).replace('"', " ").split()
    )
