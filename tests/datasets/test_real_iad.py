"""real_iad: lists and folders agree, a view without a mask is good, five views are one part."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from trees import draw_image, mask
from trees import real_iad as tree

import kizu
from kizu import registry
from kizu.calibration import group_numbers
from kizu.datasets import checking, real_iad
from kizu.datasets.real_iad import CATEGORIES, TOTALS
from kizu.errors import LayoutError, MaskError, UnknownName, UsageError
from kizu.protocols import one_class
from kizu.samples import Samples


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tree(tmp_path)
    return tmp_path


def counts(samples: Samples) -> Counter[tuple[str | None, int]]:
    return Counter(samples.table.select("split", "label").iter_rows())


def test_lists(root: Path) -> None:
    """Two parts to learn from, two good ones and a scratched one to test on, of which two views show it."""
    samples = real_iad(root)
    assert counts(samples) == {("train", 0): 10, ("test", 0): 13, ("test", 1): 2}
    assert set(samples.anomalous.table["defect"]) == {"HS"}
    assert samples.anomalous.table["view"].to_list() == ["C1", "C3"]
    for image, paired in samples.anomalous.table.select("image", "mask").iter_rows():
        assert paired == image.replace(".jpg", ".png")
    first = real_iad(root, split_json="single_view")
    assert counts(first) == {("train", 0): 2, ("test", 0): 2, ("test", 1): 1}
    assert first.paths == samples.where(view="C1").paths
    assert first.unused == ()


def test_folders_hold_the_same_without_a_split(root: Path) -> None:
    listed, found = real_iad(root), real_iad(root, split_json="none")
    assert found.table["split"].null_count() == 25
    assert found.unused == ()
    order = ["image"]
    assert found.table.drop("split").sort(order).equals(listed.table.drop("split").sort(order))


def test_five_views_are_one_part(root: Path) -> None:
    samples = real_iad(root)
    numbers = group_numbers(len(samples), samples.table["group"].to_list())
    assert sorted(Counter(numbers.tolist()).values()) == [5] * 5
    assert set(Counter(samples.table["view"]).items()) == {(f"C{n}", 5) for n in range(1, 6)}
    split = one_class(samples, calibration=0.5)
    assert (len(split.train), len(split.calibration)) == (5, 5)
    assert not set(split.train.table["group"]) & set(split.calibration.table["group"])
    assert real_iad(root, view=["C2", "C5"]) == samples.where(view=["C2", "C5"])


def test_noise_is_learned_from_as_good(root: Path) -> None:
    """The list's defective image is in train, labelled good and without a mask, and no image of the test."""
    clean, noisy = real_iad(root), real_iad(root, split_json="noise_0.1")
    assert counts(noisy) == {("train", 0): 11, ("test", 0): 13, ("test", 1): 1}
    injected = set(noisy.train.paths) - set(clean.train.paths)
    assert injected < set(clean.anomalous.paths)
    assert noisy.train.table["mask"].null_count() == 11
    detector = kizu.detector("gaussian", "random/resnet10t@1", image_size=32)
    assert detector.fit(noisy.train).images_seen_ == 11


