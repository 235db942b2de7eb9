"""The streaming coreset: the exact selection while memory lasts, a bounded loss after."""

from __future__ import annotations

import pytest
import torch

from kizu.errors import NotFinite, ShapeError, UsageError
from kizu.neighbours import StreamingCoreset, covering_radius, greedy_coreset, nearest


def _features(rows: int = 6000) -> torch.Tensor:
    spectrum = torch.arange(1, 17) ** -0.7
    return torch.randn(rows, 16, generator=torch.Generator().manual_seed(0)) * spectrum


def _budget(rows: int) -> int:
    return rows * (2 * 16 * 4 + 48)


def test_all_in_memory_is_the_exact_selection() -> None:
    features = _features()
    stream = StreamingCoreset(200)
    for part in features.split(777):
        stream.update(part)
    assert (stream.seen, stream.reductions) == (6000, 0)
    assert torch.equal(stream.finish(), features[greedy_coreset(features, 200)])


def test_bounded_memory_covers_nearly_as_well() -> None:
    features = _features()
    stream = StreamingCoreset(200, budget=_budget(900))
    for part in features.split(250):
        stream.update(part)
    assert stream.reductions > 8
    rows = stream.finish()
    assert rows.shape == (200, 16)
    assert (nearest(rows, features)[0] == 0).all(), "every row is one that was seen"
    exact = covering_radius(features, features[greedy_coreset(features, 200)])
    assert covering_radius(features, rows) < 1.35 * exact


def test_batches_of_any_size_give_the_same_rows() -> None:
    features = _features(3000)
    results = []
    for size in (1000, 3000, 61):
        stream = StreamingCoreset(ratio=0.05, budget=_budget(500))
        for part in features.split(size):
            stream.update(part)
        results.append(stream.finish())
    assert len(results[0]) == 150
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_ratio_without_memory_gives_what_fits() -> None:
    stream = StreamingCoreset(ratio=0.5, budget=_budget(400))
    stream.update(_features(2000))
    assert stream.reductions > 0
    assert len(stream.finish()) <= 400
    wide = StreamingCoreset(ratio=0.5)
    wide.update(_features(2000))
    assert wide.reductions == 0
    assert len(wide.finish()) == 1000


def test_misuse_is_refused() -> None:
    for n, ratio in ((None, None), (3, 0.1)):
        with pytest.raises(UsageError, match="either n"):
            StreamingCoreset(n, ratio=ratio)
    for ratio in (0.0, 1.5, -1.0):
        with pytest.raises(UsageError, match="ratio must be"):
            StreamingCoreset(ratio=ratio)
    with pytest.raises(UsageError, match="from 1"):
        StreamingCoreset(0)
    with pytest.raises(UsageError, match="budget="):
        StreamingCoreset(200, budget=_budget(300)).update(_features(10))
    stream = StreamingCoreset(20)
    with pytest.raises(UsageError, match="seen 0 rows"):
        stream.finish()
    stream.update(_features(10))
    with pytest.raises(UsageError, match="seen 10 rows"):
        stream.finish()
    with pytest.raises(ShapeError, match=r"\(M, 16\)"):
        stream.update(torch.randn(4, 15))
    with pytest.raises(NotFinite):
        stream.update(torch.full((2, 16), torch.nan))
