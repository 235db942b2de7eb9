"""Work on many processes: which one this is, and values of all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def rank_and_world() -> tuple[int, int]:
    """(number of this process, how many there are) in the run under way; (0, 1) for a single process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def leave() -> None:
    """Close the connection to the other processes, at the end of a program. One that exits with it open may
    be aborted (torch's threads outlive the interpreter), and its launcher then stops the others."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def gather(values: Tensor) -> Tensor:
    """(B, ...) of this process -> (world * B, ...) of all processes, in rank order.

    Gradients flow back to the process that a row came from."""
    return _Gather.apply(values) if rank_and_world()[1] > 1 else values


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, element by element; its gradient is the sum of theirs."""
    return _Sum.apply(values) if rank_and_world()[1] > 1 else values


class _Gather(Function):
    """All processes' rows; a row's gradient is the sum of what all processes send it."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        rows = [torch.empty_like(values) for _ in range(rank_and_world()[1])]
        torch.distributed.all_gather(rows, values.contiguous())
        return torch.cat(rows)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        rank, world = rank_and_world()
        return total(gradient.clone()).chunk(world)[rank]


class _Sum(Function):
    """The sum over processes, whose gradient is the sum as well."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return total(values.clone())

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return total(gradient.clone())


def gather_mapping(values: dict[str, str]) -> dict[str, str]:
    """The entries of all processes in one, sorted; each process calls it."""
    if rank_and_world()[1] == 1:
        return dict(sorted(values.items()))
    every: list[Any] = [None] * rank_and_world()[1]
    torch.distributed.all_gather_object(every, values)
    return dict(sorted({key: value for one in every for key, value in one.items()}.items()))


def total(values: Tensor) -> Tensor:
    """The sum over all processes, element by element, without gradient."""
    if rank_and_world()[1] > 1:
        torch.distributed.all_reduce(values)
    return values