def test_where_images_and_lists_may_lie(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The images' folder itself, lists without the folder around them; of several sizes one is named."""
    samples = real_iad(root)
    assert real_iad(root / "realiad_512") == samples
    assert real_iad(root, resolution="512") == samples
    with pytest.raises(UsageError, match="resolution has no effect"):
        real_iad(root / "realiad_512", resolution="512")
    with pytest.raises(UnknownName, match="resolution of Real-IAD named '256'"):
        real_iad(root, resolution="256")
    shutil.copytree(root / "realiad_512", root / "realiad_256")
    with pytest.raises(LayoutError, match="in 2 sizes: 256, 512"):
        real_iad(root)
    assert real_iad(root, resolution="256").paths[0].startswith(str(root / "realiad_256"))
    flat = tmp_path_factory.mktemp("flat")
    shutil.move(root / "realiad_256", flat / "realiad_256")
    shutil.move(root / "realiad_jsons" / "realiad_jsons", flat / "realiad_jsons")
    assert len(real_iad(flat)) == 25


def test_what_is_not_there(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(LayoutError, match="neither realiad_256"):
        real_iad(tmp_path_factory.mktemp("empty"))
    with pytest.raises(UnknownName, match="category named 'mit'"):
        real_iad(root, category="mit")
    with pytest.raises(UnknownName, match="split list of Real-IAD"):
        real_iad(root, split_json="noise_0.3")  # type: ignore[arg-type]
    with pytest.raises(LayoutError, match=r"no split lists realiad_jsons_fuiad_0\.4"):
        real_iad(root, split_json="noise_0.4")
    draw_image(root / "realiad_512" / "toy" / "OK" / "S0001" / "toy_0001_OK_C1_0.jpg")
    with pytest.raises(LayoutError, match=r"has no toy\.json"):
        real_iad(root)
    assert len(real_iad(root, category="mint")) == 25
    next((root / "realiad_512" / "mint" / "OK" / "S0002").glob("*_C4_*")).unlink()
    with pytest.raises(LayoutError, match=r"names 1 file not below .*_C4_"):
        real_iad(root, category="mint")


@pytest.mark.parametrize("change", [{"mask_path": ""}, {"anomaly_class": "OK"}])
def test_good_is_no_mask_or_the_good_class(change: dict[str, str], root: Path) -> None:
    """The official rule: a test image is anomalous where it has a mask and another class than OK."""
    file = root / "realiad_jsons" / "realiad_jsons" / "mint.json"
    content = json.loads(file.read_text("utf-8"))
    entry = next(entry for entry in content["test"] if entry["mask_path"])
    entry.update(change)
    file.write_text(json.dumps(content))
    row = real_iad(root).table.filter(pl.col("image").str.ends_with(entry["image_path"]))
    assert row.select("label", "defect", "mask").rows() == [(0, "good", None)]
    assert len(real_iad(root).anomalous) == 1


def _text(change: Callable[[dict[str, object]], object]) -> Callable[[dict[str, object]], str]:
    def changed(content: dict[str, object]) -> str:
        change(content["train"][0])  # type: ignore[index]
        return json.dumps(content)

    return changed


DAMAGES: dict[str, tuple[Callable[[dict[str, object]], str], str]] = {
    "no JSON": (lambda content: "{", "JSONDecodeError"),
    "another object": (lambda content: "[]", "AttributeError"),
    "no list": (lambda content: json.dumps({"train": []}), "KeyError: 'test'"),
    "no class": (_text(lambda entry: entry.pop("anomaly_class")), "KeyError: 'anomaly_class'"),
    "a number": (_text(lambda entry: entry.update(image_path=3)), "an entry holds"),
    "a way out": (_text(lambda entry: entry.update(image_path="../x_C1_.jpg")), "leads out"),
    "absolute": (_text(lambda entry: entry.update(image_path="/x_C1_.jpg")), "leads out"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_lists(name: str, root: Path) -> None:
    damage, says = DAMAGES[name]
    file = root / "realiad_jsons" / "realiad_jsons" / "mint.json"
    file.write_text(damage(json.loads(file.read_text("utf-8"))))
    with pytest.raises(
        LayoutError, match=f"mint.json cannot be read .*{says}.*; a split list of Real-IAD is"
    ):
        real_iad(root)


def test_damaged_folders(root: Path) -> None:
    part = root / "realiad_512" / "mint" / "NG" / "HS" / "S0005"
    stray = mask(part / "lonely.png")
    with pytest.raises(MaskError, match=r"1 mask without an image: .*lonely\.png"):
        real_iad(root, split_json="none")
    stray.unlink()
    good = next((root / "realiad_512" / "mint" / "OK" / "S0001").glob("*.jpg"))
    stray = mask(good.with_suffix(".png"))
    with pytest.raises(MaskError, match="a mask of a part in OK/"):
        real_iad(root, split_json="none")
    stray.unlink()
    draw_image(part / "photo.jpg")
    with pytest.raises(LayoutError, match=r"photo\.jpg: the camera is read from the file's name"):
        real_iad(root, split_json="none")


def test_data_check_says_what_is_wrong(root: Path) -> None:
    assert checking.check("real_iad", root).ok
    file = root / "realiad_jsons" / "realiad_jsons" / "mint.json"
    content = json.loads(file.read_text("utf-8"))
    bad = next(entry for entry in content["test"] if entry["mask_path"])
    content["train"].append(bad)
    content["test"].remove(bad)
    first = root / "realiad_512" / "mint" / content["train"][0]["image_path"]
    again = first.with_name(first.name.replace("mint_0001", "mint_0009"))
    draw_image(again, 99)
    twin = {**content["train"][0], "image_path": f"OK/S0001/{again.name}"}
    content["train"].append(twin)
    file.write_text(json.dumps(content))
    lines = "\n".join(checking.check("real_iad", root).lines)
    assert "problem: 1 image to learn from has a mask" in lines
    assert "problem: 1 part has two photographs by one camera: mint/OK/S0001" in lines


def test_totals_are_held_when_all_products_are_there(root: Path) -> None:
    """99,721 good and 51,329 anomalous images, 151,050 in all, of 30 products (CVPR 2024)."""
    assert TOTALS["train", 0] + TOTALS["test", 0] == 99_721
    assert sum(TOTALS.values()) == 151_050
    assert len(set(CATEGORIES)) == 30
    problems, table = registry.module("datasets", "real_iad").problems, real_iad(root).table
    products = pl.Series([*CATEGORIES[:25]])
    assert problems(root, Samples(table.with_columns(category=products))) == [], "25 of 30 products"
    rest = table.head(5).with_columns(category=pl.Series([*CATEGORIES[25:]]), group=pl.lit("other"))
    lines = problems(root, Samples(table.with_columns(category=products).vstack(rest)))
    assert lines[0] == "train, normal: 15 images where 36465 are published"
    assert len(lines) == 3
