"""The fast search by products: true nearest rows from every level, held equal to the readable search."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from banks import BANKS, SIZE, brute, same

from kizu.accel import products as products_module
from kizu.accel import search as search_module
from kizu.accel.products import ProductSearch
from kizu.accel.search import FastSearch
from kizu.neighbours import NearestNeighbours
from kizu.neighbours.index import exact_search


@pytest.fixture(autouse=True)
def _accel_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIZU_ACCEL", "1")
    monkeypatch.setattr(search_module, "TREE_ROWS", 10**9)


@pytest.fixture(params=[torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
def product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """Both kinds of product, whatever this processor prefers."""
    monkeypatch.setattr(products_module, "product_type", lambda device: request.param)
    return request.param


def twin_of(bank: torch.Tensor, **options: bool) -> tuple[NearestNeighbours, FastSearch]:
    index = NearestNeighbours(bank, **options)
    assert index._twin is not None
    return index, index._twin


@pytest.mark.parametrize("name", BANKS)
def test_the_twin_equals_the_reference(name: str, product: torch.dtype) -> None:
    queries, bank = BANKS[name]
    for options in ({"many_queries": True}, {"many_queries": False}):
        index, twin = twin_of(bank, **options)
        for k in (1, 2, 5):
            assert twin.can_serve(queries, k) == (k <= len(bank) // 64)
            expected, got = exact_search(queries, bank, k), index.query(queries, k)
            assert torch.equal(got[1], expected[1])
            assert got[0].dtype == expected[0].dtype
            torch.testing.assert_close(got[0], expected[0], rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("name", BANKS)
def test_true_nearest_from_every_level(name: str, product: torch.dtype) -> None:
    queries, bank = BANKS[name]
    index, twin = twin_of(bank)
    for first in range(len(twin.products.bases) + 1):
        twin.products.first_level = first
        for k in (1, 3):
            same(index.query(queries, k), queries, bank, k)


@pytest.mark.parametrize("name", ["steep", "slow", "grid", "twins"])
def test_bank_in_parts(name: str, product: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products_module, "BANK_ROWS", 192)
    monkeypatch.setattr(search_module, "QUERIES", 25)
    queries, bank = BANKS[name]
    for k in (1, 2, 3):
        same(NearestNeighbours(bank).query(queries, k), queries, bank, k)


@pytest.mark.parametrize("k", [1, 3])
def test_only_far_queries_go_on_to_the_next_level(
    k: int, product: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Near ones are answered where they are; the answer is the true one for all, in their order, also for a
    bank in parts."""
    near, bank = BANKS["steep"]
    queries = torch.cat(
        [near[:30], 3 * torch.randn(25, SIZE, generator=torch.Generator().manual_seed(4)), near[30:]]
    )
    asked: list[int] = []
    search_level = ProductSearch.search_level

    def counted(self: ProductSearch, level: Any, given: torch.Tensor, *rest: Any) -> Any:
        asked.append(len(given))
        return search_level(self, level, given, *rest)

    monkeypatch.setattr(ProductSearch, "search_level", counted)
    for rows in (products_module.BANK_ROWS, 256):
        monkeypatch.setattr(products_module, "BANK_ROWS", rows)
        index, twin = twin_of(bank)
        twin.products.first_level, asked[:] = 1, []
        same(index.query(queries, k), queries, bank, k)
        assert asked[0] == len(queries)
        assert 25 <= asked[1] < len(queries) / 2, asked


@pytest.mark.parametrize("k", [1, 3])
def test_only_queries_too_far_for_float32_are_left_unresolved(k: int, product: torch.dtype) -> None:
    near, bank = BANKS["steep"]
    queries = torch.cat([near[:30], 1e25 * near[30:40], near[40:]])
    index, twin = twin_of(bank)
    *_, unresolved = twin.query(queries, k)
    assert unresolved.tolist() == [30 <= number < 40 for number in range(len(queries))]
    same(index.query(queries, k), queries, bank, k)


def test_a_steep_bank_is_answered_by_the_first_level_and_a_flat_one_is_not() -> None:
    assert twin_of(BANKS["steep"][1])[1].products.first_level == 0
    make = torch.Generator().manual_seed(1)
    assert twin_of(torch.randn(3000, SIZE, generator=make))[1].products.first_level == 2


def test_narrow_levels_leave_few_rows_and_their_bounds_hold(product: torch.dtype) -> None:
    queries, bank = BANKS["steep"]
    search = twin_of(bank)[1].products
    distance, row = brute(queries, bank, 1)
    for number in range(3):
        level = search.level(number)
        rows = search.frame.shift(queries)
        side, rounding, error = level.query_side(rows, rows.norm(dim=1))
        bounds, _ = products_module.group_bounds(level, side, 0, len(level.columns))
        limits = level.limits(distance[:, 0].float(), rounding, error)
        kept = (bounds.reshape(-1, len(queries)) <= limits).T
        assert kept.gather(1, row).all(), "no bound may lose the nearest row"
        assert float(kept.sum()) < 3 * len(queries) * (12 if number == 0 else 1)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_rounded_products_do_not_change_the_answer(precision: str, product: torch.dtype) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        for name in ("steep", "slow"):
            queries, bank = BANKS[name]
            same(NearestNeighbours(bank, many_queries=False).query(queries, 2), queries, bank, 2)
            same(NearestNeighbours(bank).query(queries), queries, bank, 1)
    finally:
        torch.set_float32_matmul_precision(before)


def test_kept_memory_serves_inference_mode_and_not() -> None:
    queries, bank = BANKS["slow"]
    products_module._SCRATCH.__dict__.clear()
    with torch.inference_mode():
        first = NearestNeighbours(bank).query(queries, 2)
    second = NearestNeighbours(bank).query(queries, 2)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_switch_chooses_when_the_index_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    assert NearestNeighbours(BANKS["slow"][1])._twin is not None
    monkeypatch.setenv("KIZU_ACCEL", "0")
    assert NearestNeighbours(BANKS["slow"][1])._twin is None
