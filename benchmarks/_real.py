"""Real features for coreset.py and nearest.py: patches of photographs as PatchCore takes them.

Magnetic tile at 256 pixels and MVTec AD's screw at 320, each by two representations, levels 2 and 3. The
photographs are never committed: `--data FOLDER` (or KIZU_DATA) names the folder that holds magnetic-tile and
mvtec-screw, and without it a benchmark runs its drawn cases only and says so.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

import kizu
from kizu.detectors.patchcore import patch_features
from kizu.loader import batches
from kizu.nn.patches import to_rows
from kizu.samples import Samples

WEIGHTS = ("kizu/starter", "imagenet/efficientnet_lite0")
DATA = {"magnetic tile": ("magnetic_tile", "magnetic-tile", 256), "screw": ("mvtec", "mvtec-screw", 320)}
"""Name: (data set, folder, pixels)."""
WITHOUT = "Real features were left out: --data FOLDER (or KIZU_DATA) names the folder of the photographs."
QUERIES = 16
"""Test images whose patches are queries."""
SEED = 0
PRODUCT_ROWS = 512
"""Rows of one piece of a product: its result stays near the core."""


class RealFeatures(NamedTuple):
    """Patches (N, D) of good images, patches (Q, h w, D) of test images, and the head of a row."""

    train: torch.Tensor
    test: torch.Tensor
    about: dict[str, object]


def add_options(parser: argparse.ArgumentParser) -> None:
    """--data and --real-rows."""
    add_data(parser)
    parser.add_argument("--real-rows", type=int, default=80_000, help="patches of good images, at least")


def add_data(parser: argparse.ArgumentParser) -> None:
    """--data."""
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("KIZU_DATA"),
        help="folder that holds magnetic-tile and mvtec-screw (default: KIZU_DATA); without it no real "
        "features are measured",
    )


def real_features(data: Path | None, rows: int) -> Iterator[tuple[str, RealFeatures]]:
    """(name, features) of each data set that is there under each representation; of `rows` patches or a few
    more."""
    for label, samples in found_sets(data):
        for weights in WEIGHTS:
            yield f"{label}, {weights}", features_of(samples, weights, DATA[label][2], rows)


def found_sets(data: Path | None) -> Iterator[tuple[str, Samples]]:
    """(name, samples) of each data set that is there. Nothing, and a sentence, without `data`."""
    if data is None:
        print(WITHOUT)
        return
    for label, (name, folder, _) in DATA.items():
        if not (Path(data) / folder).is_dir():
            print(f"{label} was left out: there is no {folder} in {data}.")
            continue
        yield label, kizu.dataset(name, Path(data) / folder)


def features_of(samples: Samples, weights: str, size: int, rows: int) -> RealFeatures:
    """Patches at `size` pixels of as many good images as make `rows`, drawn with a fixed seed, and of
    QUERIES others."""
    good, test = sides(samples)
    network = kizu.detector("patchcore", weights, image_size=size).representation.inference_copy()
    queries = patches(network, test.take(spread(len(test), min(QUERIES, len(test)))), size)
    count = min(len(good), -(-rows // queries.shape[1]))
    chosen = torch.randperm(len(good), generator=torch.Generator().manual_seed(SEED))[:count].sort().values
    train = patches(network, good.take(chosen.numpy()), size).flatten(0, 1)
    about = {
        "weights": weights,
        "size": size,
        "images": count,
        "rows": len(train),
        "dimensions": train.shape[1],
    }
    return RealFeatures(train, queries, about)


def sides(samples: Samples) -> tuple[Samples, Samples]:
    """Good images to learn from, and others: the set's own sides, or every tenth image of each kind."""
    if samples.table["split"].null_count() < len(samples):
        return samples.train.normal, samples.test
    labels = torch.tensor(samples.labels)
    good, bad = ((labels == label).nonzero()[:, 0] for label in (0, 1))
    held = torch.cat([good[::10], bad[::10]]).numpy()
    learn = torch.tensor([row for row in good.tolist() if row not in set(held.tolist())]).numpy()
    return samples.take(learn), samples.take(held)


def spread(of: int, count: int) -> list[int]:
    """`count` of the numbers below `of`, evenly spread."""
    return [number * of // count for number in range(count)]


@torch.inference_mode()
def patches(network: torch.nn.Module, samples: Samples, size: int) -> torch.Tensor:
    """Patches (B, h w, D) float32 of images, as PatchCore's default takes them."""
    parts = [
        patch_features(network(batch.images), 3, None)
        for batch in batches(samples, image_size=(size, size), batch_size=16)
    ]
    grid = torch.cat(parts)
    return to_rows(grid).reshape(len(grid), -1, grid.shape[1]).contiguous()


def product(rows: torch.Tensor, picks: torch.Tensor) -> None:
    """The products of all rows (N, d) with all picks (n, d), in float32; nothing is made of them."""
    columns, out = picks.T.contiguous(), torch.empty(PRODUCT_ROWS, len(picks))
    for part in rows.split(PRODUCT_ROWS):
        torch.mm(part, columns, out=out[: len(part)])
