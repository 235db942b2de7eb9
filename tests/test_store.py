"""What is saved comes back; what is damaged, foreign or hostile is refused before anything is allocated or
run."""

import errno
import json
import os
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from kizu import store
from kizu.errors import ModelFileError, OutputExists, UsageError

TENSORS = {
    "bank": torch.arange(12.0).reshape(4, 3),
    "half": torch.ones(2, dtype=torch.float16),
    "index": torch.tensor([3, 1]),
}


@pytest.mark.parametrize("name", ["model", "model.kizu", "model.zip"])
def test_round_trip(tmp_path: Path, name: str) -> None:
    path = store.save(tmp_path / "deep" / name, TENSORS, {"kind": "test", "words": "傷"})
    tensors, card = store.load(path)
    assert card["words"] == "傷"
    assert set(tensors) == set(TENSORS)
    assert all(
        torch.equal(tensors[key], TENSORS[key]) and tensors[key].dtype == TENSORS[key].dtype
        for key in TENSORS
    )
    assert [entry.name for entry in path.parent.iterdir()] == [name], "no temporary is left"


@pytest.mark.parametrize("name", ["model", "model.kizu"])
def test_an_existing_output_is_kept(tmp_path: Path, name: str) -> None:
    path = store.save(tmp_path / name, TENSORS, {"n": 1})
    with pytest.raises(OutputExists, match="--overwrite"):
        store.save(path, TENSORS, {"n": 2})
    assert store.load_card(path)["n"] == 1
    store.save(path, TENSORS, {"n": 2}, overwrite=True)
    assert store.load_card(path)["n"] == 2
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["model", "model.kizu"])
def test_a_full_disk_leaves_the_old_model(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store.save(tmp_path / name, TENSORS, {"n": 1})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        store.save(path, TENSORS, {"n": 2}, overwrite=True)
    assert store.load_card(path)["n"] == 1
    assert len(list(tmp_path.iterdir())) == 1, "no half-written file stays"


def test_an_interrupted_folder_is_not_left(tmp_path: Path) -> None:
    def interrupted() -> None:
        with store.replacing_folder(tmp_path / "run", record="run.json") as folder:
            (folder / "half").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model", "model.kizu"])
def test_a_file_cut_in_half(tmp_path: Path, name: str) -> None:
    path = store.save(tmp_path / name, {"bank": torch.rand(100, 100)}, {})
    victim = path / store.WEIGHTS if path.is_dir() else path
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    with pytest.raises(ModelFileError, match=r"damaged|cut short"):
        store.load(path)


def test_a_bit_flipped_in_a_zip(tmp_path: Path) -> None:
    path = store.save(tmp_path / "model.kizu", {"bank": torch.zeros(1000)}, {})
    data = bytearray(path.read_bytes())
    data[-2500] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="damaged"):
        store.load(path)


@pytest.mark.parametrize("name", ["model", "model.kizu"])
def test_a_header_of_ten_gigabytes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    hostile = struct.pack("<Q", 10 * 2**30) + b"{}"
    card = json.dumps({"kizu_format": 1})
    if path.suffix:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(store.CARD, card)
            archive.writestr(store.WEIGHTS, hostile)
    else:
        path.mkdir()
        (path / store.CARD).write_text(card)
        (path / store.WEIGHTS).write_bytes(hostile)
    with pytest.raises(ModelFileError, match=r"header claims 10737418240"):
        store.load(path)


