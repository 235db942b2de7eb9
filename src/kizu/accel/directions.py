"""The leading principal directions of a bank, about: any orthonormal basis gives valid bounds, a better one
closer bounds."""

from __future__ import annotations

import torch
from torch import Tensor

from kizu.accel.frame import Frame
from kizu.engine import one_thread

SAMPLE, SPREAD = 64, 4096
"""Rows on which a choice is tried; rows that it is tried against and that directions are computed from."""
EIGEN = 512
"""Up to this size all eigenvectors are computed."""


def sample(bank: Tensor) -> Tensor:
    """About SPREAD rows of a bank (N, D), evenly spread; all where it has no more."""
    return bank[:: -(-len(bank) // SPREAD)]


def leading_directions(bank: Tensor, frame: Frame, width: int) -> Tensor:
    """Orthonormal (D, width), float64, that spans about the leading principal directions of a bank (N, D).

    Nothing is random.
    """
    rows = frame.shift(sample(bank))
    covariance = (rows.T @ rows).double()
    with one_thread():  # many small steps
        small = rows.shape[1] <= EIGEN
        values, vectors = torch.linalg.eigh(covariance) if small else _power(covariance, width)
        order = values.argsort(descending=True)[:width]
        return torch.linalg.qr(vectors[:, order]).Q


def _power(covariance: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Leading eigenpairs, about, of (D, D): three block power iterations, then Rayleigh-Ritz.

    They start from the columns of largest diagonal.
    """
    start = covariance[:, covariance.diagonal().argsort(descending=True)[: 2 * width]]
    block = torch.linalg.qr(start).Q
    for _ in range(3):
        block = torch.linalg.qr(covariance @ block).Q
    values, small = torch.linalg.eigh(block.T @ covariance @ block)
    return values, block @ small
