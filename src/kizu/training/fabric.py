"""Lightning Fabric, set up from kizu's settings: where a run computes, in which precision, in how many
processes."""

from __future__ import annotations

from typing import Any

from kizu.engine import device_named, has_bf16
from kizu.errors import UsageError
from kizu.training.distributed import launched

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
"""kizu's name -> Fabric's. bf16 is autocast: weights and optimiser stay float32."""


def launch_fabric(precision: str, device: str, devices: int | None, nodes: int | None) -> Any:
    """A launched Fabric. None for `devices` or `nodes` is what torchrun set, or 1. Raises UsageError."""
    from lightning_fabric import Fabric

    if precision not in ("auto", *PRECISIONS):
        raise UsageError(f"precision is auto, {' or '.join(PRECISIONS)}, got {precision!r}.")
    chosen = device_named(device)
    local_processes, machines = launched()
    count, machines = devices or local_processes, nodes or machines
    if precision == "auto":
        precision = "bf16" if has_bf16(chosen) else "fp32"
    fabric = Fabric(
        accelerator=chosen.type,
        devices=[chosen.index] if chosen.index is not None and count == 1 else count,
        num_nodes=machines,
        strategy="ddp" if count * machines > 1 else "auto",
        precision=PRECISIONS[precision],  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric
