"""End-to-end PatchCore (and PaDiM) beside the backbone's own bf16 forward pass: latency at batch 1,
throughput at batch 16.

The limit is timm's network as it comes, cut at the same level, in bf16 and channels_last where the machine
has bf16 (else fp32), on input that is already normalised. Ours is `detector.predict` on images in [0, 1]:
normalising, forward, patches, search, map and score; its features alone stand beside, and PatchCore's search
by products with the whole bank instead of the tree. The bank holds patches of planted images of one
product, the queries are its test images, good and flawed.

    python benchmarks/latency.py [--rounds 31] [--cases 1] [--quick --out FOLDER]
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import _harness
import torch

import kizu
from kizu.engine import has_bf16
from kizu.loader import batches
from kizu.representations.networks import build_network

CASES = [
    {
        "detector": "patchcore",
        "network": "tf_efficientnet_lite0",
        "weights": "imagenet/efficientnet_lite0",
        "levels": (2, 3),
        "size": 256,
        "train": 100,
        "coreset": 0.1,
    },
    {
        "detector": "padim",
        "network": "tf_efficientnet_lite0",
        "weights": "imagenet/efficientnet_lite0",
        "levels": (1, 2, 3),
        "size": 256,
        "train": 100,
        "coreset": None,
    },
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


TINY = {
    "detector": "patchcore",
    "network": "resnet10t",
    "levels": (2, 3),
    "size": 64,
    "train": 36,
    "coreset": 1.0,
}
"""The case of --quick: a bank of 2,304 patches, just enough for a tree."""


def limit(network: str, levels: tuple[int, ...], images: torch.Tensor) -> Callable[[], Any]:
    """timm's forward pass on prepared input."""
    dtype = torch.bfloat16 if has_bf16(torch.device("cpu")) else torch.float32
    net = build_network(network, levels)[0].eval()  # timm's own would run all stages of EfficientNets
    return _harness.network_pass(net, images, dtype)


def turns(detector: Any, test: torch.Tensor, count: int) -> Callable[[], Any]:
    """Predict `count` images, others at each call."""
    turn = itertools.count()

    def predict() -> None:
        at = next(turn) % (len(test) - count + 1)
        detector.predict(test[at : at + count])

    return predict


def by_products(detector: Any, predict: Callable[[], Any]) -> Callable[[], Any] | None:
    """The same with the tree set aside; None where there is none (a small bank, or KIZU_ACCEL=0)."""
    twin = detector._scorer._index._twin
    if twin is None or twin.tree is None:
        return None

    def without() -> None:
        tree, twin.tree = twin.tree, None
        try:
            predict()
        finally:
            twin.tree = tree

    return without


def prepared(case: dict[str, Any], folder: Path) -> tuple[Any, torch.Tensor, dict[str, Any]]:
    """The fitted detector of a case, its test images, and the head of its row."""
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
    bank = list(detector.bank_.shape) if hasattr(detector, "bank_") else None
    return detector, test, {**case, "weights": weights, "bank": bank}


def measure(case: dict[str, Any], rounds: int, folder: Path) -> dict[str, Any]:
    """Interleaved medians of one case at batch 1 and 16."""
    detector, test, row = prepared(case, folder)
    for count in (1, 16):
        images = test[:count].contiguous(memory_format=torch.channels_last)
        frozen = detector.representation.inference_copy()
        cases = {
            "backbone": limit(case["network"], case["levels"], images),
            "features": lambda frozen=frozen, given=test[:count]: frozen(given),
            "predict": turns(detector, test, count),
        }
        seconds = _harness.interleave(cases, rounds, warmup=3)
        ratio = seconds["predict"]["median"] / seconds["backbone"]["median"]
        row[f"batch_{count}"] = {**seconds, "ratio": ratio}
        products = by_products(detector, turns(detector, test, count)) if row["bank"] else None
        if products is not None:  # apart, for it empties the caches of the others
            searches = {"tree": turns(detector, test, count), "products": products}
            row[f"batch_{count}"]["search"] = _harness.interleave(searches, rounds, warmup=3)
        print(
            f"{case['detector']} {row['weights']} {case['size']} px batch {count}: backbone "
            f"{seconds['backbone']['median'] * 1e3:.1f} ms, our features "
            f"{seconds['features']['median'] * 1e3:.1f} ms, end to end "
            f"{seconds['predict']['median'] * 1e3:.1f} ms, ratio {ratio:.2f}"
        )
    return row


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and write latency.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--cases", type=int, default=len(CASES), help="only so many, the first ones")
    given = _harness.parsed(parser, arguments, quick={"rounds": 2})
    cases = [TINY] if given.quick else CASES[: given.cases]
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(case, given.rounds, Path(folder)) for case in cases]
    print(_harness.write("latency", given.results, threads=torch.get_num_threads(), rows=rows))


if __name__ == "__main__":
    main()
