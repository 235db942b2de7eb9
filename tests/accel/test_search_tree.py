"""The tree of leaves: true nearest rows whatever the directions, whatever is left to the products; its bounds
are bounds."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from banks import BANKS, SIZE, same

from kizu import engine
from kizu.accel import compiled as compiled_module
from kizu.accel import search as search_module
from kizu.accel import tree as tree_module
from kizu.accel import vectors, walk
from kizu.accel.directions import leading_directions
from kizu.accel.products import ProductSearch
from kizu.accel.search import FastSearch
from kizu.accel.tree import DIRECTIONS, STEPS, Tree
from kizu.accel.vectors import BOX, ROWS, STEP, WIDTH
from kizu.engine import thread_map
from kizu.errors import NotFinite
from kizu.neighbours import NearestNeighbours
from kizu.neighbours.index import exact_search

FLOAT32 = [name for name, (_, bank) in BANKS.items() if bank.dtype == torch.float32]


@pytest.fixture(autouse=True)
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees for small banks too."""
    monkeypatch.setenv("KIZU_ACCEL", "1")
    monkeypatch.setattr(search_module, "TREE_ROWS", 1)


def twin_of(bank: torch.Tensor) -> tuple[NearestNeighbours, FastSearch]:
    index = NearestNeighbours(bank)
    assert index._twin is not None
    return index, index._twin


def tree_of(bank: torch.Tensor) -> tuple[NearestNeighbours, Tree]:
    index, twin = twin_of(bank)
    assert twin.tree is not None
    return index, twin.tree


