"""Nearest neighbours against float64 direct differences: the readable search and its fast twin."""

from __future__ import annotations

import builtins
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from banks import BANKS, SIZE, brute, same

from kizu.errors import MissingExtra, NotFinite, ShapeError, UsageError
from kizu.neighbours import NearestNeighbours, nearest
from kizu.neighbours import index as index_module


@pytest.fixture(autouse=True, params=["0", "1"], ids=["reference", "twin"])
def _search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIZU_ACCEL", request.param)


@pytest.mark.parametrize("name", BANKS)
def test_true_nearest(name: str) -> None:
    queries, bank = BANKS[name]
    for k in (1, 3):
        same(nearest(queries, bank, k), queries, bank, k)


@pytest.mark.parametrize("name", ["steep", "grid", "twins", "half way"])
def test_blocks_of_queries_and_pieces_of_pairs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "BLOCK", 5000)
    monkeypatch.setattr(index_module, "PAIRS", 3 * SIZE)
    queries, bank = BANKS[name]
    for k in (1, 3):
        same(index_module.exact_search(queries, bank, k), queries, bank, k)


def test_near_ties_are_decided_in_float64() -> None:
    """Rows that are one row shuffled: their distances differ by 1e-9, float32 sums by 1e-7."""
    make = torch.Generator().manual_seed(3)
    row = torch.randn(SIZE, generator=make)
    bank = torch.stack([row[torch.randperm(SIZE, generator=make)] for _ in range(200)])
    for number, bump in enumerate(torch.randperm(200, generator=make).tolist()):
        bank[number, 0] *= 1 + bump * 2.0**-22
    queries = 1e-6 * torch.randn(20, SIZE, generator=make)
    for k in (1, 3):
        same(nearest(queries, bank, k), queries, bank, k)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("name", BANKS)
def test_true_nearest_on_an_accelerator(name: str) -> None:
    queries, bank = BANKS[name]
    for k in (1, 3):
        distances, rows = nearest(queries.cuda(), bank.cuda(), k)
        same((distances.cpu(), rows.cpu()), queries, bank, k)


def test_many_neighbours_and_small_banks() -> None:
    queries, bank = BANKS["slow"]
    for rows, k in ((700, 700), (700, 40), (5, 5), (1, 1), (63, 1), (64, 1), (65, 1)):
        same(nearest(queries[:20], bank[:rows], k), queries[:20], bank[:rows], k)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_float64_squares_neither_overflow_nor_vanish(scale: float) -> None:
    queries, bank = BANKS["float64"]
    distances, rows = brute(queries, bank, 2)
    got = nearest(scale * queries, scale * bank, 2)
    assert torch.equal(got[1], rows)
    torch.testing.assert_close(got[0], scale * distances, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_rounded_products_do_not_change_the_answer(precision: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        for name in ("steep", "slow"):
            same(nearest(*BANKS[name], 2), *BANKS[name], 2)
            same(NearestNeighbours(BANKS[name][1]).query(BANKS[name][0]), *BANKS[name], 1)
    finally:
        torch.set_float32_matmul_precision(before)


def test_autocast_gradients_and_layout_do_not_matter() -> None:
    queries, bank = BANKS["slow"]
    leaf = queries.clone().requires_grad_()
    strided = torch.empty(SIZE, len(bank)).T.copy_(bank)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distances, index = nearest(leaf, strided)
    same((distances, index), queries, bank, 1)
    assert not distances.requires_grad
    assert not distances.is_inference()
    same(nearest(queries.numpy(), bank.numpy()), queries, bank, 1)


def test_batches_equal_single_queries_and_no_queries_are_fine() -> None:
    queries, bank = BANKS["clusters"]
    index = NearestNeighbours(bank)
    together = index.query(queries, 2)
    for number in range(5):
        alone = index.query(queries[number : number + 1], 2)
        assert torch.equal(alone[1][0], together[1][number])
        torch.testing.assert_close(alone[0][0], together[0][number], rtol=1e-6, atol=0.0)
    for k in (1, 2, len(bank)):
        distances, rows = index.query(queries[:0], k)
        assert distances.shape == rows.shape == (0, k)
        assert (distances.dtype, rows.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize("built_inside", [True, False])
def test_inference_mode_or_not_is_the_callers_business(built_inside: bool) -> None:
    """An index and its kept buffers serve both modes in turn, whichever came first."""
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(700, 24, generator=generator), torch.randn(40, 24, generator=generator)
    with torch.inference_mode(built_inside):
        index = NearestNeighbours(bank)
        first = index.query(queries, 2)
    with torch.inference_mode(not built_inside):
        second = index.query(queries, 2)
        third = NearestNeighbours(bank).query(queries, 2)
    for other in (second, third):
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_faiss_gives_euclidean_distances() -> None:
    pytest.importorskip("faiss")
    queries, bank = BANKS["slow"]
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
        nearest(*BANKS["slow"], backend="faiss")


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
    with pytest.raises(UsageError, match="'torch' or 'faiss'"):
        nearest(queries, bank, backend="hnsw")  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [9, 700])
@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_a_broken_query_among_many_is_named(backend: Any, rows: int) -> None:
    if backend == "faiss":
        pytest.importorskip("faiss")
    many = torch.zeros(1100, 3)
    many[1060, 1] = torch.nan
    with pytest.raises(NotFinite, match="first in row 1060:"):
        nearest(many, torch.randn(rows, 3), backend=backend)
