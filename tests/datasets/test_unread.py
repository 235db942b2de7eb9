"""Images that lie in a published data set and are none of it: said with the reason, and its own files are
not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from trees import TREES, aptos, draw_image, visa_prepared

import kizu

Cli = Callable[..., tuple[int, str, str]]
STRAY = {
    "mvtec": ("bottle/val/good/0.png", "gear/photo.png"),
    "visa": ("candle/Data/Images/Unsure/0.JPG", "pcb1/Data/Images/Normal/new.JPG"),
    "magnetic_tile": ("MT_Free/0.jpg", "MT_Dent/0.jpg", "MT_Crack/Imgs/more/0.jpg"),
    "ksdd": ("kos01/more/0.jpg",),
    "oct2017": ("valid/NORMAL/0.jpeg",),
    "aitex": ("Defect_images/more/0.png",),
    "isic2018": ("ISIC2018_Task3_Training_Input/0.png", "ISIC2018_Task3_Validation_Input/more/0.jpg"),
    "mvtec_loco": ("pushpins/val/good/0.png", "pushpins/photo.png"),
    "btad": ("02/val/ok/0.png", "03/photo.bmp"),
    "mvtec3d": ("bagel/val/good/0.png", "bagel/test/good/0.png"),
    "real_iad": ("realiad_512/mint/OK/S0001/new_C1_0.jpg", "realiad_512/mint/photo.jpg"),
}
LISTED = {"visa": "1cls.csv", "real_iad": "the list"}
"""Data sets whose images are those of a list: what it is called."""
OFFICIAL = {
    "magnetic_tile": ("dataset.jpg", "saliency/0.jpg"),
    "aptos": ("original/test_images/0.png",),
    "isic2018": ("ISIC2018_Task3_Test_Input/0.jpg",),
    "ksdd": ("example.jpg",),
    "visa": ("thumbnail.jpg",),
    "cifar10": ("sample.png",),
    "aitex": ("fabrics.jpg",),
    "real_iad": ("overview.jpg",),
    "mpdd": ("samples.png",),
}
"""Pictures beside the images: of the page that shows the data set, and those without labels."""
PUBLISHED = sorted(TREES.keys() - {"folder", "planted"})


@pytest.mark.parametrize("name", PUBLISHED)
def test_its_own_files_are_not_said(name: str, tmp_path: Path) -> None:
    TREES[name](tmp_path)
    for place in OFFICIAL.get(name, ()):
        draw_image(tmp_path / place)
    samples = kizu.dataset(name, tmp_path)
    assert (samples.unused, samples.passed_over) == ((), ())


@pytest.mark.parametrize("name", STRAY)
def test_others_are(name: str, tmp_path: Path) -> None:
    TREES[name](tmp_path)
    before = kizu.dataset(name, tmp_path)
    for place in STRAY[name]:
        draw_image(tmp_path / place)
    samples = kizu.dataset(name, tmp_path)
    assert samples == before
    assert {path for path, _ in samples.unused} == {str(tmp_path / place) for place in STRAY[name]}
    list_of = LISTED.get(name)
    why = f"and {list_of} does not name it." if list_of else "which this layout does not read there."
    assert all(why in reason for _, reason in samples.unused)


def test_other_categories_and_kinds_are_not_said(tmp_path: Path) -> None:
    TREES["mvtec"](tmp_path / "mvtec")
    TREES["magnetic_tile"](tmp_path / "tiles")
    assert kizu.dataset("mvtec", tmp_path / "mvtec", category="gear").unused == ()
    assert kizu.dataset("magnetic_tile", tmp_path / "tiles", defect="crack").unused == ()


def test_the_second_layouts(tmp_path: Path) -> None:
    visa_prepared(tmp_path / "visa")
    stray = draw_image(tmp_path / "visa" / "1cls" / "candle" / "val" / "good" / "0.JPG")
    assert [path for path, _ in kizu.dataset("visa", tmp_path / "visa").unused] == [str(stray)]
    aptos(tmp_path / "aptos")
    stray = draw_image(tmp_path / "aptos" / "train_images" / "0.jpg")
    draw_image(tmp_path / "aptos" / "test_images" / "0.png")
    found = kizu.dataset("aptos", tmp_path / "aptos", train_normals=3)
    assert [path for path, _ in found.unused] == [str(stray)]


def test_fit_and_evaluate_exit_with_1(tmp_path: Path, run_cli: Cli) -> None:
    TREES["mvtec"](tmp_path / "data")
    stray = draw_image(tmp_path / "data" / "bottle" / "val" / "good" / "0.png")
    fast = ("--detector", "gaussian", "--representation", "random/resnet10t@1", "--set", "image_size=32")
    named = ("--dataset", "mvtec", "--category", "bottle")
    code, _, err = run_cli("fit", tmp_path / "data", *named, *fast, "-o", tmp_path / "m.kizu")
    assert (code, f"1 file not used: {stray}" in err) == (1, True)
    code, out, _ = run_cli(
        "evaluate", tmp_path / "m.kizu", tmp_path / "data", *named, "-o", tmp_path / "run", "--json"
    )
    assert (code, [entry["path"] for entry in json.loads(out)["errors"]]) == (1, [str(stray)])
