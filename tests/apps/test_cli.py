"""The main job at the command line, whole; and every kind of bad input, each with its one sentence and its
exit code."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

import kizu
from kizu import outputs
from kizu.locks import locked
from kizu.samples import Samples

Cli = Callable[..., tuple[int, str, str]]
FAST = (
    "--detector",
    "padim",
    "--representation",
    "random/resnet10t@1,2",
    "--set",
    "image_size=64",
    "--set",
    "dimensions=16",
)


@pytest.fixture(scope="module")
def tree(tiny_planted: Samples) -> Path:
    """The planted images as they lie on disk, MVTec-like: capsule/train/good, test/..., ground_truth/..."""
    return Path(tiny_planted.paths[0]).parents[2]


@pytest.fixture(scope="module")
def model(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.kizu"
    from kizu.apps import cli

    with pytest.raises(SystemExit) as stop:
        cli.main(
            [
                "fit",
                str(tree / "train" / "good"),
                *FAST,
                "--false-alarm-rate",
                "0.1",
                "-o",
                str(path),
                "--json",
            ]
        )
    assert stop.value.code == 0
    return path


def test_fit_says_what_it_promises(tree: Path, tmp_path: Path, run_cli: Cli) -> None:
    code, out, err = run_cli(
        "fit", tree / "train" / "good", *FAST, "--false-alarm-rate", 0.1, "-o", tmp_path / "m.kizu"
    )
    assert code == 0
    assert out == ""
    assert "Expected: about 10.00% of good parts" in err
    assert "each scored by a model that had not seen it" in err
    assert "an estimate, no promise" in err
    loaded = kizu.load(tmp_path / "m.kizu")
    assert loaded.image_size == (64, 64)
    assert loaded.dimensions == 16


def test_inspect(model: Path, tree: Path, tmp_path: Path, run_cli: Cli) -> None:
    code, out, _ = run_cli("inspect", model, tree / "test", "-o", tmp_path / "out", "--json")
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 24
    keys = {"path", "score", "p_value", "is_anomalous", "regions", "panel", "error"}
    assert all(set(row) == keys for row in rows)
    assert all(row["is_anomalous"] == (row["p_value"] <= 0.1) for row in rows)
    kept = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text("utf-8").splitlines()]
    assert [row["path"] for row in kept] == [row["path"] for row in rows]
    assert all((tmp_path / "out" / row["panel"]).stat().st_size > 1000 for row in kept)
    assert (tmp_path / "out" / "index.html").exists()


def test_evaluate(model: Path, tree: Path, tmp_path: Path, run_cli: Cli) -> None:
    code, out, _ = run_cli("evaluate", model, tree, "-o", tmp_path / "run", "--json")
    assert code == 0
    figures = json.loads(out)
    assert {
        "image_auroc",
        "image_ap",
        "image_f1_max_oracle",
        "pixel_auroc",
        "pixel_ap",
        "pixel_f1_max_oracle",
        "aupro_0.3",
    } <= set(figures)
    run = tmp_path / "run"
    facts = json.loads((run / "run.json").read_text("utf-8"))
    assert facts["counts"] == {"train": 24, "test_normal": 12, "test_anomalous": 12}
    samples = pl.read_parquet(run / "samples.parquet")
    with np.load(run / "maps.npz", allow_pickle=False) as maps:
        whole = np.stack([maps[str(row)].astype(np.float32) * maps["scale"] for row in samples["row"]])
    prediction = kizu.load(model).predict(samples["image"].to_list())
    assert np.allclose(samples["score"].to_numpy(), prediction.score.numpy())
    assert np.allclose(whole, prediction.map.numpy(), rtol=1e-3, atol=1e-2)
    page = (run / "report.html").read_text("utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    HTMLParser().feed(page)
    assert len(list((run / "images").iterdir())) == 24
    assert len(list((run / "masks").iterdir())) == 12


def test_metrics_of_a_run_are_those_of_its_scores(
    model: Path, tree: Path, tmp_path: Path, run_cli: Cli
) -> None:
    from sklearn.metrics import roc_auc_score

    _, out, _ = run_cli("evaluate", model, tree, "-o", tmp_path / "run", "--json")
    samples = pl.read_parquet(tmp_path / "run" / "samples.parquet")
    assert json.loads(out)["image_auroc"] == pytest.approx(
        roc_auc_score(samples["label"], samples["score"]), abs=1e-9
    )
    flagged = samples.filter(pl.col("is_anomalous"))
    assert json.loads(out)["false_alarms"] == flagged.filter(pl.col("label") == 0).height
    assert json.loads(out)["detected"] == flagged.filter(pl.col("label") == 1).height


def broken_folder(tree: Path, folder: Path) -> dict[str, Path]:
    """Two good images among all that may go wrong with a file."""
    folder.mkdir()
    good = sorted((tree / "train" / "good").iterdir())
    shutil.copy(good[0], folder / "a_fine.png")
    shutil.copy(good[1], folder / "z_fine.png")
    bad = {name: folder / name for name in ("cut.jpg", "empty.png", "words.png")}
    Image.open(good[0]).convert("RGB").save(folder / "cut.jpg", quality=95)
    bad["cut.jpg"].write_bytes(bad["cut.jpg"].read_bytes()[:700])
    bad["empty.png"].write_bytes(b"")
    bad["words.png"].write_text("this is no image")
    return bad


def test_a_broken_file_costs_itself_and_exit_code_1(
    model: Path, tree: Path, tmp_path: Path, run_cli: Cli
) -> None:
    bad = broken_folder(tree, tmp_path / "in")
    code, _, err = run_cli("inspect", model, tmp_path / "in", "-o", tmp_path / "out")
    assert code == 1
    assert "3 files not used: " in err
    assert all(str(path) in err for path in bad.values())
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text("utf-8").splitlines()]
    assert sum(row["error"] is None for row in rows) == 2
    code, _, err = run_cli("fit", tmp_path / "in", *FAST, "--calibration", "none", "-o", tmp_path / "m.kizu")
    assert code == 1
    assert "3 files not used: " in err
    assert kizu.load(tmp_path / "m.kizu").images_seen_ == 2


@pytest.mark.parametrize("mode", ["I;16", "P", "CMYK", "RGBA", "LA", "1", "L"])
def test_images_of_every_kind_are_looked_at(
    mode: str, model: Path, tree: Path, tmp_path: Path, run_cli: Cli
) -> None:
    image = Image.open(next((tree / "train" / "good").iterdir())).convert("RGB")
    path = tmp_path / {"I;16": "x.tif", "CMYK": "x.jpg"}.get(mode, "x.png")
    if mode == "I;16":
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(path)
    else:
        image.convert(mode).save(path)
    code, out, _ = run_cli("inspect", model, path, "-o", tmp_path / "out", "--json")
    assert code == 0
    assert np.isfinite(json.loads(out)["score"])


@pytest.mark.slow
@pytest.mark.filterwarnings("always::kizu.errors.OtherSize")
def test_one_pixel_and_far_too_many(model: Path, tmp_path: Path, run_cli: Cli) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    code, out, err = run_cli(
        "inspect", model, tmp_path / "one.png", tmp_path / "huge.png", "-o", tmp_path / "out", "--json"
    )
    assert code == 1
    assert err.count("Warning: There are images of 1 x 1 pixels") == 1
    one, huge = (json.loads(line) for line in out.splitlines())
    assert one["error"] is None
    assert "20000" in huge["error"].replace(",", "").replace(" ", "")


@pytest.mark.filterwarnings("always::kizu.errors.OtherSize")
def test_files_of_another_size_are_warned_of_once(model: Path, tmp_path: Path, run_cli: Cli) -> None:
    for number in range(150):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{number}.png")
    code, _, err = run_cli("inspect", model, tmp_path, "--no-panels", "-o", tmp_path / "out")
    assert (code, err.count("Warning: There are images of 9 x 9 pixels")) == (0, 1)


def one_line(code: int, err: str, *words: str) -> None:
    assert code == 2
    assert len(err.strip().splitlines()) == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_misuse_is_one_line_and_exit_2(model: Path, tree: Path, tmp_path: Path, run_cli: Cli) -> None:
    good = tree / "train" / "good"
    out = ("-o", tmp_path / "out")

    def told(*arguments: object) -> tuple[int, str]:
        code, _, err = run_cli(*arguments)
        return code, err

    one_line(*told("fit", good, "--detector", "pathcore", *out), "Did you mean 'patchcore'")
    one_line(*told("fit", good, "--set", "corset=0.1", *out), "Did you mean 'coreset'")
    one_line(*told("fit", good, "--set", "coreset=much", *out), "coreset is float", "'much'")
    one_line(*told("fit", good, "--set", "coreset", *out), "name=value")
    one_line(*told("fit", good, *FAST, "--false-alarm-rate", 0.001, *out), "takes 999 good images", "24")
    one_line(*told("fit", good, *FAST, "--false-alarm-rate", 1.5, *out), "between 0 and 1")
    one_line(*told("fit", good, "--dataset", "mvtek", *out), "Did you mean 'mvtec'")
    one_line(
        *told("fit", good, "--representation", "timm/resnet18.tv_in1k", *out),
        "use the default imagenet/efficientnet_lite0",
    )
    one_line(*told("fit", tmp_path / "nowhere", *FAST, *out), "nowhere")
    one_line(*told("inspect", tmp_path / "none.kizu", good, *out), "does not exist")
    one_line(*told("evaluate", model, tree, "-o", model), "is an input")
    one_line(*told("fit", good, *FAST, "-o", model), "--overwrite")
    one_line(*told("list", "kitchen"), "no room")
    one_line(*told("data", "check", "nothing", good), "no dataset")
    assert not (tmp_path / "out").exists(), "nothing is left behind"


def test_empty_folders_and_no_good_images(model: Path, tree: Path, tmp_path: Path, run_cli: Cli) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad" / "scratch").mkdir(parents=True)
    shutil.copy(next((tree / "train" / "good").iterdir()), tmp_path / "bad" / "scratch" / "1.png")
    for arguments in (
        ("fit", tmp_path / "empty", *FAST, "-o", tmp_path / "m"),
        ("fit", tmp_path / "bad", *FAST, "-o", tmp_path / "m"),
        ("inspect", model, tmp_path / "empty", "-o", tmp_path / "o"),
    ):
        code, _, err = run_cli(*arguments)
        one_line(code, err)


def test_one_single_good_image(tree: Path, tmp_path: Path, run_cli: Cli) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    shutil.copy(next((tree / "train" / "good").iterdir()), folder / "only.png")
    code, _, err = run_cli("fit", folder, *FAST, "-o", tmp_path / "m.kizu")
    assert code == 0
    assert "Not calibrated" in err
    code, out, _ = run_cli("inspect", tmp_path / "m.kizu", folder, "-o", tmp_path / "o", "--json")
    assert code == 0
    assert json.loads(out)["p_value"] is None


def test_a_model_cut_in_half(model: Path, tree: Path, tmp_path: Path, run_cli: Cli) -> None:
    path = tmp_path / "half.kizu"
    path.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    code, _, err = run_cli("inspect", path, tree, "-o", tmp_path / "o")
    one_line(code, err, "damaged")


def test_ctrl_c_in_the_middle_of_fit(
    tree: Path, tmp_path: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kizu.detectors.padim import PaDiM

    def interrupted(self: PaDiM, features: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PaDiM, "_partial_fit", interrupted)
    code, _, err = run_cli("fit", tree / "train" / "good", *FAST, "-o", tmp_path / "m.kizu")
    assert code == 130
    assert "Interrupted" in err
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(tree: Path, tmp_path: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(outputs, "_flush", full)
    code, _, err = run_cli("fit", tree / "train" / "good", *FAST, "-o", tmp_path / "m.kizu")
    assert code == 2
    assert "disk is full" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_interrupted_inspection_resumes(
    model: Path, tree: Path, tmp_path: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kizu.detectors.padim import PaDiM

    files = sorted((tree / "test").rglob("*.png"))
    real, seen = PaDiM.predict_batches, []

    def stops(self: PaDiM, images: object, **keywords: object) -> object:
        if seen:
            raise KeyboardInterrupt
        seen.append(1)
        return real(self, images, **keywords)

    monkeypatch.setattr(PaDiM, "predict_batches", stops)
    monkeypatch.setattr(
        "kizu.apps._inspect._chunks",
        lambda left, size: (left[at : at + 10] for at in range(0, len(left), 10)),
    )
    code, _, _ = run_cli("inspect", model, *files, "-o", tmp_path / "out")
    assert code == 130
    assert len((tmp_path / "out" / "results.jsonl").read_text("utf-8").splitlines()) == 10
    monkeypatch.setattr(PaDiM, "predict_batches", real)
    code, _, err = run_cli("inspect", model, *files, "-o", tmp_path / "out")
    one_line(code, err, "exists already")
    code, _, _ = run_cli("inspect", model, *files, "-o", tmp_path / "out", "--resume")
    assert code == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text("utf-8").splitlines()]
    assert [row["path"] for row in rows] == [str(path) for path in files]
    assert len({row["panel"] for row in rows}) == len(files)


def test_an_inspection_is_resumed_with_its_own_model_only(
    model: Path, tree: Path, tmp_path: Path, run_cli: Cli
) -> None:
    files = sorted((tree / "test").rglob("*.png"))[:3]
    other, out = tmp_path / "other.kizu", tmp_path / "out"
    assert run_cli("fit", tree / "train" / "good", *FAST, "--set", "seed=1", "-o", other)[0] == 0
    assert run_cli("inspect", model, *files[:2], "-o", out)[0] == 0
    before = {name: (out / name).read_bytes() for name in ("results.jsonl", "inspection.json")}
    code, _, err = run_cli("inspect", other, *files, "-o", out, "--resume")
    one_line(code, err, "holds results of another model")
    assert "another -o" in err
    code, _, err = run_cli("inspect", model, *files, "-o", out, "--resume", "--precision", "bf16")
    one_line(code, err, "holds results in another --precision")
    assert {name: (out / name).read_bytes() for name in before} == before
    as_folder = tmp_path / "as_folder"
    shutil.unpack_archive(shutil.copy(model, tmp_path / "m.zip"), as_folder)
    assert run_cli("inspect", as_folder, *files, "-o", out, "--resume")[0] == 0, "the same model, unpacked"
    assert len((out / "results.jsonl").read_text("utf-8").splitlines()) == 3
    with locked(out):
        code, _, err = run_cli("inspect", model, *files, "-o", out, "--resume")
    one_line(code, err, "Another run is writing")
    (out / "results.jsonl").write_text('{"path": 1}}\n{"path": "a"}\n')
    code, _, err = run_cli("inspect", model, *files, "-o", out, "--resume")
    one_line(code, err, "line 1, is damaged")


def test_a_resumed_inspection_knows_its_images(model: Path, tree: Path, tmp_path: Path, run_cli: Cli) -> None:
    """An image replaced under its name is inspected anew, one whose file is gone keeps its line, and lines of
    images that are not given are not shown among others."""
    parts, out = tmp_path / "parts", tmp_path / "out"
    parts.mkdir()
    good = sorted((tree / "test" / "good").glob("*.png"))
    bad = sorted(set((tree / "test").rglob("*.png")) - set(good))
    for number, file in enumerate(good[:3]):
        shutil.copy(file, parts / f"{number}.png")
    (parts / "3.png").write_bytes(b"half")
    assert run_cli("inspect", model, parts, "-o", out)[0] == 1

    def rows() -> dict[str, dict[str, Any]]:
        lines = (out / "results.jsonl").read_text("utf-8").splitlines()
        return {Path(row["path"]).name: row for row in map(json.loads, lines)}

    before = rows()
    shutil.copy(bad[0], parts / "0.png")
    shutil.copy(good[4], parts / "3.png")
    (parts / "1.png").unlink()
    shutil.copy(good[5], parts / "4.png")
    code, _, err = run_cli("inspect", model, parts, "-o", out, "--resume")
    assert code == 0
    assert "changed since, inspected anew: 2" in err
    after = rows()
    assert sorted(after) == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert [after[name] == before[name] for name in sorted(before)] == [False, True, True, False]
    assert after["3.png"]["error"] is None
    truth = kizu.load(model).predict([parts / name for name in ("0.png", "3.png", "4.png")]).score.tolist()
    assert [after[name]["score"] for name in ("0.png", "3.png", "4.png")] == pytest.approx(truth)
    assert len({row["panel"] for row in after.values()}) == 5, "no panel is written over"
    code, _, err = run_cli("inspect", model, good[6], "-o", out, "--resume")
    one_line(code, err, "images that are not given now")
    assert rows() == after


def test_list_and_version(run_cli: Cli) -> None:
    code, out, _ = run_cli("list", "detectors", "--json")
    assert code == 0
    assert {"gaussian", "padim", "patchcore"} <= {row["name"] for row in json.loads(out)}
    assert all(row["summary"] for row in json.loads(out))
    assert run_cli("--version")[1].strip() == f"kizu {kizu.__version__}"


def test_data_check(tree: Path, run_cli: Cli) -> None:
    code, out, _ = run_cli("data", "check", "folder", tree, "--json")
    assert code == 0, out
    assert json.loads(out)["ok"] is True


@pytest.mark.slow
def test_quick_demo(tmp_path: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same steps on fewer, smaller images."""
    import kizu.apps._demo as module

    monkeypatch.setattr(module, "QUICK", {"products": ("capsule",), "size": 64, "train": 20})
    code, _, err = run_cli("demo", "-o", tmp_path / "demo", "--quick")
    assert code == 0, err
    assert "imagenet/efficientnet_lite0" in err, "it says which representation it takes"
    assert (tmp_path / "demo" / "capsule" / "run" / "report.html").exists()
    assert (tmp_path / "demo" / "capsule" / "model.kizu").exists()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    from kizu.apps import cli
    from kizu.errors import ModelFileError

    with pytest.raises(ModelFileError):
        cli.main(
            ["--debug", "inspect", str(tmp_path / "none.kizu"), str(tmp_path), "-o", str(tmp_path / "o")]
        )
