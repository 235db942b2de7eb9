"""`kizu diagnose`, whole: training with tests along the way, the page, going on after an interruption, and
what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import kizu
from kizu import store
from kizu.detectors._objective import ReconstructionObjective
from kizu.detectors.recontrast import ABLATIONS, ReContrast
from kizu.errors import EmptyData, LayoutError, UnknownName, UsageError
from kizu.evaluation.diagnosis import diagnose, read_diagnosis, variant, variants
from kizu.evaluation.predict import predict_all
from kizu.locks import locked
from kizu.protocols.one_class import one_class
from kizu.samples import Samples
from kizu.training import FitOptions

Cli = Callable[..., tuple[int, str, str]]
NET = "random/resnet10t@1,2"
SMALL = (
    "iterations=4",
    "image_size=64",
    "batch_size=4",
    "embedding_width=8",
    "precision=fp32",
    "training_precision=fp32",
)
PARAMETERS: dict[str, Any] = {
    "iterations": 4,
    "image_size": 64,
    "batch_size": 4,
    "embedding_width": 8,
    "precision": "fp32",
    "training_precision": "fp32",
}


def sets() -> list[str]:
    return [part for text in SMALL for part in ("--set", text)]


def detector(**parameters: Any) -> ReContrast:
    made = kizu.detector("recontrast", NET, **{**PARAMETERS, **parameters})
    assert isinstance(made, ReContrast)
    return made


@pytest.mark.slow
def test_variants_side_by_side(tiny_planted: Samples, tmp_path: Path, run_cli: Cli) -> None:
    data, out = Path(tiny_planted.paths[0]).parents[3], tmp_path / "out"
    arguments = (
        "diagnose",
        data,
        "--dataset",
        "mvtec",
        "--representation",
        NET,
        "--variant",
        "A",
        "--variant",
        "E",
        *sets(),
        "--every",
        2,
    )
    code, said, error = run_cli(*arguments, "--landscape", 3, "-o", out, "--json")
    assert code == 0, error
    facts = json.loads(said)
    assert set(facts["runs"]) == {"A", "E"}
    page = (out / "diagnosis.html").read_text("utf-8")
    assert page.count("<polyline") == 2 * 4  # two runs, four charts
    assert page.count("data:image/webp") == 2
    made = read_diagnosis(out / "E")
    assert [row["step"] for row in made["tests"]] == [2, 4]
    assert made["last"] == made["tests"][-1]
    assert made["best_oracle"]["image_auroc"] == max(row["image_auroc"] for row in made["tests"])
    assert len(made["landscape"]["values"]) == 3
    assert not (out / "E" / "training" / "checkpoint.kizu").exists()
    assert run_cli(*arguments, "-o", out)[0] == 2  # it is there already
    code, _, said = run_cli(*arguments, "-o", out, "--resume")
    assert code == 2
    assert "landscape_side" in said  # the finished run is another's


@pytest.mark.slow
def test_watching_changes_nothing_and_figures_are_those_of_the_model(
    tiny_planted: Samples, tmp_path: Path
) -> None:
    split = one_class(tiny_planted)
    made = diagnose("full", detector(), split, tmp_path / "a", every=3)
    plain = detector().fit(split.train)
    watched = detector()
    half: dict[int, torch.Tensor] = {}

    def keep(step: int, by_then: ReContrast) -> dict[str, float]:
        half[step] = by_then.predict(split.test).score
        assert by_then.steps_ == step
        return {"noted": float(step)}

    watched.fit(split.train, options=FitOptions(evaluate=keep, evaluate_every=3))
    assert all(torch.equal(value, watched._state()[name]) for name, value in plain._state().items())
    assert torch.equal(half[4], plain.predict(split.test).score)
    assert not torch.equal(half[3], half[4])
    assert [row["noted"] for row in watched.log_ if "noted" in row] == [3, 4]
    seen = predict_all(plain, split.test)
    from kizu.metrics.image_metrics import image_metrics

    assert made["last"]["image_auroc"] == pytest.approx(
        image_metrics(seen.scores, split.test.take(seen.rows).labels)["auroc"]
    )


@pytest.mark.slow
def test_an_interrupted_diagnosis_goes_on(
    tiny_planted: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = one_class(tiny_planted)
    parameters = {"iterations": 60, "image_size": 32}
    whole = diagnose("full", detector(**parameters), split, tmp_path / "whole", every=20)
    real = ReconstructionObjective.loss

    class Stop(Exception):
        pass

    count = iter(range(1000))

    def cut(self: ReconstructionObjective, batch: Any) -> dict[str, torch.Tensor]:
        if next(count) == 55:
            raise Stop
        return real(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(ReconstructionObjective, "loss", cut)
        with pytest.raises(Stop):
            diagnose("full", detector(**parameters), split, tmp_path / "half", every=20, checkpoint_every=25)
    assert store.load_card(tmp_path / "half" / "training" / "checkpoint.kizu")["step"] == 50
    assert not (tmp_path / "half" / "diagnosis.json").exists()
    fewer = replace(split, train=split.train.take([0, 1, 2, 3]))
    with pytest.raises(LayoutError, match="another run: images, inputs differ"):
        diagnose("full", detector(**parameters), fewer, tmp_path / "half", every=20)
    with locked(tmp_path / "half"), pytest.raises(UsageError, match="Another run is writing"):
        diagnose("full", detector(**parameters), split, tmp_path / "half", every=20, overwrite=True)
    resumed = diagnose("full", detector(**parameters), split, tmp_path / "half", every=20)
    assert resumed["tests"] == whole["tests"]
    assert resumed["last"] == whole["last"]


def test_what_it_refuses(tiny_planted: Samples, tmp_path: Path, run_cli: Cli) -> None:
    split = one_class(tiny_planted)
    with pytest.raises(UsageError, match="step by step"):
        diagnose("x", kizu.detector("padim", NET), split, tmp_path)
    with pytest.raises(UsageError, match="landscape"):
        diagnose("x", detector(), split, tmp_path, landscape=1)
    with pytest.raises(UsageError, match="evaluate_every"):
        FitOptions(evaluate=lambda step, by_then: {}, evaluate_every=0)
    good = one_class(tiny_planted.train.concat(tiny_planted.test.normal))
    with pytest.raises(EmptyData, match="flawed"):
        diagnose("x", detector(), good, tmp_path)
    with pytest.raises(UnknownName, match="C\\+cp"):
        variant("C+pc")
    with pytest.raises(LayoutError, match="kizu diagnose"):
        read_diagnosis(tmp_path)
    data = Path(tiny_planted.paths[0]).parents[3]
    code, _, said = run_cli(
        "diagnose",
        data,
        "--dataset",
        "mvtec",
        "--variant",
        "D",
        "--set",
        "stop_gradient=false",
        "-o",
        tmp_path / "o",
    )
    assert code == 2
    assert "another variant" in said
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--every", 0), "--every is a whole number from 1 on"),
        (("--landscape", 1), "--landscape is 0 for none"),
        (("--landscape", 100000), "2 to 201 points"),
        (("--resume",), "nothing to resume"),
        (("--resume", "--overwrite"), "say one of them"),
        (("--seed", 4, "--set", "seed=3"), "two seeds"),
    ],
)
def test_mistakes_are_found_before_any_work(
    more: tuple[object, ...], says: str, tiny_planted: Samples, tmp_path: Path, run_cli: Cli
) -> None:
    data = Path(tiny_planted.paths[0]).parents[3]
    command = ("diagnose", data, "--dataset", "mvtec", "--representation", NET, *sets())
    code, _, said = run_cli(*command, *more, "-o", tmp_path / "o")
    assert (code, says in said) == (2, True)
    assert not (tmp_path / "o").exists()


def test_nothing_is_written_among_others_files(tiny_planted: Samples, tmp_path: Path, run_cli: Cli) -> None:
    data = Path(tiny_planted.paths[0]).parents[3]
    command = ("diagnose", data, "--dataset", "mvtec", "--representation", NET, *sets(), "--overwrite")
    for name in ("photo.png", "diagnosis.html"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("mine")
        code, _, said = run_cli(*command, "-o", folder)
        assert (code, f"it holds {name}, which no diagnosis wrote" in said) == (2, True)
        assert [path.name for path in folder.iterdir()] == [name]


def test_the_ablations_are_whole() -> None:
    assert list(variants()) == ["A", "B", "B+hm", "C", "D", "C+cp", "E-gl", "E", "full"]
    assert variant("full") == ("recontrast", ABLATIONS["full"])
    assert variant("A")[1]["loss"] == "regional"
