"""All four exact pixel figures: kizu against anomalib and scikit-learn, in time, in memory and in value.

500 maps of 256x256 (33 million pixels), 3 % of them defects, two to four regions a mask, smooth noise;
anomalib runs its four metric classes one after the other on the same arrays, scaled to [0, 1] because its
AUROC puts a sigmoid on anything else; scikit-learn computes AUROC and average precision only. Memory is by
how much the peak of a process of its own grows over its loaded inputs (Linux).

    python benchmarks/pixel_metrics.py [--images 500] [--size 256] [--repeats 3] [--no-peer]
    [--quick --out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _harness import Peer, interleave, parsed, write
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score, roc_auc_score

from kizu import metrics

KEYS = ("auroc", "ap", "f1_max", "aupro")


def synthetic(images: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Maps (n, H, W) float32 in [0, 1] and masks (n, H, W) bool: smooth noise, blurred bumps of varying
    strength on elliptic defects."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    maps, masks = np.empty((images, size, size), np.float32), np.zeros((images, size, size), bool)
    for image in range(images):
        for _ in range(rng.integers(2, 5)):
            radius = rng.uniform(5, 24) * size / 256
            y, x = rng.uniform(radius, size - radius, 2)
            masks[image] |= (rows - y) ** 2 + ((columns - x) * rng.uniform(0.6, 1.7)) ** 2 < radius**2
        noise = gaussian_filter(rng.standard_normal((size, size), dtype=np.float32), 4, mode="wrap")
        maps[image] = noise / noise.std() + rng.uniform(1.5, 4) * gaussian_filter(
            masks[image].astype(np.float32), 3
        )
    maps -= maps.min()
    maps /= maps.max()
    return maps, masks


def by_sklearn(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """AUROC and average precision of the flattened pixels."""
    scores, labels = maps.ravel(), masks.ravel()
    return {
        "auroc": float(roc_auc_score(labels, scores)),
        "ap": float(average_precision_score(labels, scores)),
    }


OURS = {"kizu": metrics.pixel_metrics, "scikit-learn": by_sklearn}


def extra_memory(case: str, folder: str) -> None:
    """Run one case in this fresh process and print by how many MiB its peak grew."""
    maps, masks = np.load(f"{folder}/maps.npy"), np.load(f"{folder}/masks.npy")
    OURS[case](maps[:1], masks[:1])
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak starts anew at what is in use now
    before = peak_mib()
    OURS[case](maps, masks)
    print(json.dumps(peak_mib() - before))


def peak_mib() -> float:
    """Largest resident memory of this process, MiB; getrusage's is inherited from a parent."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def memory_of(case: str, folder: str) -> float:
    """MiB of one case in a process of its own."""
    command = [sys.executable, __file__, "--memory", case, folder]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


class Anomalib:
    """The peer's four figures, asked one after the other; what it answered last is kept."""

    def __init__(self, folder: str) -> None:
        self.peer = Peer("anomalib_metrics")
        self.about = self.peer.ask(load=folder)
        self.answers: dict[str, dict[str, float]] = {}
        self.extra: list[float] = []

    def __call__(self) -> float:
        """Seconds of all four."""
        self.answers = {key: self.peer.ask(run=key) for key in KEYS}
        self.extra.append(max(answer["extra_mib"] for answer in self.answers.values()))
        return sum(answer["seconds"] for answer in self.answers.values())

    def each(self, what: str) -> dict[str, float]:
        """ "seconds" or "value" of every figure."""
        return {key: answer[what] for key, answer in self.answers.items()}


def measure(
    maps: np.ndarray, masks: np.ndarray, folder: str, repeats: int, with_peer: bool
) -> dict[str, Any]:
    """Times, values and memory of every side."""
    peer = Anomalib(folder) if with_peer else None
    cases: dict[str, Callable[[], Any]] = {
        "kizu": lambda: metrics.pixel_metrics(maps, masks),
        **({"anomalib": peer} if peer else {}),
        "scikit-learn": lambda: by_sklearn(maps, masks),
    }
    seconds = interleave(cases, repeats)
    values = {name: case(maps, masks) for name, case in OURS.items()}
    memory = {name: memory_of(name, folder) for name in OURS}
    found: dict[str, Any] = {"seconds": seconds, "values": values, "extra_mib": memory}
    if peer:
        peer.peer.close()
        values["anomalib"], memory["anomalib"] = peer.each("value"), peer.extra[0]
        found |= {"peer": peer.about, "anomalib_each": peer.each("seconds")}
    ours = values["kizu"]
    found["minus_kizu"] = {
        side: {key: value - ours[key] for key, value in figures.items()}
        for side, figures in values.items()
        if side != "kizu"
    }
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and write pixel_metrics.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--memory", nargs=2, metavar=("CASE", "FOLDER"), help=argparse.SUPPRESS)
    given = parsed(parser, arguments, quick={"images": 6, "size": 48, "repeats": 1, "no_peer": True})
    if given.memory:
        extra_memory(*given.memory)
        return
    maps, masks = synthetic(given.images, given.size)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "maps.npy", maps)
        np.save(Path(folder) / "masks.npy", masks)
        found = measure(maps, masks, folder, given.repeats, not given.no_peer)
    medians = {side: seconds["median"] for side, seconds in found["seconds"].items()}
    ratios = {side: median / medians["kizu"] for side, median in medians.items() if side != "kizu"}
    workload = {"images": given.images, "size": given.size, "defect_share": float(masks.mean())}
    path = write("pixel_metrics", given.results, workload=workload, ratio_to_kizu=ratios, **found)
    print(path.read_text("utf-8"))


if __name__ == "__main__":
    main()
