"""A pretraining run as a whole: its folder, its card, what is refused and what is left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from kizu import pretraining, registry, store
from kizu.errors import EmptyData, LayoutError, ModelFileError, OutputExists, UnknownName, UsageError
from kizu.locks import locked
from kizu.pretraining import pretrain, resume
from kizu.pretraining.simsiam import SimSiam

PARAMETERS: dict[str, Any] = {
    "steps": 2, "backbone": "resnet10t", "stages": 1, "size": 32, "batch_size": 4,
    "device": "cpu", "precision": "fp32", "show": False,
    "log_every": 1, "hidden": 16, "predictor_hidden": 8,
}  # fmt: skip
SUPERVISED = {key: value for key, value in PARAMETERS.items() if "hidden" not in key}
WHOLE = [store.CARD, "log.jsonl", "recipe.json", store.WEIGHTS]


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of three images, one of them broken."""
    folder = tmp_path_factory.mktemp("photos") / "photos"
    for number, name in enumerate(("a", "a", "a", "b", "b", "b")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40 + number, 50), 60).convert("RGB").save(folder / name / f"{number}.png")
    (folder / "b" / "4.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A supervised run of two steps on the photos."""
    return pretrain(
        "supervised", photos, tmp_path_factory.mktemp("run") / "rep", **{**SUPERVISED, "steps": 3}
    )


class Dies(Exception):
    """Stands for a machine that stops."""


@pytest.fixture
def dies_in_step_1(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    def after(self: SimSiam, step: int, steps: int) -> None:
        if step == 1:
            raise Dies

    monkeypatch.setattr(SimSiam, "after_step", after)
    return monkeypatch


def test_the_folder_and_its_card(finished: Path, photos: Path) -> None:
    assert files(finished) == sorted([*WHOLE, "skipped.json"])
    card = store.load_card(finished)["representation"]
    assert card["name"] == "supervised/resnet10t"
    assert card["trained_on"] == ["photos"]
    assert card["data"] == [{"name": "photos", "images": 6, "classes": 2}]
    assert card["skipped_images"] == 1
    assert list(json.loads((finished / "skipped.json").read_text("utf-8"))) == [str(photos / "b" / "4.png")]
    assert [row["step"] for row in card["curve"]] == [1, 2, 3]
    assert set(card["curve"][0]) == {"step", "loss", "accuracy", "lr", "images_per_s"}
    assert card["recipe"]["data"] == ["photos"]
    assert json.loads((finished / "recipe.json").read_text("utf-8"))["data"] == [str(photos)]
    assert card["recipe"]["steps"] == 3


def test_data_are_found_again_from_another_place(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    objective = pretrain("supervised", photos.name, tmp_path / "out", **SUPERVISED)
    assert json.loads((objective / "recipe.json").read_text("utf-8"))["data"] == [str(photos)]


@pytest.mark.parametrize("name", ["simsiam", "moco", "byol"])
def test_training_begins_with_the_weights_of_a_representation(name: str, finished: Path) -> None:
    more = {"queue": 8} if name == "moco" else {}
    objective = registry.load("pretraining", name)(
        backbone="resnet10t", stages=1, size=32, batch_size=4, **more
    )
    assert objective.initialise_from(str(finished))["name"] == "supervised/resnet10t@1"
    stored = store.load(finished)[0]
    copies = [
        getattr(objective, part)
        for part in ("encoder", "key_encoder", "target_encoder")
        if hasattr(objective, part)
    ]
    assert len(copies) == (1 if name == "simsiam" else 2)
    for part in copies:
        assert all(torch.equal(value, stored[f"net.{key}"]) for key, value in part.net.state_dict().items())
    with pytest.raises(UsageError, match="name that --backbone"):
        registry.load("pretraining", name)(
            backbone="resnet18", stages=1, size=32, batch_size=4, **more
        ).initialise_from(str(finished))


@pytest.mark.slow
def test_a_run_that_initialised_from_another_says_so(
    finished: Path, photos: Path, tmp_path: Path, dies_in_step_1: pytest.MonkeyPatch
) -> None:
    before = pretrain("simsiam", photos, tmp_path / "one", init=f"{finished}@1", **{**PARAMETERS, "steps": 1})
    card = store.load_card(before)["representation"]
    assert str(photos.parent) not in json.dumps(card)
    assert str(finished.parent) not in json.dumps(card)
    assert card["recipe"]["initialised_from"]["name"] == "supervised/resnet10t"
    assert "and of supervised/resnet10t: that of the images" in card["licence"]
    assert card["trained_on"] == ["photos"]
    with pytest.raises(Dies):
        pretrain(
            "simsiam",
            photos,
            tmp_path / "two",
            init=str(finished),
            checkpoint_every=1,
            **{**PARAMETERS, "steps": 3},
        )
    dies_in_step_1.undo()
    assert (
        store.load_card(resume(tmp_path / "two", show=False))["representation"]["recipe"]["initialised_from"][
            "name"
        ]
        == "supervised/resnet10t"
    )
    with pytest.raises(UnknownName):
        pretrain("simsiam", photos, tmp_path / "three", init="kizu/startr", **PARAMETERS)
    assert not (tmp_path / "three").exists() or not any((tmp_path / "three").iterdir())


def test_a_finished_run_stays_as_it_is(finished: Path, tmp_path: Path) -> None:
    for checkpoint in (False, True):  # one that was killed before it removed its checkpoint has both
        if checkpoint:
            (finished / "checkpoint.kizu").write_bytes(b"left")
        before = {name: (finished / name).read_bytes() for name in files(finished)}
        assert resume(finished) == finished
        assert {name: (finished / name).read_bytes() for name in files(finished)} == before
    (finished / "checkpoint.kizu").unlink()
    with pytest.raises(UsageError, match="holds no pretraining run"):
        resume(tmp_path)


def test_an_output_is_kept_until_there_is_something_to_train(finished: Path, photos: Path) -> None:
    before = {name: (finished / name).read_bytes() for name in files(finished)}
    with pytest.raises(OutputExists):
        pretrain("supervised", photos, finished, **SUPERVISED)
    with pytest.raises(LayoutError, match="is no folder"):
        pretrain("supervised", photos / "absent", finished, overwrite=True, **SUPERVISED)
    with pytest.raises(UsageError, match="There are 6 images, a batch has 8"):
        pretrain("supervised", photos, finished, overwrite=True, **{**SUPERVISED, "batch_size": 8})
    assert {name: (finished / name).read_bytes() for name in files(finished)} == before


@pytest.mark.slow
def test_an_interrupted_run_goes_on(tmp_path: Path, dies_in_step_1: pytest.MonkeyPatch) -> None:
    out = tmp_path / "cut"
    parameters = {**PARAMETERS, "steps": 3, "spd": True, "checkpoint_every": 1}
    with pytest.raises(Dies):
        pretrain("simsiam", "procedural", out, **parameters)
    assert files(out) == ["checkpoint.kizu", "log.jsonl", "recipe.json"]
    with pytest.raises(OutputExists):
        pretrain("simsiam", "procedural", out, **parameters)
    dies_in_step_1.undo()
    assert resume(out, show=False) == out
    whole = pretrain("simsiam", "procedural", tmp_path / "whole", **parameters)
    assert files(out) == files(whole) == sorted(WHOLE)
    (resumed, _), (expected, _) = store.load(out), store.load(whole)
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_without_a_checkpoint_nothing_is_erased(tmp_path: Path, dies_in_step_1: pytest.MonkeyPatch) -> None:
    with pytest.raises(Dies):
        pretrain("simsiam", "procedural", tmp_path, **PARAMETERS)
    dies_in_step_1.undo()
    (tmp_path / store.WEIGHTS).write_bytes(b"of another run, whose card is gone")
    before = files(tmp_path)
    assert before == ["log.jsonl", "recipe.json", store.WEIGHTS]
    with pytest.raises(UsageError, match=r"no checkpoint to go on from.*--overwrite"):
        resume(tmp_path, show=False)
    assert files(tmp_path) == before


def test_a_run_is_resumed_with_its_own_settings_and_images(
    photos: Path, tmp_path: Path, dies_in_step_1: pytest.MonkeyPatch
) -> None:
    mine, out = tmp_path / "mine", tmp_path / "out"
    shutil.copytree(photos, mine)
    with pytest.raises(Dies):
        pretrain("simsiam", mine, out, **{**PARAMETERS, "checkpoint_every": 1})
    dies_in_step_1.undo()
    for given, message in (
        ({"steps": 3}, "steps is 2 there, not 3"),
        ({"objective": "moco"}, "objective is 'simsiam' there"),
        ({"data": [photos]}, "data is"),
        ({"learning_rate": 0.3}, r"learning_rate is 0.05 there, not 0.3"),
    ):
        with pytest.raises(UsageError, match=message):
            resume(out, given=given, show=False)
    with locked(out), pytest.raises(UsageError, match="Another run is writing"):
        resume(out, show=False)
    with locked(out), pytest.raises(UsageError, match="Another run is writing"):
        pretrain("simsiam", mine, out, overwrite=True, **PARAMETERS)
    shutil.copy(mine / "a" / "1.png", mine / "a" / "0.png")  # another image of the same name
    with pytest.raises(UsageError, match="of another recipe: images was"):
        resume(out, show=False)
    shutil.copy(photos / "a" / "0.png", mine / "a" / "0.png")
    same = {"steps": 2, "data": [mine], "learning_rate": 0.05, "objective": "simsiam"}
    assert resume(out, given=same, show=False) == out


def test_overwrite_replaces_all_of_the_old_run(tmp_path: Path) -> None:
    pretrain("simsiam", "procedural", tmp_path, **PARAMETERS)
    (tmp_path / "skipped.json").write_text("{}")
    pretrain("simsiam", "procedural", tmp_path, overwrite=True, seed=5, **{**PARAMETERS, "steps": 1})
    assert files(tmp_path) == sorted(WHOLE)
    assert store.load_card(tmp_path)["representation"]["recipe"]["parameters"]["seed"] == 5


def test_what_cannot_be_trained_leaves_the_place_free(tmp_path: Path, photos: Path) -> None:
    out, broken = tmp_path / "rep", tmp_path / "broken"
    broken.mkdir()
    with pytest.raises(EmptyData, match="holds no images"):
        pretrain("simsiam", broken, out, **PARAMETERS)
    for number in range(4):
        (broken / f"{number}.png").write_text("x")
    with pytest.raises(EmptyData, match="None of the 4 images can be read"):
        pretrain("simsiam", [broken], out, **PARAMETERS)
    with pytest.raises(UsageError, match="cannot be shared by 1 processes x 3 parts"):
        pretrain("simsiam", photos, out, accumulate=3, **PARAMETERS)
    with pytest.raises(UsageError, match="2 images at a time"):
        pretrain("simsiam", photos, out, accumulate=4, **PARAMETERS)
    with pytest.raises(UsageError, match="two classes or more"):
        pretrain("supervised", photos / "a", out, **{**SUPERVISED, "batch_size": 2})
    with pytest.raises(UsageError, match="source_size is a whole number from 1 on"):
        pretrain("simsiam", photos, out, source_size=0, **PARAMETERS)
    assert not out.exists() or files(out) == []


def test_a_damaged_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"objective": "sims')
    with pytest.raises(ModelFileError, match=r"recipe\.json"):
        resume(tmp_path)


def test_another_recipes_checkpoint(tmp_path: Path, dies_in_step_1: pytest.MonkeyPatch) -> None:
    with pytest.raises(Dies):
        pretrain("simsiam", "procedural", tmp_path, **{**PARAMETERS, "checkpoint_every": 1})
    recipe = json.loads((tmp_path / "recipe.json").read_text("utf-8"))
    recipe["parameters"]["learning_rate"] = 0.7
    store.write_json(tmp_path / "recipe.json", recipe)
    with pytest.raises(UsageError, match=r"of another recipe: learning_rate was None there and is 0\.7 here"):
        resume(tmp_path, show=False)
    assert (tmp_path / "checkpoint.kizu").exists()


def test_names(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'simsiam'"):
        pretrain("simsian", "procedural", tmp_path / "rep", **PARAMETERS)
    assert not (tmp_path / "rep").exists()
    assert pretraining.SimSiam is SimSiam
