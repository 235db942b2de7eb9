"""Many small covariances -> the rows of W = L^-1 with S = L L^T, in place and mostly by products of blocks.

A batched Cholesky factor works on one matrix after the other. Here a matrix S = (A B^T; B C) is treated by
halves: W_A belongs to A, M = B W_A^T, W_C belongs to C - M M^T, and W = (W_A 0; -W_C M W_A  W_C). Most of the
work is then batched matrix products. PaDiM's twin (nested_gaussians.py) uses the same step from one stage to
the next, where many matrices share the same W_A.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALL = 32
"""Matrices up to this many rows are factored by LAPACK."""


def whiten_stage(covariance: Tensor, before: list[Tensor]) -> None:
    """The rows (B C) of S = (A B^T; B C), (p, d, D), become the rows (-W_C M W_A  W_C) of W, in place.

    before: the rows of W_A, one tensor (q, d_s, D_s) for each stage before; p / q consecutive matrices share
    one.
    """
    d, D = covariance.shape[1:]
    own = covariance[:, :, D - d :]
    if not before:
        whiten(own)
        return
    shared, start = covariance.new_zeros(len(before[0]), D - d, D - d), 0
    for rows in before:
        _, height, width = rows.shape
        shared[:, start : start + height, :width] = rows
        start += height
    _whiten_lower_blocks(covariance.view(len(shared), -1, D)[:, :, : D - d], own, shared)


def whiten(covariance: Tensor) -> None:
    """S (p, D, D), positive definite, becomes W = L^-1 with S = L L^T, in place."""
    D = covariance.shape[1]
    if D <= SMALL:
        lower = torch.linalg.cholesky(covariance)
        unit = torch.eye(D, device=covariance.device, dtype=covariance.dtype).expand_as(lower)
        covariance.copy_(torch.linalg.solve_triangular(lower, unit, upper=False))
        return
    top, bottom = slice(0, D // 2), slice(D // 2, D)
    first, second, across = covariance[:, top, top], covariance[:, bottom, bottom], covariance[:, bottom, top]
    whiten(first)
    _whiten_lower_blocks(across, second, first)
    covariance[:, top, bottom] = 0


def _whiten_lower_blocks(across: Tensor, own: Tensor, first: Tensor) -> None:
    """B and C become -W_C M W_A and W_C, in place.

    own: C (p, d, d). first: W_A (q, D, D). across: B (q, p / q * d, D), the blocks that share a W_A in one
    matrix.
    """
    mixed = torch.bmm(across, first.transpose(1, 2)).view(len(own), own.shape[1], -1)  # M
    own.baddbmm_(mixed, mixed.transpose(1, 2), alpha=-1)
    whiten(own)
    across.copy_(torch.bmm(torch.bmm(own, mixed).neg_().view(across.shape), first))


def pack_rows(rows: Tensor, entries: Tensor) -> Tensor:
    """Rows of W (G, d, D) -> their entries (G, K) that are not zero by construction
    (Nesting.packed_entries)."""
    return rows.flatten(1).gather(1, entries.to(rows.device).expand(len(rows), -1))


def unpack_rows(packed: Tensor, entries: Tensor, shape: tuple[int, int]) -> Tensor:
    """Packed entries (G, K) of rows of W (G, d, D) -> the transposes (G, D, d), float32. shape: (d, D)."""
    d, D = shape
    transposed = (entries % D) * d + entries // D
    rows = torch.zeros(len(packed), D * d, device=packed.device)
    return rows.index_copy_(1, transposed.to(packed.device), packed.float()).view(-1, D, d)
