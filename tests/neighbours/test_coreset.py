"""The coreset against the plain greedy loop in float64, numpy and nothing clever."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kizu.errors import NotFinite, ShapeError, UsageError
from kizu.neighbours import _greedy, covering_radius, greedy_coreset, random_projection
from kizu.neighbours._greedy import Distances
from kizu.neighbours.projection import johnson_lindenstrauss


def plain_greedy(features: np.ndarray, n: int, start: int = 0) -> list[int]:
    rows = np.asarray(features, dtype=np.float64)
    nearest, picks = np.full(len(rows), np.inf), [start]
    while len(picks) < n:
        nearest = np.minimum(nearest, ((rows - rows[picks[-1]]) ** 2).sum(1))
        nearest[picks] = -1.0
        picks.append(int(nearest.argmax()))
    return picks


def _features() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    steep = rng.normal(size=(1500, 40)) * np.arange(1, 41) ** -1.0
    return {
        "gauss": rng.normal(size=(1500, 24)).astype("f4"),
        "steep": steep.astype("f4"),
        "float64": steep,
        "half": steep.astype("f2"),
        "grid": rng.integers(0, 4, (1500, 3)).astype("f4"),
        "line": rng.integers(0, 40, (900, 1)).astype("f4"),
        "real line": rng.normal(size=(900, 1)).astype("f4"),
        "duplicates": np.repeat(rng.normal(size=(100, 6)), 9, axis=0).astype("f4"),
        "identical": np.full((700, 5), 0.1, "f4"),
        "far from zero": (1000 + 0.01 * rng.normal(size=(900, 8))).astype("f4"),
        "two far clusters": (rng.integers(0, 2, (900, 1)) * 1e4 + rng.normal(size=(900, 8))).astype("f4"),
        "huge": (1e30 * rng.normal(size=(900, 8))).astype("f4"),
        "tiny": (1e-30 * rng.normal(size=(900, 8))).astype("f4"),
    }


FEATURES = _features()


@pytest.mark.parametrize("name", FEATURES)
def test_same_picks_as_the_plain_loop(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    features = FEATURES[name]
    expected = plain_greedy(features, 150, start=3)
    assert greedy_coreset(features, 150, start=3).tolist() == expected
    monkeypatch.setattr(_greedy, "BLOCK", 100)
    monkeypatch.setattr(_greedy, "FRONT", 7)
    monkeypatch.setattr(_greedy, "COLUMNS", 50)
    assert greedy_coreset(torch.from_numpy(features), 150, start=3).tolist() == expected


@pytest.mark.parametrize("name", ["gauss", "grid", "identical", "duplicates"])
def test_all_rows_come_once_when_n_is_all(name: str) -> None:
    features = FEATURES[name][:200]
    assert greedy_coreset(features, 200).tolist() == plain_greedy(features, 200)


def test_equal_rows_come_in_order() -> None:
    assert greedy_coreset(torch.ones(6, 3), 6, start=2).tolist() == [2, 0, 1, 3, 4, 5]


def test_small_cases() -> None:
    one = greedy_coreset(torch.randn(5, 2), 1, start=4)
    assert one.tolist() == [4]
    assert one.dtype == torch.int64
    assert greedy_coreset(torch.zeros(1, 1), 1).tolist() == [0]
    assert greedy_coreset(torch.tensor([[0.0], [1.0], [5.0], [9.0]]), 3).tolist() == [0, 3, 2]


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_rounded_products_do_not_change_the_picks(precision: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        assert greedy_coreset(FEATURES["gauss"], 300).tolist() == plain_greedy(FEATURES["gauss"], 300)
    finally:
        torch.set_float32_matmul_precision(before)


def test_autocast_and_views_do_not_change_the_picks() -> None:
    features = torch.from_numpy(FEATURES["steep"])
    expected = plain_greedy(FEATURES["steep"], 200)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert greedy_coreset(features, 200).tolist() == expected
    strided = torch.empty(40, len(features)).T.copy_(features)
    assert greedy_coreset(strided, 200).tolist() == expected


def test_progress_is_reported_and_an_interrupt_passes_through() -> None:
    reports: list[tuple[int, int]] = []
    greedy_coreset(FEATURES["gauss"], 900, progress=lambda done, total: reports.append((done, total)))
    assert reports[-1] == (900, 900)
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        greedy_coreset(FEATURES["gauss"], 900, progress=interrupt)


def test_approximate_is_reproducible_covers_nearly_as_well_and_draws_from_its_generator() -> None:
    features = torch.from_numpy(FEATURES["steep"])
    first = greedy_coreset(
        features, 100, start=7, method="approximate", generator=torch.Generator().manual_seed(1)
    )
    again = greedy_coreset(
        features, 100, start=7, method="approximate", generator=torch.Generator().manual_seed(1)
    )
    other = greedy_coreset(
        features, 100, start=7, method="approximate", generator=torch.Generator().manual_seed(2)
    )
    assert first.tolist() == again.tolist() != other.tolist()
    assert first[0] == 7
    assert len(set(first.tolist())) == 100
    exact = covering_radius(features, features[greedy_coreset(features, 100, start=7)])
    assert exact <= covering_radius(features, features[first]) < 2.0 * exact
    whole = greedy_coreset(
        features, 100, start=7, method="approximate", pool=15, generator=torch.Generator().manual_seed(1)
    )
    assert whole.tolist() == plain_greedy(FEATURES["steep"], 100, start=7)


def test_covering_radius_is_the_farthest_nearest_distance() -> None:
    features, centres = torch.from_numpy(FEATURES["gauss"]), torch.from_numpy(FEATURES["gauss"][::50])
    assert covering_radius(features, centres) == pytest.approx(
        float(torch.cdist(features.double(), centres.double()).amin(1).amax()), rel=1e-6
    )
    assert covering_radius(centres, centres) == 0.0


@pytest.mark.parametrize(
    ("rows", "dimensions"), [(10, 56), (1000, 170), (80_000, 278), (156_800, 295), (10**7, 397)]
)
def test_johnson_lindenstrauss_gives_the_numbers_of_scikit_learn(rows: int, dimensions: int) -> None:
    assert johnson_lindenstrauss(rows) == dimensions, (
        "johnson_lindenstrauss_min_dim(rows, eps=0.9), scikit-learn 1.9.1"
    )


def test_projection_keeps_squared_distances_on_average() -> None:
    features = torch.randn(400, 1024, generator=torch.Generator().manual_seed(0))
    projected = random_projection(features, 300, generator=torch.Generator().manual_seed(1))
    assert projected.shape == (400, 300)
    ratio = (torch.pdist(projected) / torch.pdist(features)).square()
    assert float(ratio.mean()) == pytest.approx(1.0, abs=0.05)
    assert 0.4 < float(ratio.min()) < float(ratio.max()) < 1.9
    same = random_projection(features, 300, generator=torch.Generator().manual_seed(1))
    assert torch.equal(projected, same)


def test_projection_auto_leaves_narrow_features() -> None:
    features = torch.randn(500, 64)
    assert torch.equal(random_projection(features, generator=torch.Generator()), features)
    assert random_projection(torch.randn(500, 400), generator=torch.Generator()).shape == (
        500,
        johnson_lindenstrauss(500),
    )


def test_misuse_is_refused() -> None:
    features = torch.randn(10, 3)
    for n in (0, 11, True, 2.0):
        with pytest.raises(UsageError, match="from 1 to 10"):
            greedy_coreset(features, n)
    with pytest.raises(UsageError, match="from 0 to 9"):
        greedy_coreset(features, 2, start=10)
    with pytest.raises(UsageError, match="generator="):
        greedy_coreset(features, 2, method="approximate")
    with pytest.raises(UsageError, match="'exact' or 'approximate'"):
        greedy_coreset(features, 2, method="fast")
    with pytest.raises(ShapeError, match=r"\(N, D\)"):
        greedy_coreset(torch.randn(10), 2)
    with pytest.raises(UsageError, match="no rows"):
        greedy_coreset(torch.empty(0, 3), 1)
    for bad in (torch.nan, torch.inf, -torch.inf):
        broken = features.clone()
        broken[4, 1] = bad
        with pytest.raises(NotFinite, match="row 4"):
            greedy_coreset(broken, 2)
    with pytest.raises(UsageError, match="from 1 to 3"):
        random_projection(features, 4, generator=torch.Generator())
    with pytest.raises(UsageError, match="no effect"):
        greedy_coreset(features, 2, pool=4)


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("name", ["gauss", "grid", "duplicates"])
def test_several_threads_pick_the_same_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    features, work = FEATURES[name], Distances._bounds
    threads: set[tuple[str, int]] = set()

    def noted(self: Distances, chunk: torch.Tensor) -> torch.Tensor:
        threads.add((threading.current_thread().name.rpartition("_")[0], torch.get_num_threads()))
        return work(self, chunk)

    monkeypatch.setattr(Distances, "_bounds", noted)
    assert greedy_coreset(features, 150, start=3).tolist() == plain_greedy(features, 150, start=3)
    assert ("kizu-stream", 1) in threads


class _Spread(TorchDispatchMode):
    """Counts the operations of this thread that torch may spread over others."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += torch.get_num_threads() > 1
        return function(*args, **(kwargs or {}))


@pytest.mark.usefixtures("three_threads")
def test_steps_that_wait_for_all_cores_do_not_grow_with_the_picks() -> None:
    """Beside other programs each of them waits for the slowest core."""
    features, counts = torch.from_numpy(FEATURES["gauss"]), []
    for n in (20, 400):
        with _Spread() as spread:
            greedy_coreset(features, n)
        counts.append(spread.count)
    assert counts[0] == counts[1]
    assert torch.get_num_threads() == 3
