"""planted: the same seed draws the same bytes, twins differ nowhere but in the mask, and no trivial statistic
separates them."""

import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from kizu.datasets.planted import planted
from kizu.errors import LayoutError, UnknownName, UsageError
from kizu.synthetic.products import defects, planting
from kizu.synthetic.products.canvas import ProductCanvas
from kizu.synthetic.products.catalogue import PRODUCTS, product_defects
from kizu.synthetic.products.planting import planted_image

CASES = [(product, defect) for product, names in product_defects().items() for defect in names]


def rng(*key):
    return np.random.Generator(np.random.PCG64(list(key)))


def auroc(normal, defective):
    """Share of pairs in which the defective one is larger, by brute force."""
    pairs = np.subtract.outer(np.asarray(defective), np.asarray(normal))
    return float(np.mean((pairs > 0) + 0.5 * (pairs == 0)))


def digest(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(Path(folder).rglob("*"))
        if p.is_file()
    }


@pytest.mark.parametrize(("product", "defect"), CASES)
def test_twins_differ_in_the_mask_and_nowhere_else(product, defect):
    flawed, mask = planted_image(product, defect, 64, rng(5, 1))
    clean, empty = planted_image(product, None, 64, rng(5, 1))
    assert flawed.shape == clean.shape == (64, 64, 3)
    assert flawed.dtype == np.uint8
    assert mask.dtype == bool
    assert mask.shape == (64, 64)
    assert not empty.any()
    change = np.abs(flawed.astype(int) - clean).max(axis=2)
    assert not change[~mask].any()
    assert 0.0006 * mask.size <= mask.sum() <= 0.45 * mask.size
    assert change[mask].mean() >= planting.LEAST_CONTRAST - 2
    assert (change[mask] > 0).mean() > 0.8
    parts, number = ndimage.label(mask, np.ones((3, 3)))
    assert np.bincount(parts.ravel())[1:].min() >= 3
    assert number <= 40


@pytest.mark.parametrize(("product", "defect"), [case for case in CASES if case[1] in defects.STRUCTURE])
def test_a_planted_flaw_draws_nothing_from_the_randomness_of_the_product(product, defect):
    """Else all that is drawn after the flaw would change too, and the mask would cover half the part."""
    clean, flawed = ProductCanvas(64, rng(3)), ProductCanvas(64, rng(3), defect, rng(4), 0.8)
    PRODUCTS[product].build(clean)
    PRODUCTS[product].build(flawed)
    assert clean.rng.bit_generator.state == flawed.rng.bit_generator.state


@pytest.mark.parametrize("product", sorted(PRODUCTS))
def test_normal_parts_vary_so_that_a_plain_difference_fails(product):
    """Two good parts differ more, pixel by pixel, than a defective part does from its own good twin."""
    first = planted_image(product, None, 64, rng(1))[0].astype(float)
    second = planted_image(product, None, 64, rng(2))[0].astype(float)
    defect = product_defects()[product][0]
    twin = planted_image(product, defect, 64, rng(1))[0].astype(float)
    assert np.abs(first - second).mean() > np.abs(first - twin).mean()


