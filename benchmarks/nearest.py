"""Nearest neighbours of PatchCore: queries of one image and of sixteen against banks of realistic sizes.

Cases: torch.cdist, one float32 product with the norms, faiss IndexFlatL2, anomalib's PatchCore distances (all
on the same arrays), and NearestNeighbours prepared once. Two kinds of features: "steep" (spectrum i^-1, most
of the variance in few directions) and "flat" (i^-0.3: nothing to prune, the worst case). With `--data`,
also patches of photographs: the bank is PatchCore's coreset of a tenth, the queries are test images. One
product of the same shape, of which nothing is made, is the limit of brute force. The backbone's own forward
in bfloat16 (ResNet-18, 224, random weights) is timed in turn. KIZU_ACCEL=0 times the readable search.

    python benchmarks/nearest.py [--data FOLDER] [--real-rows 80000] [--repeats 9] [--no-peer] [--threads 1]
    [--quick --out FOLDER]

FOLDER (or KIZU_DATA) holds magnetic-tile and mvtec-screw; without it the drawn features alone are measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import timm
import torch
from _harness import Peer, interleave, parsed, write
from _real import DATA, RealFeatures, add_options, real_features

from kizu.neighbours import NearestNeighbours, greedy_coreset, random_projection

SHAPES = {
    "784 x 8000 x 384": (8000, 384, 1),
    "784 x 15680 x 384": (15680, 384, 1),
    "784 x 20000 x 1536": (20000, 1536, 1),
    "16*784 x 8000 x 384": (8000, 384, 16),
}
"""Name: (rows of the bank, features, images of 784 queries)."""
TINY = {"784 x 2100 x 32": (2100, 32, 1)}
SPECTRA = {"steep": -1.0, "flat": -0.3}
BRUTE = ("torch.cdist", "float32 product", "faiss flat")


def synthetic(rows: int, size: int, images: int, power: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Bank (N, D) and queries (images * 784, D): Gaussian with spectrum i^power in a random basis."""
    make = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(size, size, generator=make)).Q
    spectrum = torch.arange(1, size + 1) ** power
    features = (torch.randn(rows + 784 * images, size, generator=make) * spectrum) @ basis
    return features[:rows].contiguous(), features[rows:].contiguous()


def banks(given: argparse.Namespace) -> Iterator[tuple[str, torch.Tensor, torch.Tensor, int]]:
    """(name, bank (N, D), queries (Q, D), queries of an image): drawn ones, then those of photographs."""
    for name, shape in (TINY if given.quick else SHAPES).items():
        for kind, power in SPECTRA.items():
            yield f"{kind}: {name}", *synthetic(*shape, power), 784
    for name, features in real_features(given.data, given.real_rows):
        yield from real_banks(name, features)


def real_banks(name: str, features: RealFeatures) -> Iterator[tuple[str, torch.Tensor, torch.Tensor, int]]:
    """The coreset that PatchCore would keep, and the patches of one test image and of all of them."""
    narrow = random_projection(features.train, 128, generator=torch.Generator().manual_seed(0))
    bank = features.train[greedy_coreset(narrow, len(narrow) // 10)].contiguous()
    images, count, size = features.test.shape
    shape = f"{count} x {len(bank)} x {size}"
    yield f"{name}: {shape}", bank, features.test[0], count
    yield f"{name}: {images}*{shape}", bank, features.test.flatten(0, 1), count


def by_product(queries: torch.Tensor, bank: torch.Tensor, norms: torch.Tensor, image: int) -> torch.Tensor:
    """Squared distances by one float32 product, `image` queries at a time, and their minimum."""
    parts = [torch.addmm(norms, part, bank.T, alpha=-2).min(1).values for part in queries.split(image)]
    return torch.cat(parts)


def product(queries: torch.Tensor, bank: torch.Tensor, image: int) -> None:
    """The products of all queries with the bank, `image` queries at a time; nothing is made of them."""
    out = torch.empty(image, len(bank))
    for part in queries.split(image):
        torch.mm(part, bank.T, out=out)


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


def measure(
    bank: torch.Tensor, queries: torch.Tensor, image: int, repeats: int, peer: Peer | None
) -> dict[str, Any]:
    """Seconds of every case on one bank, and what ours deviates from float64; `image`: queries of one."""
    index, flat, norms = NearestNeighbours(bank), faiss.IndexFlatL2(bank.shape[1]), bank.square().sum(1)
    flat.add(bank.numpy())
    found: dict[str, torch.Tensor] = {}
    cases: dict[str, Callable[[], Any]] = {
        "kizu": lambda: found.update(kizu=index.query(queries)[0]),
        "one product": lambda: product(queries, bank, image),
        "torch.cdist": lambda: [torch.cdist(part, bank).min(1) for part in queries.split(image)],
        "float32 product": lambda: by_product(queries, bank, norms, image),
        "faiss flat": lambda: flat.search(queries.numpy(), 1),
        "backbone, 1 image": backbone(),
    }
    if peer is not None:
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder) / "bank.npy", bank.numpy())
            np.save(Path(folder) / "queries.npy", queries[:image].numpy())
            peer.ask(load=folder)
        cases["anomalib, 1 image"] = lambda: float(peer.ask(nearest=["queries", "bank", 0, image])["seconds"])
    seconds = interleave(cases, repeats, warmup=2)
    exact = torch.cdist(queries[:image].double(), bank.double()).amin(1)
    error = float(((found["kizu"][:image, 0].double() - exact).abs() / exact).max())
    best = min(seconds[name]["median"] for name in BRUTE)
    images = len(queries) // image
    return {
        "seconds": seconds,
        "answered_by": answered_by(index),
        "relative_error": error,
        "times_faster_than_best_brute_force": best / seconds["kizu"]["median"],
        "over_one_product": seconds["kizu"]["median"] / seconds["one product"]["median"],
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
    add_options(parser)
    given = parsed(parser, arguments, quick={"repeats": 2, "no_peer": True, "real_rows": 1})
    if given.threads:
        torch.set_num_threads(given.threads)
        faiss.omp_set_num_threads(given.threads)
    peer = None if given.no_peer else Peer("anomalib_coreset")
    rows: dict[str, Any] = {}
    for name, bank, queries, image in banks(given):
        rows[name] = row = measure(bank, queries, image, given.repeats, peer)
        spent = {case: round(1e3 * seconds["median"], 2) for case, seconds in row["seconds"].items()}
        print(name, spent, file=sys.stderr)
    if peer is not None:
        peer.close()
    real = any(name.startswith(tuple(DATA)) for name in rows)
    name = f"nearest_{given.threads}_threads" if given.threads else "nearest"
    print(
        write(name, given.results, threads=torch.get_num_threads(), rows=rows, photographs=real).read_text(
            "utf-8"
        )
    )


if __name__ == "__main__":
    main()
