"""The coreset of PatchCore: 10 % of 80,000 x 1536 drawn features, projected to 278 dimensions; and of 80,000
patches of photographs, projected to 128 as PatchCore does.

Ours (exact), ours (approximate), merge and reduce in a quarter of the memory, one float32 product of all rows
with all picks (the limit: it is what the distances alone would cost), a plain loop of float64 matrix-vector
products for the picks themselves, and anomalib's KCenterGreedy. The peer's steps all cost the same, so
`--peer-steps S` runs S of them and multiplies (the row says so); without it the peer runs in full.

    python benchmarks/coreset.py [--data FOLDER] [--real-rows 80000] [--rows 80000] [--repeats 3]
    [--peer-steps 300] [--naive-steps 8000] [--no-peer] [--quick --out FOLDER]

FOLDER (or KIZU_DATA) holds magnetic-tile and mvtec-screw; without it the drawn features alone are measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from _harness import Peer, interleave, parsed, write
from _real import RealFeatures, add_options, product, real_features

from kizu.neighbours import StreamingCoreset, covering_radius, greedy_coreset, random_projection

Auto: TypeAlias = Literal["auto"]
RATIO = 0.1
PROJECTION = 128
"""Dimensions of PatchCore's default projection."""
REAL_STEPS = 300
"""Picks of photographs' patches that are compared with the plain loop, unless said otherwise."""
QUICK = {"rows": 1500, "size": 160, "repeats": 1, "no_peer": True, "real_rows": 1}


def synthetic(rows: int, size: int, seed: int = 0) -> torch.Tensor:
    """Features (N, D) float32: 200 clusters, spectrum i^-0.5 in a random basis, as neighbouring patches of
    one product have."""
    make = torch.Generator().manual_seed(seed)
    spectrum = torch.arange(1, size + 1) ** -0.5
    basis = torch.linalg.qr(torch.randn(size, size, generator=make)).Q
    centres = torch.randn(200, size, generator=make)
    which = torch.randint(0, 200, (rows,), generator=make)
    return ((centres[which] + 0.7 * torch.randn(rows, size, generator=make)) * spectrum) @ basis


def plain(features: torch.Tensor, n: int) -> tuple[np.ndarray, float]:
    """Picks of the plain loop in float64 (|a|^2 + |b|^2 - 2ab, a matrix-vector product a step), and its
    seconds."""
    begin = time.perf_counter()
    rows = features.double()
    norms = rows.square().sum(1)
    nearest = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    picks = [0]
    while len(picks) < n:
        last = picks[-1]
        torch.minimum(nearest, norms + norms[last] - 2 * torch.mv(rows, rows[last]), out=nearest)
        nearest[last] = -1.0
        picks.append(int(nearest.argmax()))
    return np.array(picks), time.perf_counter() - begin


def equal_picks(rows: torch.Tensor, n: int, steps: int) -> dict[str, Any]:
    """How many of the first picks are those of the plain loop, which is timed."""
    picks, spent = plain(rows, steps)
    same = greedy_coreset(rows, n).numpy()[:steps] == picks
    return {"seconds": spent, "steps": steps, "of": n, "equal_picks": int(same.sum())}


def peer_seconds(features: torch.Tensor, steps: int | None) -> dict[str, Any]:
    """anomalib's seconds for the whole selection; `extrapolated` says whether it ran all its steps."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "embedding.npy", features.numpy())
        peer = Peer("anomalib_coreset")
        about = peer.ask(load=folder)
        answer = peer.ask(select=RATIO, steps=steps)
        peer.close()
    each = (answer["seconds"] - answer["projection_seconds"]) / answer["steps"]
    total = answer["projection_seconds"] + each * answer["of"]
    done = answer["steps"] == answer["of"]
    return {
        **about,
        **answer,
        "total_seconds": answer["seconds"] if done else total,
        "extrapolated": not done,
    }


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=80_000)
    parser.add_argument("--size", type=int, default=1536, help="features of a row")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-steps", type=int, help="run only so many steps of the peer and multiply")
    parser.add_argument("--naive-steps", type=int, help="compare only so many picks with the plain loop")
    parser.add_argument("--no-peer", action="store_true")
    add_options(parser)
    return parsed(parser, arguments, quick=QUICK)


def selections(features: torch.Tensor, n: int, repeats: int, dimensions: int | Auto) -> dict[str, Any]:
    """Seconds of every selection of n rows, over one product, and the covering radius of what it kept."""

    def project() -> torch.Tensor:
        return random_projection(features, dimensions, generator=torch.Generator().manual_seed(0))

    narrow = project()
    row = 2 * narrow.shape[1] * 4 + 48
    kept: dict[str, torch.Tensor] = {}

    def stream() -> None:
        coreset = StreamingCoreset(n, budget=row * len(features) // 4)
        for part in narrow.split(784):
            coreset.update(part)
        kept["merge and reduce"] = coreset.finish()

    def approximate() -> None:
        picks = greedy_coreset(narrow, n, method="approximate", generator=torch.Generator().manual_seed(0))
        kept["approximate"] = narrow[picks]

    cases = {
        "projection + exact": lambda: greedy_coreset(project(), n),
        "exact": lambda: kept.update(exact=narrow[greedy_coreset(narrow, n)]),
        "approximate": approximate,
        "merge and reduce": stream,
        "one product": lambda: product(narrow, narrow[:n]),
    }
    seconds = interleave(cases, repeats)
    limit = seconds["one product"]["median"]
    return {
        "dimensions": narrow.shape[1],
        "seconds": seconds,
        "over_one_product": {name: spent["median"] / limit for name, spent in seconds.items()},
        "covering_radius": {name: covering_radius(narrow, rows) for name, rows in kept.items()},
    }


def measure(
    features: torch.Tensor, dimensions: int | Auto, naive_steps: int | None, given: argparse.Namespace
) -> dict[str, Any]:
    """Every selection of a tenth of features (N, D), the plain loop, and the peer."""
    n = int(len(features) * RATIO)
    found = selections(features, n, given.repeats, dimensions)
    narrow = random_projection(features, dimensions, generator=torch.Generator().manual_seed(0))
    found["plain_float64_loop"] = equal_picks(narrow, n, min(n, naive_steps or n))
    if not given.no_peer:
        found["anomalib"] = peer_seconds(features, given.peer_steps)
        own = found["seconds"]["projection + exact"]["median"]
        found["times_faster_than_anomalib"] = found["anomalib"]["total_seconds"] / own
    return {"picks": n, **found}


def measure_real(name: str, features: RealFeatures, given: argparse.Namespace) -> dict[str, Any]:
    """`measure` of photographs' patches, in PatchCore's projection."""
    print(f"{name}: {features.about}", file=sys.stderr)
    found = measure(features.train, PROJECTION, given.naive_steps or REAL_STEPS, given)
    return {**features.about, **found}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and write coreset.json."""
    given = options(arguments)
    found = measure(synthetic(given.rows, given.size), "auto", given.naive_steps, given)
    real = {
        name: measure_real(name, each, given) for name, each in real_features(given.data, given.real_rows)
    }
    workload = {"rows": given.rows, "size": given.size, "threads": torch.get_num_threads()}
    workload |= {name: found.pop(name) for name in ("dimensions", "picks")}
    print(write("coreset", given.results, workload=workload, **found, real=real).read_text("utf-8"))


if __name__ == "__main__":
    main()
