"""No figure on images that the model has seen, whatever their files are called."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import kizu
from kizu.errors import UsageError
from kizu.evaluation.calibrated import fit_calibrated
from kizu.evaluation.run import Run, evaluate
from kizu.evaluation.seen import seen_rows
from kizu.images import floats_digest, image_digest, open_image, values_digest
from kizu.representations.sources import save_representation
from kizu.samples import Samples
from kizu.store import load_card
from kizu.types import Batch

Cli = Callable[..., tuple[int, str, str]]
FAST = ("--detector", "gaussian", "--representation", "random/resnet10t@2", "--set", "image_size=64")


@pytest.fixture
def folder(tiny_planted: Samples, tmp_path: Path) -> Path:
    """good/ + bad/, without an official split: 20 good, 12 flawed."""
    root = tmp_path / "photos"
    for name, paths in (
        ("good", tiny_planted.train.paths[:20]),
        ("bad", tiny_planted.test.anomalous.paths),
    ):
        (root / name).mkdir(parents=True)
        for number, path in enumerate(paths):
            shutil.copy(path, root / name / f"{number:03}.png")
    return root


def test_evaluating_on_what_was_fitted_is_refused(folder: Path, tmp_path: Path, run_cli: Cli) -> None:
    assert run_cli("fit", folder, *FAST, "-o", tmp_path / "m.kizu")[0] == 0
    code, _, err = run_cli("evaluate", tmp_path / "m.kizu", folder, "-o", tmp_path / "run")
    assert code == 2
    assert "has seen all 20 good images" in err
    assert not (tmp_path / "run").exists()
    code, out, _ = run_cli(
        "evaluate", tmp_path / "m.kizu", folder, "-o", tmp_path / "run", "--allow-seen", "--json"
    )
    assert code == 0
    assert json.loads(out)["seen"] is True


def test_seen_images_are_left_out_and_counted(
    folder: Path, tiny_planted: Samples, tmp_path: Path, run_cli: Cli
) -> None:
    """Under other names, in another file format, and among new ones."""
    assert run_cli("fit", folder, *FAST, "-o", tmp_path / "m.kizu")[0] == 0
    other = tmp_path / "other"
    shutil.copytree(folder / "bad", other / "bad")
    (other / "good").mkdir()
    for number, path in enumerate(sorted((folder / "good").iterdir())[:5]):
        Image.fromarray(open_image(path)).save(other / "good" / f"again{number}.bmp")
    for path in tiny_planted.test.normal.paths:
        shutil.copy(path, other / "good" / f"new{Path(path).name}")
    code, out, _ = run_cli("evaluate", tmp_path / "m.kizu", other, "-o", tmp_path / "run", "--json")
    facts = json.loads(out)
    assert code == 0
    assert (facts["seen"], facts["left_out"]) == (False, 5)
    record = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert record["counts"]["test_normal"] == 12
    assert "left out: 5 images that the model has seen" in record["notes"]


@pytest.mark.parametrize("method", ["split", "cross"])
def test_the_model_file_knows_them(method: str, tiny_planted: Samples, tmp_path: Path) -> None:
    """Fitted on, calibrated on; after loading too. Images that could not have been seen are not."""
    detector = kizu.detector("gaussian", "random/resnet10t@2", image_size=64)
    fit_calibrated(detector, tiny_planted.train, method=method, false_alarm_rate=0.2)
    detector.save(tmp_path / "m.kizu")
    loaded = kizu.load(tmp_path / "m.kizu")
    known = [image_digest(path) for path in tiny_planted.train.paths]
    assert set(loaded.seen_["fitted"]) | set(loaded.seen_["calibrated"]) == set(known)
    assert len(loaded.seen_["calibrated"]) == (5 if method == "split" else 24)
    assert seen_rows(loaded, tiny_planted) == list(range(24))


def test_images_in_memory_are_known_too(tiny_planted: Samples) -> None:
    """A file, its pixels as an array, a PIL image and a tensor are one image; BGR is turned first."""
    paths = tiny_planted.train.paths[:4]
    arrays = [open_image(path) for path in paths]
    tensors = torch.stack([torch.from_numpy(a).permute(2, 0, 1).float() / 255 for a in arrays])
    expected = [image_digest(path) for path in paths]
    detector = kizu.detector("gaussian", "random/resnet10t@2", image_size=32)
    for data in (
        paths,
        arrays,
        np.stack(arrays),
        [Image.fromarray(a) for a in arrays],
        tensors,
        Batch(tensors),
    ):
        assert detector.fit(data).seen_["fitted"] == expected
    turned = [np.ascontiguousarray(array[..., ::-1]) for array in arrays]
    assert detector.fit(turned, channels="bgr").seen_["fitted"] == expected
    assert floats_digest(arrays[0].transpose(2, 0, 1).astype(np.float32) / 255) == expected[0]
    assert floats_digest(np.full((3, 4, 4), 0.1234, np.float32)) != values_digest(
        np.zeros((4, 4, 3), np.uint8)
    )


def test_a_pretrained_network_knows_its_images(folder: Path, tmp_path: Path) -> None:
    """Pretrained on a folder, then fitted on other images and measured on the folder: refused."""
    from kizu.pretraining.run import pretrain

    pretrain(
        "simsiam", folder, tmp_path / "net", steps=4, batch_size=8, size=32, backbone="resnet10t", hidden=16,
        predictor_hidden=8, show=False,
    )  # fmt: skip
    samples = kizu.dataset("folder", folder)
    assert len(load_card(tmp_path / "net")["representation"]["images_seen"]) == len(samples)
    detector = kizu.detector("gaussian", kizu.representation(tmp_path / "net"), image_size=64)
    detector.fit(torch.rand(4, 3, 64, 64))
    assert seen_rows(detector, samples) == list(range(len(samples)))
    with pytest.raises(UsageError, match="has seen all 20 good images"):
        evaluate(detector, samples, tmp_path / "run", Run("again"))


def test_a_card_lists_no_million_images(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kizu.pretraining import _encoder_job, run

    monkeypatch.setattr(_encoder_job, "MAX_SEEN", 10)
    run.pretrain(
        "simsiam", folder, tmp_path / "net", steps=1, batch_size=2, size=32, backbone="resnet10t", hidden=16,
        predictor_hidden=8, show=False,
    )  # fmt: skip
    card = load_card(tmp_path / "net")["representation"]
    assert "images_seen" not in card
    assert card["trained_on"] == ["photos"]


def test_a_decision_belongs_to_the_size_that_was_fitted(tiny_planted: Samples) -> None:
    detector = kizu.detector("gaussian", "random/resnet10t@2", image_size=64)
    fit_calibrated(detector, tiny_planted.train, false_alarm_rate=0.2)
    detector.predict(torch.rand(1, 3, 64, 64))
    with pytest.raises(UsageError, match=r"calibrated on images of \(64, 64\) pixels.*\(96, 96\)"):
        detector.predict(torch.rand(1, 3, 96, 96))


def test_bench_and_diagnose_leave_out_what_was_seen(
    folder: Path, tiny_planted: Samples, tmp_path: Path, run_cli: Cli
) -> None:
    """Two test images that the representation was trained on, and a copy of one that is learned from."""
    lab = tmp_path / "lab"
    (lab / "train").mkdir(parents=True)
    shutil.move(folder / "good", lab / "train" / "good")
    shutil.copytree(folder / "bad", lab / "test" / "bad")
    (lab / "test" / "good").mkdir()
    for number, path in enumerate(tiny_planted.test.normal.paths[:6]):
        shutil.copy(path, lab / "test" / "good" / f"{number}.png")
    shutil.copy(lab / "train" / "good" / "000.png", lab / "test" / "good" / "copy.png")
    net = kizu.representation("random/resnet10t@1,2")
    seen = (lab / "test" / "bad" / "000.png", lab / "test" / "good" / "0.png")
    net.card["images_seen"] = [image_digest(path) for path in seen]
    save_representation(net, tmp_path / "net")
    (tmp_path / "x.toml").write_text(
        f"""
