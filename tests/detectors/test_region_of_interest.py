"""Under every kind of detector: what is outside of the region of interest changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import kizu
from kizu.detectors.base import Detector
from kizu.errors import EmptyData, ModelFileError, ShapeError, UsageError
from kizu.evaluation.calibrated import fit_calibrated
from kizu.masks import resize_mask
from kizu.roi import Roi
from kizu.training import SampleStore
from kizu.types import Batch

SIZE = (80, 96)
BOX = (16, 8, 64, 64)
KINDS = {
    "patchcore": {},
    "padim": {"dimensions": 8},
    "gaussian": {},
    "simplenet": {"iterations": 3, "batch_size": 4},
    "autoencoder": {"iterations": 1, "batch_size": 2, "latent": 4},
}


def disc() -> np.ndarray:
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    return (rows - 40) ** 2 + (columns - 48) ** 2 <= 30**2


REGIONS = {"rectangle": BOX, "mask": Roi.of(disc())}


def parts(folder: Path, count: int, *, kept: np.ndarray | None = None, outside: int = 100) -> list[Path]:
    """Smooth pictures; outside: seed of the noise where `kept` is False."""
    folder.mkdir()
    for number in range(count):
        rng = np.random.default_rng(number)
        values = np.kron(rng.integers(90, 140, (10, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        if kept is not None:
            noise = np.random.default_rng(outside + number).integers(0, 256, values.shape, dtype=np.uint8)
            values = np.where(kept[..., None], values, noise)
        Image.fromarray(values).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def detector(name: str, roi: Any, **more: Any) -> Detector:
    net = None if name == "autoencoder" else "random/resnet10t@1,2"
    return kizu.detector(name, net, image_size=64, roi=roi, precision="fp32", **KINDS[name], **more)


@pytest.fixture(autouse=True)
def readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The readable code alone: what is compared here is equal in both, and nothing waits for a compiler."""
    monkeypatch.setenv("KIZU_ACCEL", "0")


def box() -> np.ndarray:
    return np.pad(np.ones((64, 64), bool), ((8, 8), (16, 16)))


@pytest.mark.parametrize(
    ("name", "region"),
    [
        ("patchcore", "mask"),
        ("padim", "mask"),
        ("gaussian", "rectangle"),
        ("simplenet", "mask"),
        ("autoencoder", "mask"),
    ],
)
def test_nothing_outside_counts(name: str, region: str, tmp_path: Path) -> None:
    """Neither at the fit nor at the inspection, bit for bit, also from a model file."""
    good = parts(tmp_path / "good", 5)
    noisy = parts(tmp_path / "noisy", 5, kept=box() if region == "rectangle" else disc())
    model = detector(name, REGIONS[region]).fit(good)
    other = detector(name, REGIONS[region]).fit(noisy)
    first, second, third = model.predict(good), model.predict(noisy), other.predict(good)
    for again in (second, third):
        assert torch.equal(first.score, again.score)
        assert torch.equal(first.map, again.map)
    model.save(tmp_path / "model.kizu")
    loaded = kizu.load(tmp_path / "model.kizu")
    assert loaded.roi == model.roi == model.clone().roi
    torch.testing.assert_close(loaded.predict(noisy).map, first.map, rtol=1e-5, atol=1e-6)
    if name == "padim":
        whole = detector(name, None).fit(good)
        assert not torch.equal(whole.predict(good).score, whole.predict(noisy).score), "the noise is there"


def test_a_flaw_inside_counts_and_nothing_of_the_map_lies_outside(tmp_path: Path) -> None:
    good = parts(tmp_path / "good", 8)
    model = detector("padim", REGIONS["mask"]).fit(good)
    flawed = np.asarray(Image.open(good[0])).copy()
    flawed[36:44, 44:52] = 255
    before, after = model.predict(good[:1]), model.predict(flawed)
    assert after.score > before.score
    outside = ~resize_mask(REGIONS["mask"].inside, (64, 64))  # type: ignore[union-attr]
    assert (after.map[0][outside] == after.map[0].min()).all()
    spot = np.unravel_index(int(after.map[0].argmax()), (64, 64))
    assert np.hypot(spot[0] - 31.5, spot[1] - 31.5) < 12


