"""What torchrun and `fabric run` say to the processes that they start: variables of the environment. Free of
torch, so that a command can look before it does anything."""

from __future__ import annotations

import os

from kizu.errors import UsageError


def launched() -> tuple[int, int]:
    """(processes on this machine, machines) as torchrun or `fabric run` set them; (1, 1) without a
    launcher."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 1, 1
    local, world = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), int(os.environ.get("WORLD_SIZE", "1"))
    return local, max(world // local, 1)


def check_counts(devices: int | None, nodes: int | None) -> None:
    """Raise UsageError for counts (None: as started) that are not those of the launcher, if there is one."""
    local, machines = launched()
    asked = (devices or local, nodes or machines)
    alone = not {"TORCHELASTIC_RUN_ID", "LT_CLI_USED", "MASTER_ADDR"} & set(os.environ)
    if asked[1] > 1 and alone:
        raise UsageError(
            f"{asked[1]} machines take a launcher on each, which tells them of each other: torchrun --nnodes "
            f"{asked[1]} --nproc-per-node {asked[0]} --rdzv-backend c10d --rdzv-endpoint HOST:PORT -m kizu "
            "pretrain ..., without --nodes and --devices."
        )
    if (local, machines) not in ((1, 1), asked):
        raise UsageError(
            f"The launcher started {local} processes on each of {machines} machines, and devices and nodes "
            f"say {asked[0]} and {asked[1]}: leave --devices and --nodes away."
        )


def world_size(devices: int | None, nodes: int | None) -> int:
    """How many processes a training has; None is what the launcher started, or 1."""
    local, machines = launched()
    return (devices or local) * (nodes or machines)


def is_one_of_many(devices: int | None, nodes: int | None) -> bool:
    """Whether a training has several processes, or `fabric run` started it, whose options count then."""
    if (devices, nodes) == (1, 1):
        return False
    return os.environ.get("LT_CLI_USED") == "1" or world_size(devices, nodes) > 1


def is_first_process() -> bool:
    """Whether this is the process that writes, among those that a launcher started.

    It reads the launcher's variables, so it works before the processes are connected."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"