[[dataset]]
name = "folder"
path = "{lab}"
[[representation]]
name = "{tmp_path / "net"}"
[[detector]]
name = "gaussian"
parameters = {{ image_size = 32 }}
[[protocol]]
name = "one_class"
"""
    )
    assert run_cli("bench", tmp_path / "x.toml", "-o", tmp_path / "run")[0] == 0
    (row,) = pl.read_csv(tmp_path / "run" / "results.csv").to_dicts()
    assert [row[name] for name in ("left_out", "test_normal", "test_anomalous")] == [3, 5, 11]
    assert "Up to 3 test images" in (tmp_path / "run" / "results.md").read_text("utf-8")
    small = ("iterations=2", "image_size=32", "batch_size=4", "embedding_width=8")
    sets = [part for text in small for part in ("--set", text)]
    more = ("--representation", tmp_path / "net", "--every", 2, "-o", tmp_path / "d", "--json")
    code, out, _ = run_cli("diagnose", lab, *sets, *more)
    assert (code, json.loads(out)["left_out"]) == (0, 3)
    trained = kizu.representation("random/resnet10t@1,2")
    trained.card["trained_on"] = ["folder"]
    save_representation(trained, tmp_path / "trained")
    more = ("--representation", tmp_path / "trained", "--every", 2, "-o", tmp_path / "t")
    code, _, err = run_cli("diagnose", lab, *sets, *more)
    assert (code, "was trained on folder" in err) == (2, True)
    net.card["images_seen"] = [image_digest(path) for path in (lab / "test" / "good").iterdir()]
    save_representation(net, tmp_path / "net", overwrite=True)
    code, _, err = run_cli("bench", tmp_path / "x.toml", "-o", tmp_path / "again")
    assert (code, "has seen all 7 good images" in err) == (1, True)
