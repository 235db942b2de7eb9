"""Throughput of pretraining: kizu's SimSiam beside lightly's own example, and what SPD costs.

Same backbone, heads, batch, size and images (JPEG files), in turn in one run. lightly's side is the plain
loop of its example: its transform in loader processes, its heads and loss, SGD, float32. Ours once in float32
and once as it comes (bf16 where the machine has it).

    python benchmarks/pretraining.py [--rounds 3] [--steps 8] [--backbone resnet18] [--size 64]
    [--batch-size 64] [--quick --out FOLDER]
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import _harness
import torch
from PIL import Image

from kizu.pretraining.data import Images
from kizu.pretraining.simsiam import SimSiam
from kizu.synthetic.scenes import SceneGenerator
from kizu.training import train


def draw(folder: Path, count: int, side: int) -> None:
    """`count` JPEG files."""
    source = SceneGenerator(size=side)
    for number in range(count):
        Image.fromarray(source.image(number)[0]).save(folder / f"{number:04d}.jpg", quality=90)


def lightly_example(folder: Path, given: argparse.Namespace) -> Callable[[], Any]:
    """lightly's example: `steps` steps of SimSiam."""
    import timm
    from lightly.data import LightlyDataset
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead
    from lightly.transforms import SimSiamTransform

    net: Any = timm.create_model(given.backbone, pretrained=False, num_classes=0)
    projector, predictor = (
        SimSiamProjectionHead(net.num_features, 2048, 2048),
        SimSiamPredictionHead(2048, 512, 2048),
    )
    modules = torch.nn.ModuleList([net, projector, predictor])
    loader = torch.utils.data.DataLoader(
        LightlyDataset(str(folder), transform=SimSiamTransform(input_size=given.size)),
        batch_size=given.batch_size, shuffle=True, drop_last=True, num_workers=given.workers,
        persistent_workers=given.workers > 0,
    )  # fmt: skip
    optimiser = torch.optim.SGD(
        modules.parameters(), lr=0.05 * given.batch_size / 256, momentum=0.9, weight_decay=1e-4
    )
    criterion = NegativeCosineSimilarity()
    endless = itertools.chain.from_iterable(iter(lambda: loader, None))

    def run() -> None:
        for batch in itertools.islice(endless, given.steps):
            first, second = batch[0]
            z1, z2 = projector(net(first)), projector(net(second))
            p1, p2 = predictor(z1), predictor(z2)
            loss = 0.5 * (criterion(p1, z2.detach()) + criterion(p2, z1.detach()))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    return run


def ours(folder: Path, given: argparse.Namespace, precision: str, spd: bool) -> Callable[[], Any]:
    """The same steps by kizu."""
    objective = SimSiam(backbone=given.backbone, size=given.size, batch_size=given.batch_size, spd=spd)
    images = Images([folder], side=given.size)
    return lambda: train(
        objective, images, steps=given.steps, batch_size=given.batch_size, precision=precision, show=False
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and write pretraining.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="lightly's loader processes")
    quick = {"rounds": 1, "steps": 1, "backbone": "resnet10t", "size": 32, "batch_size": 4, "workers": 0}
    given = _harness.parsed(parser, arguments, quick=quick)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder, 4 * given.batch_size, given.size)
        cases = {
            "lightly, fp32": lightly_example(folder, given),
            "kizu, fp32": ours(folder, given, "fp32", False),
            "kizu": ours(folder, given, "auto", False),
            "kizu + SPD": ours(folder, given, "auto", True),
        }
        seconds = _harness.interleave(cases, given.rounds, warmup=1)
    images = given.steps * given.batch_size
    rates = {name: images / value["median"] for name, value in seconds.items()}
    ratios = {
        "kizu fp32 / lightly": rates["kizu, fp32"] / rates["lightly, fp32"],
        "kizu / lightly": rates["kizu"] / rates["lightly, fp32"],
        "cost of SPD": rates["kizu"] / rates["kizu + SPD"],
    }
    print({key: round(value, 2) for key, value in {**rates, **ratios}.items()})
    workload = {key: getattr(given, key) for key in ("backbone", "size", "batch_size", "steps")}
    found = {"seconds": seconds, "images_per_second": rates, "ratios": ratios}
    print(_harness.write("pretraining", given.results, workload=workload, **found))


if __name__ == "__main__":
    main()