@pytest.mark.parametrize("leaves", [1, 3, 1000])
@pytest.mark.parametrize("name", FLOAT32)
def test_true_nearest(name: str, leaves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where most queries look into too many leaves and are left to the products."""
    monkeypatch.setattr(tree_module, "MAX_LEAVES", leaves)
    queries, bank = BANKS[name]
    index, twin = twin_of(bank)
    if name in ("huge", "tiny"):  # their squares leave float32: products with a scale
        assert twin.tree is None
        return
    directions = leading_directions(bank, twin.frame, min(DIRECTIONS, bank.shape[1]))
    twin.tree = Tree(bank, twin.frame.mean, directions)  # one that it might not keep
    same(index.query(queries), queries, bank, 1)
    expected, got = exact_search(queries, bank, 1), index.query(queries)
    assert torch.equal(got[1], expected[1])


def test_the_tree_answers_by_itself() -> None:
    queries, bank = BANKS["steep"]
    _, twin = twin_of(bank)
    assert twin.tree is not None
    distance, rows, unresolved = twin.tree.query(queries)
    assert not unresolved.any()
    same((distance[:, None], rows[:, None]), queries, bank, 1)
    assert twin.products._levels == {}


def test_only_what_the_tree_leaves_open_is_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    near, bank = BANKS["steep"]
    queries = torch.cat(
        [near[:30], 3 * torch.randn(25, SIZE, generator=torch.Generator().manual_seed(4)), near[30:]]
    )
    monkeypatch.setattr(tree_module, "MAX_LEAVES", 8)
    index, asked = NearestNeighbours(bank), []
    by_products = ProductSearch.query

    def counted(self: ProductSearch, given: torch.Tensor, k: int) -> tuple[torch.Tensor, ...]:
        asked.append(len(given))
        return by_products(self, given, k)

    monkeypatch.setattr(ProductSearch, "query", counted)
    same(index.query(queries), queries, bank, 1)
    assert len(asked) == 1
    assert 25 <= asked[0] < len(queries)


@pytest.mark.parametrize("size", [1, 3, 14, 16, 29, 30, 31, 63, 64, 65, 300])
@pytest.mark.parametrize("rows", [1, 63, 64, 65, 1000])
def test_any_directions_and_sizes(size: int, rows: int) -> None:
    make = torch.Generator().manual_seed(size * rows)
    bank, queries = torch.randn(rows, size, generator=make), torch.randn(50, size, generator=make)
    queries[:20] = bank[torch.randint(0, rows, (20,), generator=make)] + 0.003 * queries[:20]
    basis = torch.linalg.qr(torch.randn(size, min(size, DIRECTIONS), generator=make, dtype=torch.float64)).Q
    distance, index, unresolved = Tree(bank, bank.mean(0), basis).query(queries)
    assert int(unresolved[:20].sum()) <= 2  # these lie beside a row, few of them at the edge of its box
    same((distance[~unresolved, None], index[~unresolved, None]), queries[~unresolved], bank, 1)


@pytest.mark.parametrize("shift", [0.0, 3.0, 300.0])
def test_bounds_are_never_above_the_distance(shift: float) -> None:
    """Each part of a bound, recomputed from the tree's tables, against float64 distances with the stated
    allowance."""
    make = torch.Generator().manual_seed(5)
    scale = torch.arange(1, SIZE + 1) ** -0.7
    bank, queries = (shift + torch.randn(count, SIZE, generator=make) * scale for count in (640, 40))
    basis = torch.linalg.svd((bank - bank.mean(0)).double()).Vh[:DIRECTIONS].T
    tree = Tree(bank, bank.mean(0), basis)
    low, high, first, second, numbers, _ = tree._tables
    low, high = low[:, : len(first)], high[:, : len(first)]
    at = (queries - torch.from_numpy(tree._mean)).double()
    made = at @ basis
    left = [(at.square().sum(1) - made[:, :stop].square().sum(1)).sqrt() for stop in (STEP, 2 * STEP)]
    one, two = (
        torch.cat([made[:, :STEP], left[0][:, None]], 1),
        torch.cat([made[:, STEP : 2 * STEP], left[1][:, None]], 1),
    )
    true = torch.cdist(queries.double(), bank[numbers].double())
    a = torch.from_numpy(np.moveaxis(first, 1, 2).reshape(-1, STEP + 1)).double()
    b = torch.from_numpy(np.moveaxis(second, 1, 2).reshape(-1, STEP + 1)).double()
    bound = torch.cdist(torch.cat([one[:, :STEP], two], 1), torch.cat([a[:, :STEP], b], 1))
    assert bool((torch.cdist(one, a) <= true * 1.000001 + 1e-5).all())
    assert bool((bound <= true * 1.000001 + 1e-5).all())
    without = torch.cdist(
        torch.cat([one[:, :STEP], two[:, :STEP]], 1), torch.cat([a[:, :STEP], b[:, :STEP]], 1)
    )
    assert float((without / true).mean()) + 0.0001 < float(
        (bound / true).mean()
    )  # what the directions leave counts
    assert float((bound / true).mean()) > 0.9
    box = torch.from_numpy(
        np.maximum(
            np.maximum(low[None] - one[:, :BOX, None].numpy(), one[:, :BOX, None].numpy() - high[None]), 0.0
        )
    )
    nearest = true.view(len(queries), -1, ROWS).amin(2)
    assert bool((box.square().sum(1).sqrt() <= nearest * 1.000001 + 1e-5).all())


def test_rounding_of_coordinates_stays_within_its_allowance() -> None:
    make = torch.Generator().manual_seed(6)
    bank, queries = (100.0 + torch.randn(count, 1000, generator=make) for count in (300, 64))
    basis = torch.linalg.qr(torch.randn(1000, DIRECTIONS, generator=make, dtype=torch.float64)).Q
    tree = Tree(bank, bank.mean(0), basis)
    exact = (queries.double() - torch.from_numpy(tree._mean)) @ basis
    coordinate_error, mean_norm, _ = tree._allowances
    made = np.zeros((compiled_module.QUERIES, WIDTH), np.float32)
    compiled_module._rotate(queries[:20].numpy(), 3, 20, tree._basis.ctypes.data, tree._basis[-1], made)
    assert not made[:17, DIRECTIONS:].any()
    error = (torch.from_numpy(made[:17, :DIRECTIONS]).double() - exact[3:20]).norm(dim=1)
    allowed = (
        coordinate_error
        * DIRECTIONS**0.5
        * ((queries.double() - torch.from_numpy(tree._mean)).norm(dim=1) + mean_norm)[3:20]
    )
    assert bool((error <= allowed).all())
    assert float(error.max()) > 1e-6  # there is something to allow for


@pytest.mark.parametrize("shift", [0.0, 3.0, 300.0])
@pytest.mark.parametrize("size", [5, 64, 200])
def test_codes_are_no_farther_from_their_rows_than_they_say(size: int, shift: float) -> None:
    make = torch.Generator().manual_seed(8)
    bank = shift + torch.randn(200, size, generator=make) * torch.arange(1, size + 1) ** -0.5
    bank[70:80] = bank[70]  # a leaf may hold equal rows
    tree = Tree(
        bank,
        bank.mean(0),
        torch.linalg.qr(torch.randn(size, min(size, DIRECTIONS), generator=make, dtype=torch.float64)).Q,
    )
    values, centres, scales, errors = tree._codes
    numbers = tree._tables[4][: len(bank)]
    made = (
        centres[np.arange(len(bank)) // ROWS, :size].astype(np.float64)
        + scales[: len(bank), None].astype(np.float64) * values[: len(bank), :size]
    )
    off = np.linalg.norm(bank.double().numpy()[numbers] - tree._mean - made, axis=1)
    assert (off <= errors[: len(bank)]).all()
    assert np.abs(values).max() == STEPS
    spread = np.linalg.norm(bank.numpy() - bank.numpy().mean(0), axis=1)
    assert off.mean() < 0.02 * spread.mean()


def test_a_bank_without_directions_gets_no_tree() -> None:
    make = torch.Generator().manual_seed(7)
    bank, queries = torch.randn(1500, SIZE, generator=make), torch.randn(300, SIZE, generator=make)
    index, twin = twin_of(bank)
    assert twin.tree is None
    same(index.query(queries), queries, bank, 1)
    tree = Tree(bank, bank.mean(0), torch.eye(SIZE, DIRECTIONS, dtype=torch.float64))
    assert tree.query(queries, max_overflows=1)[2].all()
    assert not tree.query(queries)[2].all()  # it could, but products are faster


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_queries_are_named(value: float) -> None:
    queries, bank = BANKS["steep"]
    broken = queries.clone()
    broken[41, 7] = value
    with pytest.raises(NotFinite, match="41"):
        NearestNeighbours(bank).query(broken)


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), RuntimeError("cannot cache function: no locator available")],
)
def test_machine_code_that_cannot_be_kept_works_all_the_same(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[bool] = []
    made = compiled_module.search()

    def cfunc(signature: object, cache: bool = False, **options: object) -> object:
        def compiled(function: object) -> object:
            assert function is compiled_module._search
            tries.append(cache)
            if cache:
                raise error
            return made

        return compiled

    monkeypatch.setattr(compiled_module, "cfunc", cfunc)
    assert compiled_module.search.__wrapped__() is made
    assert tries == [True, False]


def test_kept_machine_code_is_stale_when_its_instructions_change() -> None:
    """numba looks at the file of the function alone."""
    text = b"".join(Path(module.__file__).read_bytes() for module in (vectors, walk))
    assert hashlib.sha256(text).hexdigest()[:16] == compiled_module.INSTRUCTIONS, (
        "write the new digest of both files into compiled_module.py"
    )


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("openmp", [True, False])
def test_any_number_of_threads_shares_the_queries(
    threads: int, openmp: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of queries that are no whole number of turns."""
    queries, bank = BANKS["steep"]
    _, tree = tree_of(bank)
    if not openmp:
        monkeypatch.setattr(engine, "_openmp", lambda: None)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for count in (1, 27, 29, len(queries)):
            distance, rows, unresolved = tree.query(queries[:count])
            assert not unresolved.any()
            same((distance[:, None], rows[:, None]), queries[:count], bank, 1)
    finally:
        torch.set_num_threads(before)


def test_several_threads_at_once() -> None:
    queries, bank = BANKS["clusters"]
    index = NearestNeighbours(bank)
    for distance, rows in thread_map(index.query, [queries] * 8):
        same((distance, rows), queries, bank, 1)


@pytest.mark.slow
def test_compiling_is_said_and_code_from_the_disk_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    caplog.set_level(logging.INFO, "kizu")
    compiled_module.search.__wrapped__()
    assert caplog.messages == [compiled_module.COMPILING]
    compiled_module.search.__wrapped__()
    assert caplog.messages == [compiled_module.COMPILING]