def test_arrays_tensors_and_files_are_cut_alike(tmp_path: Path) -> None:
    good = parts(tmp_path / "good", 6)
    model = detector("padim", BOX).fit(good)
    arrays = np.stack([np.asarray(Image.open(path)) for path in good])
    tensors = torch.from_numpy(arrays).permute(0, 3, 1, 2) / 255.0
    by_file = model.predict(good)
    for images in (arrays, tensors):  # the box has the size of the input: nothing is resized
        torch.testing.assert_close(model.predict(images).map, by_file.map)
    cut = Batch(tensors[:, :, 8:72, 16:80])
    torch.testing.assert_close(model.predict(cut).map, by_file.map)
    with pytest.raises(ShapeError, match="reaches beyond it"):
        model.predict(tensors[:, :, :40])


def test_images_of_another_size_are_left_out(tmp_path: Path) -> None:
    good = parts(tmp_path / "good", 4)
    Image.new("RGB", (40, 40)).save(tmp_path / "good" / "small.png")
    model = detector("padim", BOX).fit(tmp_path / "good")
    assert model.images_seen_ == 4
    assert [Path(path).name for path, _ in model.skipped_] == ["small.png"]
    with pytest.raises(EmptyData, match=r"the first: .*0\.png: has 80 x 96 pixels"):
        detector("padim", (50, 50, 64, 64)).fit(good)


def test_files_that_are_read_again_are_cut_again(tmp_path: Path) -> None:
    """A training whose images do not fit in memory opens them anew in every step."""
    good = parts(tmp_path / "good", 3)
    stores = [SampleStore(budget=budget, roi=REGIONS["mask"]) for budget in (10**9, 0)]  # type: ignore[arg-type]
    reader = detector("padim", REGIONS["mask"])._read(good, [], "rgb")
    for batch in reader:
        for store in stores:
            store.add(batch)
    kept, read_again = (store.take([0, 1, 2]).require_images() for store in stores)
    assert torch.equal(kept, read_again)


def test_the_region_may_lie_elsewhere_in_new_images(tmp_path: Path) -> None:
    good = parts(tmp_path / "good", 6)
    model = detector("padim", BOX).fit(good)
    model.save(tmp_path / "model.kizu")
    moved = np.zeros((200, 200, 3), np.uint8)
    moved[108:172, 16:80] = np.asarray(Image.open(good[0]))[8:72, 16:80]
    placed = kizu.load(tmp_path / "model.kizu", roi=(16, 108, 64, 64)).predict(moved)
    torch.testing.assert_close(placed.map, model.predict(good[:1]).map)
    for other in ((0, 0, 20, 64), Roi.of(disc())):
        with pytest.raises(UsageError, match="The model learned a region of 64 x 64 pixels"):
            kizu.load(tmp_path / "model.kizu", roi=other)


def test_a_calibrated_model_of_whole_images_takes_regions_of_their_size_only(tmp_path: Path) -> None:
    parts(tmp_path / "good", 12)
    samples = kizu.dataset("folder", tmp_path / "good")
    model = fit_calibrated(detector("padim", None), samples, false_alarm_rate=0.2)
    decision = model.decision_
    assert decision is not None
    assert decision.map_threshold == pytest.approx(decision.threshold), "PaDiM's score is its map's peak"
    model.save(tmp_path / "model.kizu")
    loaded = kizu.load(tmp_path / "model.kizu", roi=(3, 4, 96, 80))
    assert loaded.decision_ is not None
    assert loaded.decision_.map_threshold == decision.map_threshold
    with pytest.raises(UsageError, match=r"learned whole images \(height x width\); a region of 64 x 64"):
        kizu.load(tmp_path / "model.kizu", roi=BOX)


def test_a_strangers_model_file_opens_no_mask(tmp_path: Path) -> None:
    """The region of a card is a word of kizu's own, never a path."""
    from kizu import store

    good = parts(tmp_path / "good", 4)
    model = detector("padim", BOX).fit(good)
    model.save(tmp_path / "model.kizu")
    card, tensors = store.load_card(tmp_path / "model.kizu"), store.load_tensors(tmp_path / "model.kizu")
    for region in (str(good[0]), "mask:4x4:0,0,2,2:abcd", 7):
        card["parameters"]["roi"] = region
        store.save(tmp_path / "other.kizu", tensors, card, overwrite=True)
        with pytest.raises(ModelFileError):
            kizu.load(tmp_path / "other.kizu")