def test_same_seed_same_image_and_another_seed_another():
    first, mask = planted_image("gear", "scratch", 96, rng(3))
    again, same = planted_image("gear", "scratch", 96, rng(3))
    other, _ = planted_image("gear", "scratch", 96, rng(4))
    assert np.array_equal(first, again)
    assert np.array_equal(mask, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("size", [32, 50, 128])
def test_any_size(size):
    for product, defect in (("circuit", "missing"), ("fabric", "snag"), ("capsule", "misprint")):
        image, mask = planted_image(product, defect, size, rng(size))
        assert image.shape == (size, size, 3)
        assert mask.shape == (size, size)
        assert mask.any()


def test_the_table_of_products_is_complete():
    kinds = [spec.kind for spec in PRODUCTS.values()]
    assert kinds.count("texture") >= 4
    assert kinds.count("object") >= 6
    everything = {defect for names in product_defects().values() for defect in names}
    assert len(everything) >= 8
    assert everything == set(defects.SURFACE) | set(defects.STRUCTURE)
    assert all(len(names) >= 4 for names in product_defects().values())


def test_the_mask_rule_on_a_known_change():
    """A square of +20 levels is found to within a pixel of its edge; a speck and a change below the threshold
    are not."""
    clean = np.full((3, 128, 128), 100, np.float32)
    flawed = clean.copy()
    flawed[1, 40:70, 30:60] += 20
    flawed[:, 100, 100] += 60
    flawed[:, 5:30, 80:120] += 3.5
    mask = planting.difference_mask(clean, flawed)
    truth = np.zeros((128, 128), bool)
    truth[40:70, 30:60] = True
    assert (mask >= ndimage.binary_erosion(truth)).all()
    assert (mask <= ndimage.binary_dilation(truth, np.ones((3, 3)))).all()


def test_a_tiny_set_on_disk(tmp_path):
    begun = time.process_time()
    samples = planted(tmp_path / "set", products="cap", train=10, test_good=4, test_defective=6, size=64)
    assert time.process_time() - begun < 3
    table = samples.table
    assert len(samples) == 20
    assert table["label"].to_list() == [0] * 14 + [1] * 6
    assert set(table.filter(table["label"] == 1)["defect"]) == set(product_defects()["cap"])
    for row in table.iter_rows(named=True):
        with Image.open(row["image"]) as image:
            assert (image.size, image.mode) == ((64, 64), "RGB")
        assert (row["mask"] is None) == (row["label"] == 0)
        if row["mask"]:
            assert Path(row["mask"]).name == Path(row["image"]).stem + "_mask.png"
            with Image.open(row["mask"]) as mask:
                assert set(np.unique(np.asarray(mask))) == {0, 255}
    assert not list(tmp_path.glob(".*"))


def test_an_image_depends_on_its_place_in_the_set_alone(tmp_path):
    planted(tmp_path / "a", products=["wood", "cap"], train=2, test_good=1, test_defective=6, size=32, seed=7)
    planted(tmp_path / "b", products=("cap", "wood"), train=2, test_good=1, test_defective=6, size=32, seed=7)
    planted(tmp_path / "c", products="wood", train=1, test_good=2, test_defective=9, size=32, seed=7)
    first, second, third = (digest(tmp_path / name) for name in "abc")
    assert first == second
    shared = (first.keys() & third.keys()) - {"recipe.json"}
    assert len(shared) > 8
    assert all(first[name] == third[name] for name in shared)
    assert len(set(first.values())) == len(first)


def test_the_same_recipe_is_reused_and_another_refused(tmp_path):
    wanted = {"products": "metal", "train": 2, "test_good": 1, "test_defective": 1, "size": 32}
    samples = planted(tmp_path / "set", **wanted)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*.png")}
    assert planted(tmp_path / "set", **wanted) == samples
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*.png")}
    with pytest.raises(UsageError, match=r"another recipe: seed 0 instead of 1"):
        planted(tmp_path / "set", **wanted, seed=1)
    record = json.loads((tmp_path / "set" / "recipe.json").read_text())
    assert record["products"] == ["metal"]
    Path(samples.paths[0]).unlink()
    with pytest.raises(LayoutError, match=r"lacks 1 of its 5 files: metal/train/good/000.png"):
        planted(tmp_path / "set", **wanted)


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(LayoutError, match=r"holds no recipe.json"):
        planted(tmp_path, products="cap", size=32)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    assert (
        len(planted(tmp_path / "empty", products="cap", train=1, test_good=0, test_defective=0, size=32)) == 1
    )


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["kizu.datasets.planted"], "_save", stop)
    with pytest.raises(KeyboardInterrupt):
        planted(tmp_path / "set", products="cap", size=32)
    assert list(tmp_path.iterdir()) == []


def test_misuse_is_refused():
    with pytest.raises(UnknownName, match="Did you mean 'gear'"):
        planted_image("geer", None, 64, rng(0))
    with pytest.raises(UnknownName, match="planted defect of gear named 'snag'"):
        planted_image("gear", "snag", 64, rng(0))
    with pytest.raises(UsageError, match="32 to 1024, got 16"):
        planted_image("gear", None, 16, rng(0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"products": ["bolt", "nut"]}, "'nut'"),
        ({"products": []}, "products is empty"),
        ({"train": -1}, "train must be"),
        ({"train": 0, "test_good": 0, "test_defective": 0}, "no image"),
        ({"seed": 1.5}, "seed must be"),
    ],
)
def test_wrong_arguments_write_nothing(tmp_path, wrong, message):
    with pytest.raises(UsageError, match=message):
        planted(tmp_path / "set", **wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_brightness_does_not_give_the_defect_away_but_the_place_does():
    """Over all products: image mean near chance within a product; the mean over the mask against its own twin
    is not."""
    means, places = [], []
    for k, product in enumerate(sorted(PRODUCTS)):
        names = product_defects()[product]
        normal = [planted_image(product, None, 32, rng(k, n, 0))[0].mean() for n in range(8)]
        flawed = [planted_image(product, names[n % len(names)], 32, rng(k, n, 1))[0].mean() for n in range(8)]
        means.append(auroc(normal, flawed))
        image, mask = planted_image(product, names[0], 32, rng(k, 0, 2))
        twin, _ = planted_image(product, None, 32, rng(k, 0, 2))
        places.append(np.abs(image.astype(float) - twin).max(axis=2)[mask].mean())
    assert 0.35 < np.mean(means) < 0.65
    assert min(places) > 5
