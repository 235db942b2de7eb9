"""Nearest neighbours of PatchCore: queries of one image and of sixteen against banks of realistic sizes.

Cases: torch.cdist, one float32 product with the norms, faiss IndexFlatL2, anomalib's PatchCore distances (all
on the same arrays), and NearestNeighbours prepared once. Two kinds of features: "steep" (spectrum i^-1, most
of the variance in few directions) and "flat" (i^-0.3: nothing to prune, the worst case). The backbone's own
forward in bfloat16 (ResNet-18, 224, random weights) is timed in turn. KIZU_ACCEL=0 times the readable search.

    python benchmarks/nearest.py [--repeats 9] [--no-peer] [--threads 1] [--quick --out FOLDER]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import timm
import torch
from _harness import Peer, interleave, parsed, write

from kizu.neighbours import NearestNeighbours

SHAPES = {
    "784 x 8000 x 384": (8000, 384, 1),
    "784 x 15680 x 384": (15680, 384, 1),
    "784 x 20000 x 1536": (20000, 1536, 1),
    "16*784 x 8000 x 384": (8000, 384, 16),
}
"""Name: (rows of the bank, features, images of 784 queries)."""
TINY = {"784 x 2100 x 32": (2100, 32, 1)}
SPECTRA = {"steep": -1.0, "flat": -0.3}


def synthetic(rows: int, size: int, images: int, power: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Bank (N, D) and queries (images * 784, D): Gaussian with spectrum i^power in a random basis."""
    make = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(size, size, generator=make)).Q
    spectrum = torch.arange(1, size + 1) ** power
    features = (torch.randn(rows + 784 * images, size, generator=make) * spectrum) @ basis
    return features[:rows].contiguous(), features[rows:].contiguous()


def by_product(queries: torch.Tensor, bank: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
    """Squared distances by one float32 product, 784 queries at a time, and their minimum."""
    parts = [torch.addmm(norms, part, bank.T, alpha=-2).min(1).values for part in queries.split(784)]
    return torch.cat(parts)


def answered_by(index: NearestNeighbours) -> str:
    """What answers near queries: the readable search, or which part of its fast twin."""
    twin = index._twin
    if twin is None:
        return "reference"
    return "tree" if twin.tree is not None else f"level {twin.products.first_level}"


def backbone() -> Callable[[], torch.Tensor]:
    """One forward of ResNet-18 to its third level at 224 pixels, bfloat16, channels last."""
    model = timm.create_model("resnet18", pretrained=False, features_only=True, out_indices=(2, 3)).eval()
    model = model.to(torch.bfloat16, memory_format=torch.channels_last)
    image = torch.rand(1, 3, 224, 224, dtype=torch.bfloat16).to(memory_format=torch.channels_last)

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return model(image)[-1]

    return forward


def measure(shape: tuple[int, int, int], power: float, repeats: int, peer: Peer | None) -> dict[str, Any]:
    """Seconds of every case on one shape, and what ours deviates from float64."""
    bank, queries = synthetic(*shape, power)
    index, flat, norms = NearestNeighbours(bank), faiss.IndexFlatL2(shape[1]), bank.square().sum(1)
    flat.add(bank.numpy())
    found: dict[str, torch.Tensor] = {}
    cases: dict[str, Callable[[], Any]] = {
        "kizu": lambda: found.update(kizu=index.query(queries)[0]),
        "torch.cdist": lambda: [torch.cdist(part, bank).min(1) for part in queries.split(784)],
        "float32 product": lambda: by_product(queries, bank, norms),
        "faiss flat": lambda: flat.search(queries.numpy(), 1),
        "backbone, 1 image": backbone(),
    }
    if peer is not None:
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder) / "bank.npy", bank.numpy())
            np.save(Path(folder) / "queries.npy", queries[:784].numpy())
            peer.ask(load=folder)
        cases["anomalib, 1 image"] = lambda: float(peer.ask(nearest=["queries", "bank", 0, 784])["seconds"])
    seconds = interleave(cases, repeats, warmup=2)
    exact = torch.cdist(queries[:784].double(), bank.double()).amin(1)
    error = float(((found["kizu"][:784, 0].double() - exact).abs() / exact).max())
    best = min(seconds[name]["median"] for name in ("torch.cdist", "float32 product", "faiss flat"))
    images = shape[2]
    return {
        "seconds": seconds,
        "answered_by": answered_by(index),
        "relative_error": error,
        "times_faster_than_best_brute_force": best / seconds["kizu"]["median"],
        "share_of_backbone_forward": seconds["kizu"]["median"]
        / images
        / seconds["backbone, 1 image"]["median"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and write nearest.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument(
        "--threads",
        type=int,
        help="threads of every case but the peer's (on a shared machine, one: no waiting for each other)",
    )
    given = parsed(parser, arguments, quick={"repeats": 2, "no_peer": True})
    if given.threads:
        torch.set_num_threads(given.threads)
        faiss.omp_set_num_threads(given.threads)
    peer = None if given.no_peer else Peer("anomalib_coreset")
    rows: dict[str, Any] = {}
    for name, shape in (TINY if given.quick else SHAPES).items():
        for kind, power in SPECTRA.items():
            rows[f"{kind}: {name}"] = row = measure(shape, power, given.repeats, peer)
            print(
                f"{kind}: {name}",
                {case: round(1e3 * spent["median"], 2) for case, spent in row["seconds"].items()},
                file=sys.stderr,
            )
    if peer is not None:
        peer.close()
    name = f"nearest_{given.threads}_threads" if given.threads else "nearest"
    print(write(name, given.results, threads=torch.get_num_threads(), rows=rows).read_text("utf-8"))


if __name__ == "__main__":
    main()
