"""What a first user waits for: the fit of 100 images of 256 pixels with PatchCore's defaults, and its parts.

Parts, in turn in one run: the whole fit from files to a model that scores; decoding and features alone; the
coreset alone; and one float32 product of its rows with its picks, the limit. Wanted: 10 s on a quiet machine,
25 s beside a busy core. The images are drawn; with `--data` also good photographs of magnetic tile and screw.

    python benchmarks/fit_time.py [--data FOLDER] [--images 100] [--repeats 3] [--quick --out FOLDER]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from _harness import interleave, parsed, write
from _real import add_data, found_sets, patches, product, sides

import kizu
from kizu.neighbours import greedy_coreset, random_projection
from kizu.samples import Samples


def sets(given: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Samples]]:
    """(name, good images): drawn ones, then photographs."""
    options = {"train": given.images, "test_good": 1, "test_defective": 1, "size": given.size}
    yield "drawn metal", kizu.dataset("planted", folder / "drawn", products="metal", **options).train
    for label, samples in found_sets(given.data):
        yield label, sides(samples)[0]


def measure(samples: Samples, given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the fit and of its parts."""
    good = samples.take(range(min(given.images, len(samples))))
    fitted = kizu.detector("patchcore", image_size=given.size).fit(good)
    network, size = fitted.representation.inference_copy(), given.size
    rows = patches(network, good, size).flatten(0, 1)
    if fitted.projection < rows.shape[1]:
        generator = torch.Generator().manual_seed(fitted.seed)
        rows = random_projection(rows, fitted.projection, generator=generator)
    n = len(fitted.bank_)
    cases = {
        "fit": lambda: kizu.detector("patchcore", image_size=size).fit(good),
        "features": lambda: patches(network, good, size),
        "coreset": lambda: greedy_coreset(rows, n),
        "one product": lambda: product(rows, rows[:n]),
    }
    about = {"images": len(good), "size": size, "patches": len(rows), "bank": list(fitted.bank_.shape)}
    return {**about, "seconds": interleave(cases, given.repeats, warmup=0)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and write fit_time.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    add_data(parser)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--size", type=int, default=256, help="side in pixels")
    parser.add_argument("--repeats", type=int, default=3)
    given = parsed(parser, arguments, quick={"images": 3, "size": 64, "repeats": 1})
    with tempfile.TemporaryDirectory() as folder:
        rows = {name: measure(samples, given) for name, samples in sets(given, Path(folder))}
    threads = torch.get_num_threads()
    print(write("fit_time", given.results, threads=threads, rows=rows).read_text("utf-8"))


if __name__ == "__main__":
    main()
