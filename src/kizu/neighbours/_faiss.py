"""The search by faiss (extra "faiss"), for comparison."""

from __future__ import annotations

import torch
from torch import Tensor

from kizu.errors import MissingExtra
from kizu.neighbours._checks import check_finite, check_queries, check_rows, to_tensor


def search_flat(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances (Q, k) and indices (Q, k) by IndexFlatL2 on the CPU in float32. Raises as `nearest` does."""
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise MissingExtra("faiss-cpu", "faiss") from error
    bank, queries = to_tensor("bank", bank), to_tensor("queries", queries)
    check_rows("bank", bank)
    check_queries(queries, bank, k)
    check_finite("bank", bank)
    check_finite("queries", queries)
    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(bank.float().cpu().contiguous().numpy())
    squared, rows = index.search(queries.float().cpu().contiguous().numpy(), k)
    distances = torch.from_numpy(squared).clamp_(min=0).sqrt_()
    return distances.to(bank.device), torch.from_numpy(rows).to(bank.device)