def test_a_zip_bomb(tmp_path: Path) -> None:
    path = tmp_path / "model.kizu"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(store.CARD, b" " * 50_000_000)
        archive.writestr(store.WEIGHTS, b"")
    with pytest.raises(ModelFileError, match="packed again with compression"):
        store.load(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kizu_format": 99}', "not json", "[" * 100_000])
def test_a_foreign_card(tmp_path: Path, text: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / store.CARD).write_text(text)
    with pytest.raises(ModelFileError):
        store.load_card(tmp_path / "model")


def test_other_things_are_not_models(tmp_path: Path) -> None:
    (tmp_path / "photo.kizu").write_bytes(b"not a zip at all")
    (tmp_path / "empty").mkdir()
    for name in ("photo.kizu", "empty", "absent.kizu"):
        with pytest.raises(ModelFileError):
            store.load(tmp_path / name)


def test_expect_names_what_is_wrong() -> None:
    assert store.expect("m", TENSORS, {"bank": "N D", "half": "Q"}) == {"N": 4, "D": 3, "Q": 2}
    with pytest.raises(ModelFileError, match="'mean' is missing"):
        store.expect("m", TENSORS, {"mean": "D"})
    with pytest.raises(ModelFileError, match="bank must have shape"):
        store.expect("m", TENSORS, {"bank": "N"})
    with pytest.raises(ModelFileError, match="D is 2 here but 3 in bank"):
        store.expect("m", TENSORS, {"bank": "N D", "half": "D"})
    with pytest.raises(ModelFileError, match="NaN"):
        store.expect("m", {"x": torch.tensor([float("nan")])}, {"x": "n"})


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        store.write_json(tmp_path / "a.json", {"auroc": float("nan")})
    assert not list(tmp_path.iterdir())


# What may be replaced


def tree_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", ["photos", "photos.kizu"])
def test_a_folder_of_photos_is_never_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "deep").mkdir(parents=True)
    (tmp_path / name / "deep" / "a.png").write_bytes(b"dear")
    before = tree_of(tmp_path)
    with pytest.raises(OutputExists, match=r"is kept: it is a folder.*move it away yourself"):
        store.save(tmp_path / name, TENSORS, {}, overwrite=True)
    assert tree_of(tmp_path) == before


def test_notes_beside_a_model_keep_it(tmp_path: Path) -> None:
    path = store.save(tmp_path / "model", TENSORS, {"n": 1})
    (path / "notes.txt").write_text("mine")
    before = tree_of(tmp_path)
    with pytest.raises(OutputExists, match=r"also holds what kizu did not write there: notes\.txt"):
        store.save(path, TENSORS, {"n": 2}, overwrite=True)
    assert tree_of(tmp_path) == before
    (path / "notes.txt").rename(path / ".DS_Store")
    assert store.load_card(store.save(path, TENSORS, {"n": 2}, overwrite=True))["n"] == 2


def test_a_card_of_another_program_protects_its_folder(tmp_path: Path) -> None:
    (tmp_path / "deck").mkdir()
    (tmp_path / "deck" / "card.json").write_text('{"suit": "hearts"}')
    with pytest.raises(OutputExists, match=r"without a card\.json of kizu's"):
        store.save(tmp_path / "deck", TENSORS, {}, overwrite=True)


def test_a_link_in_an_output_is_not_followed(tmp_path: Path) -> None:
    path = store.save(tmp_path / "model", TENSORS, {"n": 1})
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"dear")
    (path / "link").symlink_to(tmp_path / "photos", target_is_directory=True)
    with pytest.raises(OutputExists, match="did not write there: link"):
        store.save(path, TENSORS, {"n": 2}, overwrite=True)
    (path / "link").unlink()
    (tmp_path / "alias").symlink_to(path, target_is_directory=True)
    store.save(tmp_path / "alias", TENSORS, {"n": 2}, overwrite=True)
    assert (store.load_card(tmp_path / "alias")["n"], store.load_card(path)["n"]) == (2, 1)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["alias", "model", "photos"]


@pytest.mark.parametrize("name", ["thesis.kizu", "report.html", "results.csv", "plot.png", "notes.md"])
def test_a_foreign_file_is_never_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("secret")
    with pytest.raises(OutputExists, match="kizu did not write it"), store.replacing(tmp_path / name):
        pass
    assert tree_of(tmp_path) == {name: b"secret"}


def test_names_of_kizu_in_a_folder_of_kizu_are_replaced(tmp_path: Path) -> None:
    store.write_record(tmp_path, "experiment.json", {"name": "x"})
    for name in ("results.csv", "mine.csv"):
        (tmp_path / name).write_text("a,b\n")
    with store.replacing(tmp_path / "results.csv") as temporary:
        temporary.write_text("new")
    with pytest.raises(OutputExists), store.replacing(tmp_path / "mine.csv"):
        pass
    assert (tmp_path / "results.csv").read_text() == "new"


def test_an_input_and_its_parents_are_refused(tmp_path: Path) -> None:
    model = store.save(tmp_path / "runs" / "model", TENSORS, {})
    for place in (model, tmp_path / "runs", tmp_path / "runs" / ".." / "runs"):
        with pytest.raises(UsageError, match="nothing is written over it"):
            store.check_output(place, store.CARD, overwrite=True, inputs=[model])
    store.check_output(tmp_path / "runs" / "new", store.CARD, overwrite=True, inputs=[model])
    store.check_output(model, store.CARD, overwrite=True, inputs=["timm/resnet18"])
    with pytest.raises(OutputExists, match="exists already"):
        store.check_output(model, store.CARD, overwrite=False)


def test_remove_folder_takes_only_its_own(tmp_path: Path) -> None:
    store.remove_folder(tmp_path / "absent", "fit.json")
    (tmp_path / "m.training").mkdir()
    store.write_record(tmp_path / "m.training", "fit.json", {})
    (tmp_path / "m.training" / "fold_1").mkdir()
    (tmp_path / "m.training" / "fold_1" / "log.jsonl").write_text('{"step": 1}\n')
    store.remove_folder(tmp_path / "m.training", "fit.json")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "m.training").mkdir()
    (tmp_path / "m.training" / "log.jsonl").write_text("mine\n")
    with pytest.raises(OutputExists):
        store.remove_folder(tmp_path / "m.training", "fit.json")
    assert (tmp_path / "m.training" / "log.jsonl").exists()
