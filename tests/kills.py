"""Commands that are killed (SIGKILL) at random moments and taken up again; run as a process of its own.

    python tests/kills.py KIND COUNT SEED FOLDER DATA MODEL

A kill comes at a moment drawn evenly over the time that the command takes. Then a user would type the same
command with --resume where something is there, and without it where that is refused; it may be killed once
more, and is left to end the third time. One line of JSON for each of COUNT rounds says how it went. kizu is
imported once and each command is a fork, so that a round takes seconds."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from kizu import registry, store
from kizu.apps import cli

NET = "random/resnet10t@1,2"
SMALL = ("image_size=32", "batch_size=4", "embedding_width=8", "iterations=6", "precision=fp32",
         "training_precision=fp32")  # fmt: skip
OUT = {
    "fit": "model.kizu",
    "fit_trained": "model.kizu",
    "pretrain": "pretrained",
    "inspect": "inspected",
}


def command(kind: str, data: str, model: str) -> list[str]:
    """A command of this kind, up to its -o."""
    fit = ["fit", data, "--dataset", "mvtec", "--representation", NET]
    settings = [part for text in SMALL for part in ("--set", text)]
    return {
        "fit": [*fit, "--detector", "patchcore", "--set", "image_size=64", "--calibration", "cross"],
        "fit_trained": [*fit, "--detector", "recontrast", *settings, "--calibration", "split"],
        "pretrain": ["pretrain", "simsiam", "--data", "procedural", "--steps", "12", "--checkpoint-every",
                     "2", "--backbone", "resnet10t", "--size", "32", "--batch-size", "4", "--device", "cpu",
                     "--set", "stages=1", "--set", "hidden=16", "--set", "predictor_hidden=8"],
        "inspect": ["inspect", model, str(Path(data) / "capsule"), "--json"],
    }[kind]  # fmt: skip


def run(arguments: list[str], log: Path, seconds: float | None) -> int | None:
    """The exit code of a command in a fork of this process; None if it was killed after `seconds`. What it
    prints is appended to `log`."""
    child = os.fork()
    if child == 0:
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        code = 0
        try:
            cli.main(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:  # a test's child must not go on as the parent
            code = 70
        sys.stdout.flush()
        os._exit(code)
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.002)


def resumed(kind: str, given: list[str], out: Path) -> list[str]:
    """What a user types after an interruption."""
    if kind == "pretrain":
        return ["pretrain", "--resume", "-o", str(out)] if out.exists() else [*given, "-o", str(out)]
    there = out.exists() if kind == "inspect" else out.with_name(f"{out.name}.training").exists()
    return [*given, "-o", str(out), *(["--resume"] if there else [])]


def same(kind: str, whole: Path, out: Path) -> str:
    """What differs between two outputs, "" for nothing."""
    if kind == "inspect":
        mine, theirs = ((folder / "results.jsonl").read_text("utf-8") for folder in (out, whole))
        panels = [sorted(file.name for file in (folder / "panels").glob("*.png")) for folder in (out, whole)]
        return "" if mine == theirs and panels[0] == panels[1] else "lines or panels differ"
    expected, made = store.load(whole)[0], store.load(out)[0]
    return (
        ""
        if expected.keys() == made.keys()
        and all(torch.equal(value, made[name]) for name, value in expected.items())
        else "tensors differ"
    )


def lost(kind: str, log: Path, out: Path) -> list[str]:
    """Images whose result was printed by a run that was killed, and whose line is not in the folder."""
    if kind != "inspect":
        return []
    said = {json.loads(line)["path"] for line in log.read_text("utf-8").splitlines() if is_result(line)}
    kept = {json.loads(line)["path"] for line in (out / "results.jsonl").read_text("utf-8").splitlines()}
    return sorted(said - kept)


def is_result(line: str) -> bool:
    return line.startswith('{"path"') and line.endswith("}")


def main() -> None:
    """COUNT rounds."""
    kind, count, seed, place, data, model = sys.argv[1:]
    torch.set_num_threads(1)
    for detector in registry.names("detectors"):
        registry.load("detectors", detector)
    folder, given, draws = Path(place), command(kind, data, model), random.Random(int(seed))
    whole = folder / "whole" / OUT[kind]
    whole.parent.mkdir(parents=True)
    started = time.monotonic()
    code = run([*given, "-o", str(whole)], folder / "whole.log", None)
    takes = time.monotonic() - started
    assert code == 0, (folder / "whole.log").read_text("utf-8")
    for number in range(int(count)):
        out = folder / str(number) / OUT[kind]
        out.parent.mkdir()
        log, kills, report = folder / f"{number}.log", 0, ""
        code = run([*given, "-o", str(out)], log, draws.uniform(0, takes))
        for again in range(4):
            if code is not None and code != 2:
                break
            kills += code is None
            if kind in ("fit", "fit_trained") and out.exists():
                code = 0  # it was killed after the model was written
                break
            anew = [*given, "-o", str(out), *(["--overwrite"] if kind == "pretrain" else [])]
            typed = anew if code == 2 else resumed(kind, given, out)
            code = run(typed, log, draws.uniform(0, takes) if again == 0 and number % 2 else None)
        if code == 0:
            report = same(kind, whole, out) or (
                f"lost {lost(kind, log, out)}" if lost(kind, log, out) else ""
            )
        else:
            report = f"exit code {code}: {log.read_text('utf-8')[-600:]}"
        print(json.dumps({"round": number, "kills": kills, "report": report}), flush=True)


if __name__ == "__main__":
    main()
