"""The coreset of PatchCore: 10 % of 80,000 x 1536 features, random projection to 278 dimensions included.

Ours (exact), ours (approximate), merge and reduce in a quarter of the memory, a plain loop of float64
matrix-vector products for the picks themselves, and anomalib's KCenterGreedy. The peer's steps all cost the
same, so `--peer-steps S` runs S of them and multiplies (the row says so); without it the peer runs in full.

    python benchmarks/coreset.py [--rows 80000] [--repeats 3] [--peer-steps 300] [--naive-steps 8000]
    [--no-peer] [--quick --out FOLDER]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _harness import Peer, interleave, parsed, write

from kizu.neighbours import StreamingCoreset, covering_radius, greedy_coreset, random_projection

RATIO = 0.1
QUICK = {"rows": 1500, "size": 160, "repeats": 1, "no_peer": True}


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
    return parsed(parser, arguments, quick=QUICK)


def selections(features: torch.Tensor, n: int, repeats: int) -> dict[str, Any]:
    """Seconds of every selection of n rows, and the covering radius of what it kept."""

    def project() -> torch.Tensor:
        return random_projection(features, generator=torch.Generator().manual_seed(0))

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
    }
    seconds = interleave(cases, repeats)
    return {
        "seconds": seconds,
        "covering_radius": {name: covering_radius(narrow, rows) for name, rows in kept.items()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and write coreset.json."""
    given = options(arguments)
    features, n = synthetic(given.rows, given.size), int(given.rows * RATIO)
    found = selections(features, n, given.repeats)
    narrow = random_projection(features, generator=torch.Generator().manual_seed(0))
    count = given.naive_steps or n
    picks, spent = plain(narrow, count)
    same = greedy_coreset(narrow, n).numpy()[:count] == picks
    found["plain_float64_loop"] = {"seconds": spent, "steps": count, "of": n, "equal_picks": int(same.sum())}
    if not given.no_peer:
        found["anomalib"] = peer_seconds(features, given.peer_steps)
        found["times_faster_than_anomalib"] = (
            found["anomalib"]["total_seconds"] / found["seconds"]["projection + exact"]["median"]
        )
    workload = {
        "rows": given.rows,
        "size": given.size,
        "dimensions": narrow.shape[1],
        "picks": n,
        "threads": torch.get_num_threads(),
    }
    print(write("coreset", given.results, workload=workload, **found).read_text("utf-8"))


if __name__ == "__main__":
    main()
