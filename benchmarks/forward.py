"""The forward pass of the default representation beside other engines: what kizu's features cost, over each.

EfficientNet-Lite0 cut after its third level, at 224 and 256 pixels, batch 1 and 16, with the same weights:
kizu's own features (images in [0, 1], normalising included), timm's network in float32 and bfloat16 with
channels last, and by the peers onnxruntime (float32) and OpenVINO (in its own choice of precision, bfloat16
where the processor has it, and in float32), on input that is already normalised. Each case rests before it
begins, for the threads of the case before may still wait for work. What a peer's environment lacks is left
out and said.

    python benchmarks/forward.py [--rounds 15] [--passes 8] [--no-peer] [--quick --out FOLDER]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from _harness import Peer, interleave, network_pass, parsed, write
from safetensors.torch import save_file

import kizu
from kizu.engine import has_bf16
from kizu.representations.base import Representation
from kizu.representations.networks import build_network

WEIGHTS, NETWORK, LEVELS = "imagenet/efficientnet_lite0@2,3", "tf_efficientnet_lite0", (2, 3)
SIZES, BATCHES = (224, 256), (1, 16)
OWN = "kizu, features"
REST = 0.05
"""Seconds before each case: OpenMP's threads spin for 20 ms after their last step."""


def own_cases(representation: Representation, images: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Ours, and timm's network with the same weights; images (B, 3, H, W) in [0, 1]."""
    frozen = representation.inference_copy()
    cases: dict[str, Callable[[], Any]] = {OWN: lambda: frozen(images)}
    dtypes = {"timm, fp32": torch.float32, "timm, bf16": torch.bfloat16}
    for name, dtype in dtypes.items():
        if dtype == torch.float32 or has_bf16(torch.device("cpu")):
            cases[name] = forward(representation, images, dtype)
    return cases


def forward(representation: Representation, images: torch.Tensor, dtype: torch.dtype) -> Callable[[], Any]:
    """timm's forward pass in one precision, channels last."""
    net = build_network(NETWORK, LEVELS)[0].eval()
    net.load_state_dict(weights_of(representation))
    return network_pass(net, images, dtype)


def weights_of(representation: Representation) -> dict[str, torch.Tensor]:
    """Weights under timm's names."""
    state = representation.state_dict().items()
    return {name.removeprefix("net."): value for name, value in state if name.startswith("net.")}


@torch.inference_mode()
def difference(representation: Representation, images: torch.Tensor) -> float:
    """How far our features are from those in float32, relative to their norm, the worst level."""
    own, exact = (representation.inference_copy(precision)(images) for precision in ("auto", "fp32"))
    return max(float((a.float() - b).norm() / b.norm()) for a, b in zip(own, exact, strict=True))


def rested(case: Callable[[], Any], passes: int) -> Callable[[], float]:
    """Seconds of one pass, the mean of some, after a rest."""

    def timed() -> float:
        time.sleep(REST)
        begin = time.perf_counter()
        for _ in range(passes):
            case()
        return (time.perf_counter() - begin) / passes

    return timed


def asked(peer: Peer, engine: str, passes: int) -> Callable[[], float]:
    """The same by an engine of the peer."""

    def timed() -> float:
        time.sleep(REST)
        return float(peer.ask(forward=engine, passes=passes)["seconds"])

    return timed


def loaded(peer: Peer, representation: Representation, size: int, batch: int) -> dict[str, Any]:
    """What the peer's engines are, once they have the network."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file(weights_of(representation), path)
        indices = list(build_network(NETWORK, LEVELS)[0].feature_info.out_indices)
        request = {"network": NETWORK, "out_indices": indices, "weights": str(path)}
        threads = torch.get_num_threads()
        return peer.ask(load={**request, "size": size, "batch": batch, "threads": threads})


def measure(size: int, batch: int, peer: Peer | None, given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of one pass of every case in turn, and ours over each."""
    representation = kizu.representation(WEIGHTS)
    images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    passes = max(1, given.passes // batch)
    cases = {name: rested(case, passes) for name, case in own_cases(representation, images).items()}
    row: dict[str, Any] = {"size": size, "batch": batch, "difference": difference(representation, images)}
    if peer is not None:
        row["peer"] = about = loaded(peer, representation, size, batch)
        cases |= {engine: asked(peer, engine, passes) for engine in about["engines"]}
        for engine, reason in about["missing"].items():
            print(f"{engine} was left out: {reason}", file=sys.stderr)
    row["seconds"] = interleave(cases, given.rounds, warmup=2)
    own = row["seconds"][OWN]["median"]
    row["ours_over"] = {name: own / spent["median"] for name, spent in row["seconds"].items() if name != OWN}
    return row


def opened() -> Peer | None:
    """The peer; None, and a sentence, without an environment for it."""
    try:
        return Peer("forward_engines")
    except SystemExit as error:
        print(f"onnxruntime and OpenVINO were left out. {error}", file=sys.stderr)
        return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and write forward.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--passes", type=int, default=8, help="images of one measurement, in passes")
    parser.add_argument("--no-peer", action="store_true")
    quick = {"rounds": 1, "passes": 1, "no_peer": True}
    given = parsed(parser, arguments, quick=quick)
    sizes, batches = ((64,), (1, 2)) if given.quick else (SIZES, BATCHES)
    peer = None if given.no_peer else opened()
    rows = [measure(size, batch, peer, given) for size in sizes for batch in batches]
    if peer is not None:
        peer.close()
    threads = torch.get_num_threads()
    print(write("forward", given.results, threads=threads, network=WEIGHTS, rows=rows).read_text("utf-8"))


if __name__ == "__main__":
    main()
