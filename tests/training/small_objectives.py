"""Small objectives, with and without batch norm; run by torchrun with a folder to write to, what several
processes make of them."""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from kizu import registry
from kizu.errors import NotFinite
from kizu.training import Objective, Position, cosine_schedule, gather, leave, rank_and_world, train
from kizu.training.distributed import total
from kizu.training.sync_batch_norm import synchronise_batch_norms

BATCH, STEPS = 8, 6
ENCODERS = [
    name
    for name in registry.names("pretraining")
    if registry.load("pretraining", name).writes == "representation"
]
"""Objectives that train an encoder."""


class Line(Objective):
    """Least squares on noisy points, with momentum; `at` of a step and a process does what it likes."""

    def __init__(self, at: Any = None) -> None:
        super().__init__()
        self.line = nn.Linear(4, 1)
        self.at = at
        with torch.no_grad():
            self.line.weight.copy_(torch.arange(4.0))
            self.line.bias.zero_()

    def prepare(self, batch: tuple[Tensor, Tensor], position: Position) -> tuple[Tensor, Tensor]:
        x, y = batch
        noise = torch.stack([torch.rand(4, generator=generator) for generator in position.generators(3)])
        return x + 0.1 * noise, (y if self.at is None else self.at(position.step, rank_and_world()[0], y))

    def loss(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        x, y = batch
        apart = self.line(x)[:, 0] - y
        return {"loss": (apart**2).mean(), "distance": apart.detach().abs().mean()}

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9)

    def lr_scale(self, step: int, steps: int) -> float:
        return cosine_schedule(step, steps, warmup=2)


def points(position: Position) -> tuple[Tensor, Tensor]:
    """Points of a plane."""
    x = torch.stack([torch.randn(4, generator=generator) for generator in position.generators(1)])
    return x, x @ torch.tensor([1.0, -2.0, 0.5, 3.0]) + 1


def noise(position: Position) -> tuple[Tensor, Tensor]:
    """Images of noise (B, 40, 40, 3) with labels 0, 1, 2."""
    images = [
        torch.randint(256, (40, 40, 3), generator=generator, dtype=torch.uint8)
        for generator in position.generators(2)
    ]
    return torch.stack(images), torch.arange(position.first, position.first + position.count) % 3


def with_batch_norm(name: str) -> Any:
    """A small pretraining objective with SPD."""
    settings: dict[str, Any] = {
        "hidden": 8,
        "predictor_hidden": 4,
        "dimensions": 8,
        "queue": 16,
        "classes": 3,
        "learning_rate": 2.0,
    }
    cls = registry.load("pretraining", name)
    known = {key for key in settings if key in cls.__init__.__kwdefaults__}
    return cls(
        backbone="resnet10t",
        stages=1,
        size=32,
        batch_size=BATCH,
        spd=True,
        **{key: settings[key] for key in known},
    )


def without_batch_norm(name: str) -> Any:
    """The same with networks of a single layer."""
    objective = with_batch_norm(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        objective.encoder = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, objective.width)
        )
        for head in ("projector", "predictor"):
            if hasattr(objective, head):
                setattr(objective, head, nn.Linear(objective.width if head == "projector" else 8, 8))
    for moving in ("key_", "target_"):
        if hasattr(objective, f"{moving}encoder"):
            setattr(objective, f"{moving}encoder", copy.deepcopy(objective.encoder).requires_grad_(False))
            setattr(objective, f"{moving}projector", copy.deepcopy(objective.projector).requires_grad_(False))
    return objective


def curves() -> dict[str, Any]:
    """Loss curves of all cases, and the queue that MoCo ends with."""
    results: dict[str, Any] = {}
    settings: dict[str, Any] = {
        "steps": STEPS,
        "batch_size": BATCH,
        "precision": "fp32",
        "device": "cpu",
        "log_every": 1,
        "show": False,
    }
    for accumulate in (1, 2):
        rows = train(Line(), points, accumulate=accumulate, clip=3.0, **settings)
        results[f"line {accumulate}"] = [row["loss"] for row in rows]
    for name in ENCODERS:
        objective = without_batch_norm(name)
        results[name] = [row["loss"] for row in train(objective, noise, **settings)]
        if name == "moco":
            results["queue"] = objective.queue_keys.flatten().tolist()
        rows = train(with_batch_norm(name), noise, sync_batch_norm=True, **settings)
        results[f"{name} with batch norm"] = [row["loss"] for row in rows]
    rows = train(with_batch_norm("simsiam"), noise, sync_batch_norm=False, **settings)
    results["own statistics"] = [row["loss"] for row in rows]
    return results


def norms() -> dict[str, list[float]]:
    """What norms of all kinds make of a batch that the processes share: outputs, gradients, running
    statistics."""
    rank, world = rank_and_world()
    results = {}
    for name, norm, shape in (
        ("1d", nn.BatchNorm1d(3), (8, 3)),
        ("2d", nn.BatchNorm2d(3), (8, 3, 2, 2)),
        ("3d", nn.BatchNorm3d(3), (8, 3, 2, 2, 2)),
        ("average", nn.BatchNorm2d(3, momentum=None), (8, 3, 2, 2)),
        ("plain", nn.BatchNorm2d(3, affine=False, track_running_stats=False), (8, 3, 2, 2)),
        ("activation", BatchNormAct2d(3), (8, 3, 2, 2)),
    ):
        shared = synchronise_batch_norms(nn.Sequential(norm), torch.device("cpu"))
        draws = torch.Generator().manual_seed(7)
        values, weights = (torch.randn(shape, generator=draws) for _ in range(2))
        part = (3.0 * values + 1.0).chunk(world)[rank].requires_grad_()
        out = shared(part)
        (out * weights.chunk(world)[rank]).sum().backward()
        own = [] if norm.weight is None else [total(norm.weight.grad), total(norm.bias.grad)]
        found = [gather(out.detach()), gather(part.grad), *own, *shared.buffers()]
        results[name] = torch.cat([tensor.flatten().float() for tensor in found]).tolist()
    return results


def stopped(folder: Path) -> str:
    """SIGTERM to the second process alone: all stop."""

    def at(step: int, rank: int, y: Tensor) -> Tensor:
        if (step, rank) == (2, 1):
            os.kill(os.getpid(), signal.SIGTERM)
        return y

    try:
        train(
            Line(at),
            points,
            steps=STEPS,
            batch_size=BATCH,
            precision="fp32",
            device="cpu",
            folder=folder,
            show=False,
        )
    except SystemExit as stop:
        return f"exit {stop.code}"
    return "went on"


def not_finite(folder: Path) -> str:
    """NaN in the second process alone: all stop."""

    def at(step: int, rank: int, y: Tensor) -> Tensor:
        return y * float("nan") if (step, rank) == (2, 1) else y

    try:
        train(
            Line(at),
            points,
            steps=STEPS,
            batch_size=BATCH,
            precision="fp32",
            device="cpu",
            folder=folder,
            show=False,
        )
    except NotFinite as error:
        return str(error)
    return "went on"


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    report = {
        **curves(),
        "norms": norms(),
        "stopped": stopped(out / "stopped"),
        "not finite": not_finite(out / "nan"),
    }
    (out / f"{rank_and_world()[0]}.json").write_text(json.dumps(report))
    leave()
