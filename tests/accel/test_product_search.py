"""Nearest neighbours against float64 distances by direct difference, level by level."""

from __future__ import annotations

import builtins
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from banks import MADE, SIZE, brute, same

from kizu.errors import MissingExtra, NotFinite, ShapeError, UsageError
from kizu.neighbours import NearestNeighbours, nearest
from kizu.neighbours import index as index_module


@pytest.fixture(params=[torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
def product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """Both kinds of product, whatever this processor prefers."""
    monkeypatch.setattr(index_module, "product_type", lambda device: request.param)
    return request.param


@pytest.mark.parametrize("name", MADE)
def test_true_nearest_from_every_level(name: str, product: torch.dtype) -> None:
    queries, bank = MADE[name]
    index = NearestNeighbours(bank)
    for first in range(len(index._bases) + 1):
        index._choice = first
        for k in (1, 3):
            same(index.query(queries, k), queries, bank, k)


@pytest.mark.parametrize("name", ["steep", "slow", "grid", "twins"])
def test_bank_in_parts(name: str, product: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "BANK_ROWS", 192)
    monkeypatch.setattr(index_module, "QUERIES", 25)
    queries, bank = MADE[name]
    for k in (1, 2, 3):
        same(NearestNeighbours(bank).query(queries, k), queries, bank, k)


@pytest.mark.parametrize("k", [1, 3])
def test_only_far_queries_go_on_to_the_next_level(
    k: int, product: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Near ones are answered where they are; the answer is the true one for all, in their order, also for a
    bank in parts."""
    near, bank = MADE["steep"]
    queries = torch.cat(
        [near[:30], 3 * torch.randn(25, SIZE, generator=torch.Generator().manual_seed(4)), near[30:]]
    )
    asked: list[int] = []
    search = NearestNeighbours._search

    def counted(self: NearestNeighbours, level: Any, given: torch.Tensor, *rest: Any) -> Any:
        asked.append(len(given))
        return search(self, level, given, *rest)

    monkeypatch.setattr(NearestNeighbours, "_search", counted)
    for rows in (index_module.BANK_ROWS, 256):
        monkeypatch.setattr(index_module, "BANK_ROWS", rows)
        index = NearestNeighbours(bank)
        index._choice, asked[:] = 1, []
        same(index.query(queries, k), queries, bank, k)
        assert asked[0] == len(queries)
        assert 25 <= asked[1] < len(queries) / 2, asked


def test_near_ties_are_decided_in_float64() -> None:
    """Rows that are one row shuffled: their distances differ by 1e-9, float32 sums by 1e-7."""
    make = torch.Generator().manual_seed(3)
    row = torch.randn(SIZE, generator=make)
    bank = torch.stack([row[torch.randperm(SIZE, generator=make)] for _ in range(200)])
    for number, bump in enumerate(torch.randperm(200, generator=make).tolist()):
        bank[number, 0] *= 1 + bump * 2.0**-22
    queries = 1e-6 * torch.randn(20, SIZE, generator=make)
    same(nearest(queries, bank), queries, bank, 1)


def test_many_neighbours_and_small_banks() -> None:
    queries, bank = MADE["slow"]
    for rows, k in ((700, 700), (700, 40), (5, 5), (1, 1), (63, 1), (64, 1), (65, 1)):
        same(nearest(queries[:20], bank[:rows], k), queries[:20], bank[:rows], k)


def test_a_steep_bank_is_answered_by_the_first_level_and_a_flat_one_is_not() -> None:
    assert NearestNeighbours(MADE["steep"][1])._choice == 0
    make = torch.Generator().manual_seed(1)
    assert NearestNeighbours(torch.randn(3000, SIZE, generator=make))._choice == 2


def test_narrow_levels_leave_few_rows_and_their_bounds_hold(product: torch.dtype) -> None:
    queries, bank = MADE["steep"]
    index = NearestNeighbours(bank)
    distance, row = brute(queries, bank, 1)
    for number in range(3):
        level = index._level(number)
        rows = index._frame.shift(queries)
        side, lost, error = level.queries(rows, rows.norm(dim=1))
        bounds, _ = index_module._bounds(level, side, 0, len(level.columns))
        limits = level.limits(distance[:, 0].float(), lost, error)
        kept = (bounds.reshape(-1, len(queries)) <= limits).T
        assert kept.gather(1, row).all(), "no bound may lose the nearest row"
        assert float(kept.sum()) < 3 * len(queries) * (12 if number == 0 else 1)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_rounded_products_do_not_change_the_answer(precision: str, product: torch.dtype) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        for name in ("steep", "slow"):
            same(nearest(*MADE[name], 2), *MADE[name], 2)
            same(NearestNeighbours(MADE[name][1]).query(MADE[name][0]), *MADE[name], 1)
    finally:
        torch.set_float32_matmul_precision(before)


def test_autocast_gradients_and_layout_do_not_matter() -> None:
    queries, bank = MADE["slow"]
    leaf = queries.clone().requires_grad_()
    strided = torch.empty(SIZE, len(bank)).T.copy_(bank)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distances, index = nearest(leaf, strided)
    same((distances, index), queries, bank, 1)
    assert not distances.requires_grad
    assert not distances.is_inference()
    same(nearest(queries.numpy(), bank.numpy()), queries, bank, 1)


def test_batches_equal_single_queries_and_no_queries_are_fine() -> None:
    queries, bank = MADE["clusters"]
    index = NearestNeighbours(bank)
    together = index.query(queries, 2)
    for number in range(5):
        alone = index.query(queries[number : number + 1], 2)
        assert torch.equal(alone[1][0], together[1][number])
        torch.testing.assert_close(alone[0][0], together[0][number], rtol=1e-6, atol=0.0)
    assert index.query(queries[:0], 2)[0].shape == (0, 2)


def test_state_is_the_bank_and_brings_the_same_answers() -> None:
    queries, bank = MADE["steep"]
    index = NearestNeighbours(bank)
    state = index.state()
    assert list(state) == ["bank"]
    again = NearestNeighbours.from_state({"bank": state["bank"].clone()})
    assert all(
        torch.equal(a, b) for a, b in zip(index.query(queries, 3), again.query(queries, 3), strict=True)
    )


def test_faiss_gives_euclidean_distances() -> None:
    pytest.importorskip("faiss")
    queries, bank = MADE["slow"]
    distances, index = nearest(queries, bank, 3, backend="faiss")
    expected, rows = brute(queries, bank, 3)
    assert torch.equal(index, rows)
    torch.testing.assert_close(distances.double(), expected, rtol=1e-4, atol=0.0)


def test_faiss_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> ModuleType:
        if name == "faiss":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtra, match=r"kizu\[faiss\]"):
        nearest(*MADE["slow"], backend="faiss")


@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_misuse_is_refused(backend: Any) -> None:
    if backend == "faiss":
        pytest.importorskip("faiss")
    queries, bank = torch.randn(4, 3), torch.randn(9, 3)
    for k in (0, 10, True, 1.0):
        with pytest.raises(UsageError, match="from 1 to the 9 rows"):
            nearest(queries, bank, k, backend=backend)
    with pytest.raises(ShapeError, match=r"\(Q, 3\)"):
        nearest(torch.randn(4, 2), bank, backend=backend)
    with pytest.raises(ShapeError, match=r"\(N, D\)"):
        nearest(queries, torch.randn(9), backend=backend)
    with pytest.raises(UsageError, match="no rows"):
        nearest(queries, bank[:0], backend=backend)
    for bad in (torch.nan, torch.inf, -torch.inf):
        with pytest.raises(NotFinite, match="queries holds"):
            nearest(torch.full((4, 3), bad), bank, backend=backend)
        with pytest.raises(NotFinite, match="bank holds"):
            nearest(queries, torch.full((9, 3), bad), backend=backend)
    many = torch.zeros(index_module.QUERIES + 9, 3)
    many[index_module.QUERIES + 5, 1] = torch.nan
    with pytest.raises(NotFinite, match=f"first in row {index_module.QUERIES + 5}:"):
        nearest(many, bank, backend=backend)
    with pytest.raises(UsageError, match="'torch' or 'faiss'"):
        nearest(queries, bank, backend="hnsw")  # type: ignore[arg-type]


@pytest.mark.parametrize("built_inside", [True, False])
def test_inference_mode_or_not_is_the_callers_business(built_inside: bool) -> None:
    """An index and its kept buffers serve both modes in turn, whichever came first."""
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(700, 24, generator=generator), torch.randn(40, 24, generator=generator)
    index_module._KEPT.__dict__.clear()
    with torch.inference_mode(built_inside):
        index = NearestNeighbours(bank)
        first = index.query(queries, 2)
    with torch.inference_mode(not built_inside):
        second = index.query(queries, 2)
        third = NearestNeighbours(bank).query(queries, 2)
    for other in (second, third):
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
