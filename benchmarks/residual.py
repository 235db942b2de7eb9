"""What residual features and their projector cost, over the forward pass of the network in the same run.

The default network at 256 pixels, batch 16, and a network of ViT-B/14's size with four levels at 224 pixels
(random weights: times do not depend on them), with 8 reference images. Three passes in turn: the features
alone; their residuals, which adds the search for the nearest reference; residuals and a projector of 2048
references, with keys and values computed once as kizu does it, and anew in each pass. The goal is a search
of at most 10 % of the forward pass.

    python benchmarks/residual.py [--rounds 9] [--quick --out FOLDER]
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from _harness import interleave, parsed, write

import kizu
from kizu import engine
from kizu.nn.patches import to_rows
from kizu.nn.projector import Projector
from kizu.representations.base import Representation
from kizu.representations.projected import Projected
from kizu.representations.residual import Residual

CASES = (("imagenet/efficientnet_lite0@2,3", 256, 16), ("random/vit_base_patch14_dinov2@3,6,9,12", 224, 4))
QUICK = (("random/test_resnet@1,2", 64, 2),)
SHOTS, GOAL = 8, 0.1
FEATURES, SEARCH = "features", "+ search"
PROJECTOR, NOT_KEPT = "+ search, projector", "+ search, projector without kept keys"


class WithoutKeptKeys(Projector):
    """A projector whose copy for inference computes keys and values of its references in every pass."""

    def for_inference(self, dtype: torch.dtype, device: torch.device) -> Projector:
        """The same network there."""
        return copy.deepcopy(self).eval().requires_grad_(False).to(device, dtype)


def representations(base: Representation, size: int) -> dict[str, Representation]:
    """The network alone, and with what comes after it."""
    draw = torch.Generator().manual_seed(1)
    extract = base.inference_copy("fp32", "cpu")
    shots = [extract(torch.rand(1, 3, size, size, generator=draw)) for _ in range(SHOTS)]
    banks = [torch.cat([to_rows(level) for level in levels]) for levels in zip(*shots, strict=True)]
    residual = Residual(base, banks, card={"shots": SHOTS})
    with engine.seeded(0):
        kept, anew = Projector(base.channels), WithoutKeptKeys(base.channels)
    anew.load_state_dict(kept.state_dict())
    return {
        FEATURES: base,
        SEARCH: residual,
        PROJECTOR: Projected(residual, kept),
        NOT_KEPT: Projected(residual, anew),
    }


def timed(net: Representation, images: torch.Tensor, precision: str) -> Callable[[], Any]:
    """A forward pass."""
    frozen = net.inference_copy(precision, "cpu")
    return lambda: frozen(images)


def measure(weights: str, size: int, batch: int, rounds: int) -> dict[str, Any]:
    """Seconds of each pass in turn, and what is added by each over the features alone."""
    base = kizu.representation(weights)
    precision = base.choose_precision("auto", torch.device("cpu")).precision
    images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    nets = representations(base, size)
    seconds = interleave({name: timed(net, images, precision) for name, net in nets.items()}, rounds)
    spent = {name: one["median"] for name, one in seconds.items()}
    added = {
        "search": spent[SEARCH] - spent[FEATURES],
        "projector": spent[PROJECTOR] - spent[SEARCH],
        "projector without kept keys": spent[NOT_KEPT] - spent[SEARCH],
    }
    return {
        **{"weights": weights, "size": size, "batch": batch, "precision": precision, "seconds": seconds},
        "over_features": {name: value / spent[FEATURES] for name, value in added.items()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and write residual.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    given = parsed(parser, arguments, quick={"rounds": 1})
    rows = [measure(*case, given.rounds) for case in (QUICK if given.quick else CASES)]
    threads = torch.get_num_threads()
    path = write("residual", given.results, threads=threads, shots=SHOTS, goal=GOAL, rows=rows)
    print(path.read_text("utf-8"))


if __name__ == "__main__":
    main()
