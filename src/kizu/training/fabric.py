"""Lightning Fabric, set up from kizu's settings: where a run computes, in which precision, in how many
processes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kizu.engine import check_precision, device_named, has_bf16
from kizu.errors import UsageError
from kizu.launchers import launched
from kizu.precision import Choice, said_by_user

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
"""kizu's name -> Fabric's. bf16 is autocast: weights and optimiser stay float32."""
_RANKS = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
"""What launchers of all kinds set."""


def launch_fabric(precision: str, device: str, devices: int | None, nodes: int | None) -> Any:
    """A launched Fabric. None for `devices` or `nodes` is what torchrun or `fabric run` set, or 1; devices=1
    and nodes=1 is this process alone, whoever started it. Raises UsageError."""
    check_precision(precision)
    if (devices, nodes) == (1, 1):
        with _launcher_hidden():
            return _launched_here(precision, device, 1, 1)
    if _is_fabric_run():
        return _of_fabric_run(precision, device, devices, nodes)
    local_processes, machines = launched()
    return _launched_here(precision, device, devices or local_processes, nodes or machines)


def _launched_here(precision: str, device: str, count: int, machines: int) -> Any:
    """A Fabric of so many processes on each of so many machines, launched."""
    from lightning_fabric import Fabric

    chosen = device_named(device)
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)  # not a line a fit
    fabric = Fabric(
        accelerator=chosen.type,
        devices=[chosen.index] if chosen.index is not None and count == 1 else count,
        num_nodes=machines,
        strategy="ddp" if count * machines > 1 else "auto",
        precision=_named_precision(precision, device),
    )
    fabric.launch()
    return fabric


def _named_precision(precision: str, device: str) -> Any:
    """Fabric's name of a precision of kizu's."""
    if precision == "auto":
        native = "bf16" if has_bf16(device_named(device)) else "fp32"
        precision = said_by_user() or native
    return PRECISIONS[precision]


def precision_of_many(precision: str, device: str) -> Choice:
    """What `launch_fabric` takes for one of several processes, which must agree: nothing is tried."""
    said = os.environ.get("LT_PRECISION") if _is_fabric_run() and precision == "auto" else None
    name = said or _named_precision(precision, device)
    known = {fabric: ours for ours, fabric in PRECISIONS.items()}
    how = "as asked for" if said or precision != "auto" else "one of several processes: not measured"
    return Choice(known[name], how)


@contextmanager
def _launcher_hidden() -> Iterator[None]:
    """Without the variables from which Fabric learns that this process is one of several."""
    names = [name for name in os.environ if name.startswith(("LT_", "TORCHELASTIC_"))]
    hidden = {name: os.environ.pop(name) for name in (*names, *_RANKS) if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _is_fabric_run() -> bool:
    return os.environ.get("LT_CLI_USED") == "1"


def _of_fabric_run(precision: str, device: str, devices: int | None, nodes: int | None) -> Any:
    """The Fabric of a process that `fabric run` started: launched already, and what its own options said (in
    LT_ACCELERATOR, LT_DEVICES, ...) holds. Raises UsageError where kizu's options say something else."""
    from lightning_fabric import Fabric

    strategy, said = os.environ.get("LT_STRATEGY", "auto"), os.environ.get("LT_PRECISION")
    if strategy not in ("auto", "ddp"):
        raise UsageError(f"`fabric run --strategy {strategy}`: kizu trains with ddp; leave --strategy out.")
    if said is None:
        accelerator = os.environ.get("LT_ACCELERATOR", "auto").replace("gpu", "cuda")
        where = accelerator if device == "auto" else device
        chosen = _named_precision(precision, where)
    elif said in PRECISIONS.values():
        chosen = said if precision == "auto" else PRECISIONS[precision]
    else:
        known = " or ".join(PRECISIONS.values())
        raise UsageError(f"`fabric run --precision {said}`: it is {known}, or left out.")
    try:
        return Fabric(
            accelerator="auto" if device == "auto" else device_named(device).type,
            devices="auto" if devices is None else devices,
            num_nodes=nodes or 1,
            precision=chosen,
        )
    except ValueError as error:
        raise UsageError(f"kizu's options and those of `fabric run` disagree: {error}") from error
