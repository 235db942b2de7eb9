"""Banks and queries that nearest neighbours are tried on; their answers by direct difference in float64."""

from __future__ import annotations

import functools

import torch

SIZE = 288


def brute(queries: torch.Tensor, bank: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Direct differences in float64; a stable sort puts the smallest index first among equals."""
    values, index = _sorted(queries, bank)
    return values[:, :k].sqrt(), index[:, :k]


@functools.lru_cache(maxsize=2)
def _sorted(queries: torch.Tensor, bank: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared distances (Q, N), ascending, and their rows; kept for the two pairs asked for last."""
    rows = [(bank.double() - query.double()).square().sum(1) for query in queries]
    return torch.stack(rows).sort(dim=1, stable=True)


def _banks() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """name -> (queries, bank)."""
    make = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=make)

    steep, slow = torch.arange(1, SIZE + 1) ** -1.5, torch.arange(1, SIZE + 1) ** -0.3
    centres = normal(30, SIZE)
    which = torch.randint(0, 30, (700,), generator=make)
    clusters = centres[which] + 0.2 * normal(700, SIZE)
    grid = torch.randint(0, 3, (700, SIZE), generator=make).float()
    grid[:, 5:] = 0.0
    twins = torch.cat([normal(300, SIZE), normal(50, SIZE)]).repeat(2, 1)
    return {
        "steep": (normal(70, SIZE) * steep, normal(700, SIZE) * steep),
        "slow": (normal(70, SIZE) * slow, normal(700, SIZE) * slow),
        "clusters": (centres[:30] + 0.3 * normal(30, SIZE), clusters),
        "far queries": (50 + normal(40, SIZE), normal(700, SIZE) * steep),
        "own rows": (clusters[100:160], clusters),
        "grid": (grid[:60], grid[60:]),
        "half way": ((grid[:60] + grid[60:120]) / 2, grid),
        "twins": (twins[:60] + 0.01, twins),
        "identical": (normal(20, SIZE), torch.full((500, SIZE), 0.3)),
        "far from zero": (1000 + 0.01 * normal(40, SIZE), 1000 + 0.01 * normal(700, SIZE)),
        "huge": (1e30 * normal(40, SIZE), 1e30 * normal(700, SIZE)),
        "tiny": (1e-25 * normal(40, SIZE), 1e-25 * normal(700, SIZE)),
        "vast queries": (1e25 * normal(20, SIZE), normal(700, SIZE)),
        "one wide": (normal(50, 1), normal(700, 1)),
        "float64": (normal(40, SIZE).double() * steep, normal(700, SIZE).double() * steep),
        "half": ((normal(40, SIZE) * steep).half(), (normal(700, SIZE) * steep).half()),
        "bfloat16": ((normal(40, SIZE) * steep).bfloat16(), (normal(700, SIZE) * steep).bfloat16()),
    }


BANKS = _banks()


def same(got: tuple[torch.Tensor, torch.Tensor], queries: torch.Tensor, bank: torch.Tensor, k: int) -> None:
    distances, index = brute(queries, bank, k)
    assert got[1].dtype == torch.int64
    assert torch.equal(got[1], index)
    torch.testing.assert_close(got[0].double(), distances, rtol=1e-6, atol=0.0)
