"""Equal images count once, nearly equal ones are warned of."""

from __future__ import annotations

import dataclasses
import shutil
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

import kizu
from kizu.errors import NearlyEqual, TooFewImages
from kizu.evaluation import copies
from kizu.evaluation.calibrated import Scored, _set, fit_calibrated, with_copies_grouped
from kizu.evaluation.copies import grouped, identify, nearly_equal
from kizu.images import open_image
from kizu.protocols.base import units
from kizu.samples import Samples


def table(paths: list[Path], groups: list[str | None] | None = None) -> Samples:
    frame = pl.DataFrame({"image": [str(path) for path in paths], "label": [0] * len(paths)})
    return Samples(frame if groups is None else frame.with_columns(pl.Series("group", groups)))


@pytest.fixture
def parts(tiny_planted: Samples, tmp_path: Path) -> list[Path]:
    """Six images, each again in another file format."""
    paths = []
    for number, path in enumerate(tiny_planted.train.paths[:6]):
        for suffix in ("png", "bmp"):
            paths.append(tmp_path / f"{number}.{suffix}")
            Image.fromarray(open_image(path)).save(paths[-1])
    return paths


def test_copies_share_a_group(parts: list[Path]) -> None:
    images = identify([str(path) for path in parts])
    assert units(grouped(table(parts), images)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_copies_join_the_groups_that_they_belong_to(parts: list[Path]) -> None:
    """a holds image 0, b a copy of it and image 1, whose copy has no group: all are one."""
    rows = table(parts[:6], ["a", "b", "b", None, None, "c"])
    known = grouped(rows, identify(rows.paths))
    assert units(known).tolist()[:4] == [units(known)[0]] * 4
    assert len(set(units(known).tolist())) == 2
    untouched = table(parts[::2], ["a", "a", None, None, "b", "b"])
    assert grouped(untouched, identify(untouched.paths)) == untouched


def test_files_that_cannot_be_read_are_no_copies(parts: list[Path], tmp_path: Path) -> None:
    broken = [tmp_path / "x.png", tmp_path / "y.png"]
    for path in broken:
        path.write_bytes(b"nothing")
    rows = table([*parts[:2], *broken])
    assert units(grouped(rows, identify(rows.paths))).tolist() == [0, 0, 1, 2]


def test_frames_of_one_part_are_warned_of(tiny_planted: Samples, tmp_path: Path) -> None:
    """Noise of one grey level on a copy; two parts of one product are no frames of one part."""
    paths = [Path(path) for path in tiny_planted.train.paths]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with_copies_grouped(table(paths))
    noise = np.random.default_rng(0).integers(-1, 2, open_image(paths[0]).shape)
    frame = np.clip(open_image(paths[0]).astype(int) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(frame).save(tmp_path / "frame.png")
    rows = table([*paths, tmp_path / "frame.png"])
    with pytest.warns(NearlyEqual, match=r"1 pair of good images is.*frame\.png"):
        with_copies_grouped(rows)
    same = rows.table.with_columns(
        pl.Series("group", ["part 0", *[None] * (len(paths) - 1), "part 0"], dtype=pl.String)
    )
    assert nearly_equal(identify(rows.paths), units(Samples(same))) == []


def test_pairs_are_found_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against all pairs at once, by brute force."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 255, (30, copies.SIDE, copies.SIDE)).astype(np.uint8)
    values[17] = values[4] ^ 1
    values[29] = values[28] ^ 1
    images = [copies.Identity(str(number), image) for number, image in enumerate(values)]
    rows = values.reshape(30, -1).astype(float)
    distances = np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(2))
    usual = np.median(distances[np.triu_indices(30, 1)])
    near = [(a, b) for a in range(30) for b in range(a + 1, 30) if distances[a, b] < copies.NEAR * usual]
    assert near == [(4, 17), (28, 29)]
    for block in (7, 1024):
        monkeypatch.setattr(copies, "BLOCK", block)
        assert nearly_equal(images, np.arange(30)) == near


def test_thirty_parts_twice_are_thirty_parts(tiny_planted: Samples, tmp_path: Path) -> None:
    """Half of each pair in the fit and half among the calibration images would make the detector know them;
    with 24 parts the smallest promise is 1 / 25, whatever the number of files."""
    paths = [Path(path) for path in tiny_planted.train.paths]
    for path in paths:
        shutil.copy(path, tmp_path / f"copy_{path.name}")
    twice = table([*paths, *(tmp_path / f"copy_{path.name}" for path in paths)])
    detector = kizu.detector("gaussian", "random/resnet10t@2", image_size=64)
    fit_calibrated(detector, twice)
    assert detector.decision_.parts == 24
    assert len(detector.decision_.scores) == 48
    assert detector.decision_.false_alarm_rate == pytest.approx(1 / 25)
    with pytest.raises(TooFewImages, match="24 groups of good images"):
        fit_calibrated(detector.clone(), twice, false_alarm_rate=1 / 49)


def test_what_cannot_be_read_is_no_copy(parts: list[Path], tmp_path: Path) -> None:
    broken = [tmp_path / f"broken{number}.png" for number in range(2)]
    for path in broken:
        path.write_bytes(b"half")
    images = identify([str(path) for path in [broken[0], *parts[::2], broken[1], parts[1]]])
    assert nearly_equal(images, np.arange(9)) == [(1, 8)]


@pytest.mark.parametrize("method", ["auto", "split", "cross"])
def test_copies_of_one_image_give_no_decision(method: str, tiny_planted: Samples, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for path in paths:
        shutil.copy(tiny_planted.train.paths[0], path)
    detector = kizu.detector("gaussian", "random/resnet10t@2", image_size=64)
    if method == "auto":  # as with a single image
        assert fit_calibrated(detector, table(paths), method=method).decision_ is None
    with pytest.raises(TooFewImages):
        fit_calibrated(detector, table(paths), method=method, false_alarm_rate=0.2)
    detector.fit(table(paths))
    part = Scored(np.zeros(5), np.zeros(9), np.zeros(5), [str(path) for path in paths[:5]], ["a"] * 5, [])
    other = dataclasses.replace(part, scores=np.ones(5))
    with pytest.raises(TooFewImages, match="one and the same score in each fold"):
        _set(detector, [part, other], [table(paths[:5])] * 2, 0.2, "cross")
    with pytest.raises(TooFewImages, match="All 5 calibration images have the score"):
        detector.set_calibration([0.0] * 5, 0.2)
