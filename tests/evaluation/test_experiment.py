"""Experiments: checked before they run, resumed where they stopped, tabulated beside the published rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from trees import draw_image

from kizu.errors import LayoutError, UnknownName, UnknownParameter, UsageError
from kizu.evaluation import experiment as experiment_module
from kizu.evaluation.cache import FeatureCache
from kizu.evaluation.experiment import run_experiment
from kizu.evaluation.plan import Cell, cells, read_experiment
from kizu.loader import masks_for
from kizu.locks import locked
from kizu.samples import Samples

TEXT = """
name = "small"
[[dataset]]
name = "mvtec"
path = "{path}"
[[representation]]
name = "random/resnet10t@1,2"
[[detector]]
name = "gaussian"
parameters = {{ image_size = 64 }}
[[detector]]
name = "padim"
parameters = {{ image_size = [64, 64], dimensions = 8 }}
[[protocol]]
name = "few_shot"
seeds = [0, 1]
grid = {{ shots = [4] }}
[[published]]
paper = "recontrast"
table = "1"
where = {{ category = "capsule", detector = ["padim"] }}
"""


@pytest.fixture
def experiment(tmp_path: Path, tiny_planted: Samples) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(TEXT.format(path=Path(tiny_planted.paths[0]).parents[3]))
    return path


MASKS = """
[[dataset]]
name = "folder"
path = "{path}"
{rule}
[[representation]]
name = "random/resnet10t@1"
[[detector]]
name = "gaussian"
parameters = {{ image_size = 32 }}
[[protocol]]
name = "one_class"
"""


@pytest.mark.parametrize("place", ["mask_rule = 'nonzero'", "filters = { mask_rule = 'nonzero' }"])
def test_mask_rule(place: str, tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]) -> None:
    """Class numbers 80 and 160: the usual rule refuses them; "nonzero" reads both."""
    data = tmp_path / "data"
    for number in range(4):
        draw_image(data / "train" / "good" / f"{number}.png", number, size=(32, 32))
    draw_image(data / "test" / "good" / "0.png", 10, size=(32, 32))
    draw_image(data / "test" / "bad" / "x.png", 20, size=(32, 32))
    values = np.zeros((32, 32), np.uint8)
    values[4:16, 4:16], values[20:28, 20:28] = 80, 160
    (data / "masks" / "bad").mkdir(parents=True)
    Image.fromarray(values).save(data / "masks" / "bad" / "x.png")
    (tmp_path / "usual.toml").write_text(MASKS.format(path=data, rule=""))
    code, _, err = run_cli("bench", tmp_path / "usual.toml", "-o", tmp_path / "usual")
    assert (code, "--mask-rule nonzero" in err) == (2, True)
    (tmp_path / "named.toml").write_text(MASKS.format(path=data, rule=place))
    assert run_cli("bench", tmp_path / "named.toml", "-o", tmp_path / "named")[0] == 0
    rows = pl.read_csv(tmp_path / "named" / "results.csv")
    assert rows["pixel_auroc"].null_count() == 0
    plan = read_experiment(tmp_path / "named.toml")
    samples = experiment_module._samples(plan.parts["dataset"][0], None)
    assert samples.mask_rule == "nonzero"
    assert int(masks_for(samples.anomalous, (32, 32)).sum()) == 12 * 12 + 8 * 8


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("mask_rule = 'nonzro'", "A mask rule is 'half', 'nonzero' or 'folder', got 'nonzro'"),
        ("mask_rule = 3", "mask_rule is a text, got 3"),
        ("mask_rule = 'half'\nfilters = { mask_rule = 'nonzero' }", "has mask_rule twice"),
    ],
)
def test_mask_rules_that_cannot_be_meant(rule: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(MASKS.format(path=tmp_path, rule=rule))
    with pytest.raises(UsageError, match=says):
        read_experiment(tmp_path / "x.toml")


def test_runs_resumes_and_tabulates(
    experiment: Path,
    tmp_path: Path,
    run_cli: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, runs = experiment_module.run_cell, []

    def counted(cell: Cell, samples: Samples, cache: FeatureCache) -> dict[str, object]:
        if len(runs) == 3:
            raise KeyboardInterrupt
        runs.append(cell)
        return real(cell, samples, cache)

    monkeypatch.setattr(experiment_module, "run_cell", counted)
    code, _, _ = run_cli("bench", experiment, "-o", tmp_path / "out")
    assert code == 130
    assert len((tmp_path / "out" / "cells.jsonl").read_text("utf-8").splitlines()) == 3
    with (tmp_path / "out" / "cells.jsonl").open("a") as stream:
        stream.write('{"key": "cut sho')
    monkeypatch.setattr(experiment_module, "run_cell", real)
    code, out, _ = run_cli("bench", experiment, "-o", tmp_path / "out", "--json")
    assert code == 0
    assert json.loads(out)["cells"] == 4
    results = pl.read_csv(tmp_path / "out" / "results.csv")
    assert results.height == 4
    assert results["train_images"].to_list() == [4] * 4
    assert results["image_auroc"].is_between(0, 1).all()
    text = (tmp_path / "out" / "results.md").read_text("utf-8")
    assert "not comparable" in text
    assert (tmp_path / "out" / "image_auroc.png").stat().st_size > 1000


def test_cells_of_other_images_are_not_gone_on_with(
    experiment: Path, tmp_path: Path, tiny_planted: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    shutil.copytree(Path(tiny_planted.paths[0]).parents[3], data)
    experiment.write_text(TEXT.format(path=data))
    plan, out = read_experiment(experiment), tmp_path / "out"
    with monkeypatch.context() as patch:
        real, runs = experiment_module.run_cell, []

        def counted(cell: Cell, samples: Samples, cache: FeatureCache) -> dict[str, object]:
            if runs:
                raise KeyboardInterrupt
            runs.append(cell)
            return real(cell, samples, cache)

        patch.setattr(experiment_module, "run_cell", counted)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(plan, out, None, lambda sentence: None)
    before = (out / "cells.jsonl").read_bytes()
    with locked(out), pytest.raises(UsageError, match="Another run is writing"):
        run_experiment(plan, out, None, lambda sentence: None)
    image = next(data.rglob("train/good/*.png"))
    image.write_bytes(image.read_bytes() + b"x")
    with pytest.raises(UsageError, match=r"holds cells of other inputs: what is called dataset"):
        run_experiment(plan, out, None, lambda sentence: None)
    assert (out / "cells.jsonl").read_bytes() == before


@pytest.mark.slow
def test_same_seed_same_row(experiment: Path, tmp_path: Path) -> None:
    plan = read_experiment(experiment)
    for name in ("one", "two"):
        run_experiment(plan, tmp_path / name, None, lambda sentence: None)
    rows = [
        pl.read_csv(tmp_path / name / "results.csv").drop("fit_seconds", "predict_seconds", "measure_seconds")
        for name in ("one", "two")
    ]
    assert rows[0].equals(rows[1])


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("dimensions = 8", "dimension = 8", UnknownParameter, "Did you mean 'dimensions'"),
        ('"padim"\nparameters', '"padin"\nparameters', UnknownName, "Did you mean 'padim'"),
        ("shots = [4]", "shot = [4]", UnknownParameter, "Did you mean 'shots'"),
        ("[[protocol]]", "[[protocols]]", UnknownParameter, "Did you mean 'protocol'"),
        ("seeds", "seed", UnknownParameter, "Did you mean 'seeds'"),
        ('name = "small"', "name = small", LayoutError, "not a readable TOML"),
    ],
)
def test_mistakes_are_found_before_anything_runs(
    experiment: Path, old: str, new: str, error: type[Exception], message: str
) -> None:
    experiment.write_text(experiment.read_text().replace(old, new, 1))
    with pytest.raises(error, match=message):
        read_experiment(experiment)


def test_a_detectors_grid_is_every_combination_with_its_parameters(experiment: Path) -> None:
    text = experiment.read_text()
    line = next(line for line in text.splitlines() if line.startswith("parameters"))
    experiment.write_text(
        text.replace(line, line + "\ngrid = { batch_size = [1, 2], sigma = [0.0, 4.0] }", 1)
    )
    plan = read_experiment(experiment)
    plain = dict(plan.parts["detector"][0]["parameters"])
    name = plan.parts["detector"][0]["name"]
    found = {json.dumps(cell.parameters) for cell in cells(plan, {0: ["a"]}) if cell.detector == name}
    assert found == {
        json.dumps({**plain, "batch_size": size, "sigma": sigma}) for size in (1, 2) for sigma in (0.0, 4.0)
    }
    experiment.write_text(text.replace(line, line + "\ngrid = { image_size = [32, 64] }", 1))
    with pytest.raises(UsageError, match="image_size in parameters and in grid"):
        read_experiment(experiment)
    for wrong in (
        text.replace(line, line + "\ngrid = { sigma = [] }", 1),
        text.replace("shots = [4]", "shots = []"),
    ):
        experiment.write_text(wrong)
        with pytest.raises(UsageError, match="nothing of it would be run"):
            read_experiment(experiment)


@pytest.mark.parametrize(
    ("old", "new", "error", "says"),
    [
        ('name = "small"', "name = 3", UsageError, "The name of an experiment is a text"),
        ("seeds = [0, 1]", "seeds = []", UsageError, "seeds holds one value at least"),
        ("seeds = [0, 1]", "seeds = [0, 0]", UsageError, "each once"),
        ("grid = { shots = [4] }", "grid = { seed = [1] }", UsageError, "seeds are named beside its grid"),
        ('name = "mvtec"', 'name = "mvtec"\ncategories = [1]', UsageError, "a category is a text"),
        ('name = "mvtec"', 'name = "mvtec"\ncategories = []', UsageError, "categories holds one value"),
        ("dimensions = 8", "dimensions = 8, sigma = nan", UsageError, "no text, finite number"),
        ("dimensions = 8", "dimensions = 1979-05-27", UsageError, "no text, finite number"),
        ('paper = "recontrast"', 'paper = "nix"', UnknownName, "nix"),
        ('table = "1"', 'table = "99"', UnknownName, "99"),
        ("where = { category", "where = { kategory", UnknownParameter, "kategory"),
        ("where = { category", "where = { row = { a = 1 }, category", UsageError, "no row has row"),
    ],
)
def test_mistakes_are_found_before_any_cell_runs(
    old: str, new: str, error: type[Exception], says: str, experiment: Path
) -> None:
    text = experiment.read_text()
    assert old in text
    experiment.write_text(text.replace(old, new, 1))
    with pytest.raises(error, match=says):
        read_experiment(experiment)


def test_a_cell_is_listed_once(experiment: Path, tmp_path: Path) -> None:
    experiment.write_text(experiment.read_text().replace('name = "padim"', 'name = "gaussian"').replace(
        "[64, 64], dimensions = 8", "64"))  # fmt: skip
    with pytest.raises(UsageError, match="gaussian, few_shot, seed 0 is listed twice"):
        run_experiment(read_experiment(experiment), tmp_path / "out", None, lambda sentence: None)
    assert not (tmp_path / "out" / "cells.jsonl").exists()


def test_the_seed_reaches_the_detector(experiment: Path, tmp_path: Path, tiny_planted: Samples) -> None:
    """On an official split three seeds of a detector that draws were one run three times, with a deviation of
    0.0."""
    text = experiment.read_text().replace('"few_shot"', '"one_class"').replace("grid = { shots = [4] }\n", "")
    experiment.write_text(text)
    run_experiment(read_experiment(experiment), tmp_path / "out", None, lambda sentence: None)
    rows = pl.read_csv(tmp_path / "out" / "results.csv")
    scores = {
        name: rows.filter(pl.col("detector") == name)["pixel_ap"].to_list() for name in ("gaussian", "padim")
    }
    assert len(set(scores["gaussian"])) == 1, "it draws nothing"
    assert len(set(scores["padim"])) == 2, "its channels are drawn"
    named = text.replace("dimensions = 8", "dimensions = 8, seed = 1")
    experiment.write_text(named)
    run_experiment(read_experiment(experiment), tmp_path / "named", None, lambda sentence: None)
    kept = pl.read_csv(tmp_path / "named" / "results.csv").filter(pl.col("detector") == "padim")["pixel_ap"]
    assert kept.to_list() == [scores["padim"][1]] * 2, "one that is named stays"


def test_a_cell_that_cannot_run_is_one_row_and_is_tried_again(
    experiment: Path, tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]
) -> None:
    experiment.write_text(experiment.read_text().replace("shots = [4]", "shots = [4, 4000]"))
    code, out, err = run_cli("bench", experiment, "-o", tmp_path / "out", "--json")
    assert (code, json.loads(out)["failed"]) == (1, 4)
    rows = pl.read_csv(tmp_path / "out" / "results.csv")
    assert rows.filter(pl.col("error").is_null())["image_auroc"].null_count() == 0
    assert len((tmp_path / "out" / "cells.jsonl").read_text().splitlines()) == 4
    code, _, err = run_cli("bench", experiment, "-o", tmp_path / "out")
    assert (code, err.count("failed: ")) == (1, 4), "and no other cell again"
    experiment.write_text(experiment.read_text().replace("shots = [4, 4000]", "shots = [4000]"))
    assert run_cli("bench", experiment, "-o", tmp_path / "all", "--json")[0] == 1


def test_an_experiment_is_begun_anew(
    experiment: Path, tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]
) -> None:
    experiment.write_text(experiment.read_text().replace("seeds = [0, 1]", "seeds = [0]"))
    assert run_cli("bench", experiment, "-o", tmp_path / "out")[0] == 0
    log = tmp_path / "out" / "cells.jsonl"
    log.write_text(log.read_text().replace('"image_auroc": ', '"image_auroc": "much", "x": ', 1))
    code, _, err = run_cli("bench", experiment, "-o", tmp_path / "out")
    assert (code, "a figure is no number" in err) == (2, True)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    code, _, err = run_cli("bench", experiment, "-o", tmp_path / "out", "--overwrite")
    assert (code, "notes.txt" in err) == (2, True)
    (tmp_path / "out" / "notes.txt").unlink()
    plan = experiment.read_text()
    experiment.write_text(plan.replace("shots = [4]", "shots = [4, 4]"))
    before = log.read_text()
    code, _, err = run_cli("bench", experiment, "-o", tmp_path / "out", "--overwrite")
    assert (code, "is listed twice" in err) == (2, True)
    assert log.read_text() == before, "nothing is removed for a plan that cannot be run"
    experiment.write_text(plan)
    assert run_cli("bench", experiment, "-o", tmp_path / "out", "--overwrite")[0] == 0
    assert "much" not in log.read_text()


def test_data_without_test_images(tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]) -> None:
    for number in range(6):
        draw_image(tmp_path / "lab" / "train" / "good" / f"{number}.png", number)
    text = TEXT.format(path=tmp_path / "lab").replace('"mvtec"', '"folder"').replace("few_shot", "one_class")
    text = text.replace("grid = { shots = [4] }\n", "").partition("[[published]]")[0]
    (tmp_path / "x.toml").write_text(text + '[[published]]\nnote = "No table."\n')
    code, _, err = run_cli("bench", tmp_path / "x.toml", "-o", tmp_path / "out")
    assert (code, "There is no image to test on" in err) == (1, True)
    draw_image(tmp_path / "lab" / "test" / "good" / "0.png", 20)
    code, _, err = run_cli("bench", tmp_path / "x.toml", "-o", tmp_path / "again")
    assert code == 0
    assert "No table." in (tmp_path / "again" / "results.md").read_text()


def test_an_empty_experiment(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("")
    with pytest.raises(UsageError, match=r"lists no \[\[dataset\]\]"):
        read_experiment(tmp_path / "x.toml")


ADAPTED = """
[[adaptation]]
name = "none"
[[adaptation]]
name = "residual"
parameters = { shots = 3 }
"""


def test_adaptations_are_an_axis(experiment: Path, tmp_path: Path) -> None:
    """Each under every detector; cells without one keep their key, so that earlier results stay."""
    plain = read_experiment(experiment)
    experiment.write_text(experiment.read_text().replace("[0, 1]", "[0]") + ADAPTED)
    both = read_experiment(experiment)
    first, second = (list(cells(plan, {0: ["capsule"]})) for plan in (plain, both))
    assert [cell.adaptation and cell.adaptation["name"] for cell in second] == [
        None,
        None,
        "residual",
        "residual",
    ]
    assert {cell.key for cell in second if cell.adaptation is None} < {cell.key for cell in first}
    run_experiment(both, tmp_path / "out", None, lambda sentence: None)
    results = pl.read_csv(tmp_path / "out" / "results.csv")
    assert results["representation"].to_list()[2:] == ["random/resnet10t@1,2 + residual shots=3"] * 2
    assert results["image_auroc"][0] != results["image_auroc"][2]


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("shots = 3", "shot = 3", UnknownParameter),
        ("shots = 3", "shots = 0", UsageError),
        ('"residual"', '"residuals"', UnknownName),
        ('name = "none"', 'name = "none"\nparameters = { shots = 1 }', UsageError),
    ],
)
def test_an_adaptation_is_checked_with_the_plan(
    old: str, new: str, error: type[Exception], experiment: Path
) -> None:
    experiment.write_text(experiment.read_text() + ADAPTED.replace(old, new))
    with pytest.raises(error):
        read_experiment(experiment)
