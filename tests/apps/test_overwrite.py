"""--overwrite replaces what kizu wrote and nothing else: photos, notes and inputs stay, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from trees import draw_image

import kizu

Cli = Callable[..., tuple[int, str, str]]
FAST = (
    *("--detector", "gaussian", "--representation", "random/resnet10t@1"),
    *("--set", "image_size=32", "--calibration", "none"),
)


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def place(tmp_path: Path, run_cli: Cli) -> Path:
    """A working folder: lab/{good,scratch}, a model, and a thesis."""
    for name in ("good/a.png", "good/b.png", "good/c.png", "scratch/x.png"):
        draw_image(tmp_path / "lab" / name)
    (tmp_path / "thesis.txt").write_text("two years")
    code, _, err = run_cli("fit", tmp_path / "lab" / "good", *FAST, "-o", tmp_path / "m.kizu")
    assert code == 0, err
    return tmp_path


@pytest.mark.parametrize("out", ["lab", ".", "lab/good", "m.kizu", "elsewhere"])
@pytest.mark.parametrize("command", ["fit", "evaluate", "inspect", "attention", "pretrain", "adapt"])
def test_data_stays(
    place: Path, command: str, out: str, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "elsewhere").mkdir()
    (place / "elsewhere" / "run.json").write_text('{"mine": 1}')
    monkeypatch.chdir(place)
    arguments: dict[str, tuple[object, ...]] = {
        "fit": ("lab", *FAST),
        "evaluate": ("m.kizu", "lab", "--allow-seen"),
        "inspect": ("m.kizu", "lab"),
        "attention": ("lab", "--representation", "random/resnet10t@1", "--image-size", "32"),
        "pretrain": ("simsiam", "--data", "lab", "--steps", "1"),
        "adapt": ("lab", "--adaptation", "residual", "--representation", "random/resnet10t@1"),
    }
    if (command, out) in {("fit", "m.kizu"), ("adapt", "m.kizu")}:
        return  # a model takes the place of a model: what --overwrite is for
    before = bytes_below(place)
    code, _, err = run_cli(command, *arguments[command], "-o", out, "--overwrite")
    assert code == 2, err
    assert "nothing is written over it" in err or "is kept:" in err
    assert bytes_below(place) == before


def test_its_own_outputs_are_replaced(place: Path, run_cli: Cli) -> None:
    lab, model = place / "lab", place / "m.kizu"
    for _ in range(2):
        for command, arguments in {
            "fit": (lab, *FAST, "-o", place / "folder"),
            "evaluate": (model, lab, "--allow-seen", "-o", place / "run"),
            "inspect": (model, lab, "-o", place / "inspected"),
        }.items():
            code, _, err = run_cli(command, *arguments, "--overwrite")
            assert code == 0, err
    hidden = [entry.name for entry in place.iterdir() if entry.name.startswith(".")]
    assert hidden == []


@pytest.mark.parametrize("name", ["notes.txt", "mine.png", "000000_edited.png"])
def test_notes_in_an_inspection_are_kept(name: str, place: Path, run_cli: Cli) -> None:
    command = ("inspect", place / "m.kizu", place / "lab", "-o", place / "inspected", "--overwrite")
    assert run_cli(*command)[0] == 0
    (place / "inspected" / "panels" / name).write_text("look at 3")
    code, _, err = run_cli(*command)
    assert code == 2
    assert f"panels/{name}" in err
    assert (place / "inspected" / "panels" / name).read_text() == "look at 3"


def test_an_input_below_an_output_is_kept(place: Path, run_cli: Cli) -> None:
    """Panels are kizu's own; as an input they are not written over all the same."""
    assert run_cli("inspect", place / "m.kizu", place / "lab", "-o", place / "inspected")[0] == 0
    panel = next((place / "inspected" / "panels").iterdir())
    (place / "list.csv").write_text(f"image,label\n{panel},0\n{place}/lab/scratch/x.png,1\n")
    for given in (panel, place / "inspected" / "panels"):
        code, _, err = run_cli("inspect", place / "m.kizu", given, "-o", place / "inspected", "--overwrite")
        assert (code, "holds an input" in err) == (2, True)
    code, _, err = run_cli(
        "evaluate", place / "m.kizu", place / "list.csv", "-o", place / "inspected", "--overwrite"
    )
    assert (code, panel.exists()) == (2, True)


def test_saving_in_python(place: Path) -> None:
    before = bytes_below(place)
    with pytest.raises(kizu.errors.OutputExists, match="is kept"):
        kizu.load(place / "m.kizu").save(place / "lab", overwrite=True)
    assert bytes_below(place) == before


def test_pictures_of_the_users_in_a_run_are_kept(place: Path, run_cli: Cli) -> None:
    command = ("evaluate", place / "m.kizu", place / "lab", "--allow-seen", "-o", place / "run")
    assert run_cli(*command)[0] == 0
    mine = place / "run" / "images" / "0_edited.jpg"
    mine.write_bytes(b"a picture")
    code, _, err = run_cli(*command, "--overwrite")
    assert (code, "images/0_edited.jpg" in err, mine.read_bytes()) == (2, True, b"a picture")
