"""sample_efficiency, noisy and reference_sensitivity: what is drawn, and that no group is on two sides unless
that is the point."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from kizu.errors import EmptyData, UsageError
from kizu.protocols import noisy, one_class, reference_sensitivity, sample_efficiency
from kizu.samples import Samples


def table(
    good: int, bad: int, *, tested: int = 0, views: int = 1, bad_views: int = 1, official: bool = True
) -> Samples:
    """`good` training images in groups of `views`, `tested` good and `bad` anomalous test images, these in
    groups of `bad_views` of which the first view alone shows the defect."""
    rows: list[dict[str, object]] = [
        {"label": 0, "split": "train", "group": f"g{n // views}"} for n in range(good)
    ]
    rows += [{"label": 0, "split": "test", "group": f"t{n}"} for n in range(tested)]
    rows += [
        {"label": int(n % bad_views == 0), "split": "test", "group": f"b{n // bad_views}"}
        for n in range(bad * bad_views)
    ]
    for n, row in enumerate(rows):
        row["image"], row["defect"] = f"/data/{n}.png", "scratch" if row["label"] else "good"
        row["mask"] = f"/masks/{n}.png" if row["label"] else None
        row["split"] = row["split"] if official else None
    return Samples(pl.DataFrame(rows, schema_overrides={"split": pl.String, "mask": pl.String}))


def groups(samples: Samples) -> set[str]:
    return set(samples.table["group"].to_list())


@pytest.mark.parametrize(
    ("images", "share", "drawn"), [(200, 0.1, 20), (209, 0.1, 21), (54, 0.1, 5), (3, 0.1, 1)]
)
def test_a_share_of_the_good_images(images: int, share: float, drawn: int) -> None:
    samples = table(images, 4, tested=6)
    split = sample_efficiency(samples, share=share, seed=3)
    assert len(split.train) == drawn
    assert split.test == samples.test
    assert set(split.train.paths) <= set(samples.train.paths)
    assert f"learned from {drawn} of {images} good training images, seed 3" in split.notes
    assert sample_efficiency(samples, share=share, seed=3).train == split.train
    more = sample_efficiency(samples, share=0.5, seed=3)
    assert set(split.train.paths) <= set(more.train.paths), "the smaller share is part of the larger one"


def test_a_share_is_one_of_groups_and_drawn_evenly() -> None:
    """Whole groups of five views; every group is drawn as often as another, within five standard errors."""
    samples, counts = table(100, 4, views=5, tested=2), np.zeros(20)
    for seed in range(400):
        split = sample_efficiency(samples, share=0.1, seed=seed)
        assert len(split.train) == 10
        for group in groups(split.train):
            counts[int(group.removeprefix("g"))] += 1
    assert counts.sum() == 800
    assert np.abs(counts - 40).max() < 5 * np.sqrt(400 * 0.1 * 0.9)


def test_a_share_without_an_official_split() -> None:
    samples = table(50, 4, official=False, views=2)
    split, whole = sample_efficiency(samples, share=0.2, seed=1), one_class(samples, seed=1)
    assert split.test == whole.test
    assert groups(split.train) < groups(whole.train)
    assert not groups(split.train) & groups(split.test)
    assert len(split.train) == 8, "a fifth of 20 groups of two"


@pytest.mark.parametrize("overlap", [True, False])
def test_noise_is_a_share_of_the_good_images(overlap: bool) -> None:
    """int(ratio n) are added and labelled good; with overlap the test set is untouched."""
    samples = table(58, 9, tested=6)
    split = noisy(samples, ratio=0.1, overlap=overlap, seed=2)
    added = split.train.paths[58:]
    assert split.train.paths[:58] == samples.train.paths
    assert len(added) == 5
    assert set(added) <= set(samples.anomalous.paths)
    assert split.train.labels.tolist() == [0] * 63
    assert set(split.train.table["defect"]) == {"good"}
    assert split.train.table["mask"].null_count() == 63
    if overlap:
        assert split.test == samples.test
        assert split.overlap == tuple(added)
    else:
        assert set(split.test.paths) == set(samples.test.paths) - set(added)
        assert split.overlap == ()
        assert split.test.anomalous.labels.tolist() == [1] * 4
    assert noisy(samples, ratio=0.1, overlap=overlap, seed=2).train == split.train
    assert noisy(samples, ratio=0.1, overlap=overlap, seed=3).train != split.train


def test_noise_takes_parts_out_of_the_test_whole() -> None:
    """Views of an added part that show no defect leave the test as well."""
    samples = table(40, 9, tested=6, bad_views=3)
    split = noisy(samples, ratio=0.1, overlap=False)
    added = groups(split.train) - groups(samples.train)
    assert len(added) == 4
    assert not added & groups(split.test)
    assert len(split.test) == 6 + 5 * 3
    assert len(noisy(samples, ratio=0.1).test) == 6 + 9 * 3


@pytest.mark.parametrize(
    ("ratio", "train", "count"), [(0.29, 100, 29), (0.1, 209, 20), (0.1, 10, 1), (1.0, 7, 7)]
)
def test_the_number_is_rounded_down(ratio: float, train: int, count: int) -> None:
    """0.29 * 100 is 28.999999999999996 as a float."""
    assert len(noisy(table(train, 40), ratio=ratio).train) == train + count


def test_ratios_that_cannot_be_had() -> None:
    with pytest.raises(
        EmptyData, match=r"A ratio of 0\.1 of 1000 .* is 100 anomalous test images; there are 41"
    ):
        noisy(table(1000, 41, tested=400))
    with pytest.raises(EmptyData, match=r"of 9 good training images is less than one image\. Ask for 0\.11"):
        noisy(table(9, 4))
    with pytest.raises(EmptyData, match="leaves none of the 4 anomalous images to test on"):
        noisy(table(40, 4, tested=3), overlap=False)
    for ratio in (0.0, -0.1, 1.5, float("nan"), "0.1"):
        with pytest.raises(UsageError, match="ratio is a finite number"):
            noisy(table(40, 4), ratio=ratio)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="overlap"):
        noisy(table(40, 4), overlap="yes")  # type: ignore[arg-type]
    for share in (0.0, 1.0, -1.0):
        with pytest.raises(UsageError, match="share is between 0 and 1"):
            sample_efficiency(table(40, 4), share=share)
    for protocol in (one_class, sample_efficiency, noisy, reference_sensitivity):
        with pytest.raises(UsageError, match=r"train_share is a share between 0 and 1, got 1\.2"):
            protocol(table(40, 4), train_share=1.2)
    with pytest.raises(UsageError, match=r"calibration is a share from 0 to below 1, got -0\.2"):
        one_class(table(40, 4), calibration=-0.2)


@pytest.mark.parametrize("official", [True, False])
def test_references_change_and_nothing_else(official: bool) -> None:
    samples = table(30, 5, tested=4, official=official)
    splits = [reference_sensitivity(samples, seed=seed) for seed in range(3)]
    assert [split.seed for split in splits] == [0, 1, 2]
    for split in splits:
        assert split.train == one_class(samples, seed=0).train
        assert split.test == one_class(samples, seed=0).test
