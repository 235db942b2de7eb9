"""End-to-end PatchCore (and PaDiM) beside the backbone's own bf16 forward pass: latency at batch 1,
throughput at batch 16.

The limit is timm's network as it comes, cut at the same level, in bf16 and channels_last where the machine
has bf16 (else fp32), on input that is already normalised. Ours is `detector.predict` on images in [0, 1]:
normalising, forward, patches, search, map and score; its features alone stand beside, and PatchCore's search
by products with the whole bank instead of the tree. The bank holds patches of planted pictures of one
product, the queries are its test pictures, good and flawed.

    python benchmarks/latency.py [--rounds 15] [--quick]
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _harness
import timm
import torch

import kizu
from kizu.engine import has_bf16
from kizu.loader import batches

CASES = [
    {
        "detector": "patchcore",
        "network": "resnet18",
        "levels": (2, 3),
        "size": 224,
        "train": 200,
        "coreset": 0.1,
    },
    {
        "detector": "patchcore",
        "network": "resnet18",
        "weights": "kizu/starter",
        "levels": (2, 3),
        "size": 224,
        "train": 200,
        "coreset": 0.1,
    },
    {
        "detector": "padim",
        "network": "resnet18",
        "levels": (1, 2, 3),
        "size": 224,
        "train": 100,
        "coreset": None,
    },
    {
        "detector": "patchcore",
        "network": "wide_resnet50_2",
        "levels": (2, 3),
        "size": 256,
        "train": 100,
        "coreset": 0.1,
    },
]


def limit(network: str, levels: tuple[int, ...], images: torch.Tensor) -> Callable[[], Any]:
    """timm's forward pass on prepared input."""
    dtype = torch.bfloat16 if has_bf16(torch.device("cpu")) else torch.float32
    net = timm.create_model(network, pretrained=False, features_only=True, out_indices=levels).eval()
    net = net.to(dtype).to(memory_format=torch.channels_last)
    ready = images.to(dtype).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward() -> None:
        net(ready)

    return forward


def turns(detector: Any, test: torch.Tensor, count: int) -> Callable[[], Any]:
    """Predict `count` images, others at each call."""
    turn = itertools.count()

    def predict() -> None:
        at = next(turn) % (len(test) - count + 1)
        detector.predict(test[at : at + count])

    return predict


def by_products(detector: Any, predict: Callable[[], Any]) -> Callable[[], Any]:
    """The same with the tree set aside."""

    def without() -> None:
        tree, detector._index._tree = detector._index._tree, None
        predict()
        detector._index._tree = tree

    return without


def measure(case: dict[str, Any], rounds: int, folder: Path) -> dict[str, Any]:
    """Interleaved medians of one case at batch 1 and 16."""
    size, weights = case["size"], case.get("weights", f"random/{case['network']}")
    name = f"{weights}@{','.join(map(str, case['levels']))}"
    samples = kizu.dataset(
        "planted",
        folder / f"{size}_{case['train']}",
        products="metal",
        train=case["train"],
        test_good=10,
        test_defective=12,
        size=size,
    )
    parameters = {"image_size": size, **({"coreset": case["coreset"]} if case["coreset"] else {})}
    detector = kizu.detector(case["detector"], name, **parameters).fit(samples.train)
    test = torch.cat(
        [batch.images for batch in batches(samples.test, image_size=(size, size), batch_size=16)]
    )
    row: dict[str, Any] = {
        **case,
        "weights": weights,
        "bank": list(detector.bank_.shape) if hasattr(detector, "bank_") else None,
    }
    for count in (1, 16):
        pictures = test[:count].contiguous(memory_format=torch.channels_last)
        frozen = detector.representation.inference_copy()
        cases = {
            "backbone": limit(case["network"], case["levels"], pictures),
            "features": lambda frozen=frozen, given=test[:count]: frozen(given),
            "predict": turns(detector, test, count),
        }
        seconds = _harness.interleave(cases, rounds, warmup=3)
        row[f"batch_{count}"] = {
            **seconds,
            "ratio": seconds["predict"]["median"] / seconds["backbone"]["median"],
        }
        if row["bank"]:  # apart, for it empties the caches of the others
            tree, products = turns(detector, test, count), by_products(detector, turns(detector, test, count))
            row[f"batch_{count}"]["search"] = _harness.interleave(
                {"tree": tree, "products": products}, rounds, warmup=3
            )
        print(
            f"{case['detector']} {name} {size} px batch {count}: backbone "
            f"{seconds['backbone']['median'] * 1e3:.1f} ms, our features "
            f"{seconds['features']['median'] * 1e3:.1f} ms, end to end "
            f"{seconds['predict']['median'] * 1e3:.1f} ms, ratio {row[f'batch_{count}']['ratio']:.2f}"
        )
    return row


def main() -> None:
    """Run and write benchmarks/results/latency.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--quick", action="store_true", help="the first case only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            measure(case, options.rounds, Path(folder)) for case in (CASES[:1] if options.quick else CASES)
        ]
    print(_harness.write("latency", threads=torch.get_num_threads(), rows=rows))


if __name__ == "__main__":
    main()
