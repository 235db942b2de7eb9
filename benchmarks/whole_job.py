"""The whole job on real images: fit on good magnetic tiles, then test on good and flawed ones, kizu beside
anomalib.

Both get the same files, the same ResNet-18 with random weights (speed does not depend on them) and 224
pixels, and PatchCore (10 % coreset) and PaDiM (100 channels) with their own defaults otherwise. Testing is
loading, predicting and all metrics (image AUROC, AP, best F1; pixel AUROC, AP, best F1, AUPRO), without
images. Each job runs in a process of its own, kizu and anomalib in turn. No tile is on both sides.

anomalib's coreset is timed for `--peer-steps` steps and multiplied, for all steps cost the same: rows so made
say fit_extrapolated, and their metrics belong to a bank that was filled up with random patches. `--peer-steps
0` runs all steps.

    python benchmarks/whole_job.py [--data FOLDER] [--images 200] [--rounds 1] [--peer-steps 300]
    [--out FOLDER]

FOLDER (or KIZU_DATA) holds magnetic-tile, a clone of the public data set.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _harness import Peer, parsed, write

if TYPE_CHECKING:
    from kizu.samples import Samples

SIZE = 224
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "patchcore": ("random/resnet18@2,3", {"coreset": 0.1}),
    "padim": ("random/resnet18@1,2,3", {}),
}
PARTS = (
    "import_seconds",
    "build_seconds",
    "fit_seconds",
    "fit_cpu_seconds",
    "save_seconds",
    "test_seconds",
    "test_cpu_seconds",
    "saved_bytes",
    "peak_mib",
    "process_seconds",
)


def choose(samples: Samples, images: int) -> tuple[Samples, Samples]:
    """`images` good ones to fit on, and as many of other tiles to test on, half of them flawed and spread
    over all kinds."""
    import numpy as np

    groups, labels = np.asarray(samples.table["group"].cast(int)), samples.labels
    by_tile = np.lexsort((np.asarray(samples.paths), groups))
    good = by_tile[labels[by_tile] == 0]
    train = good[:images]
    elsewhere = ~np.isin(groups, groups[train])
    marked = samples.table["mask"].is_not_null().to_numpy()
    normal, flawed = (
        np.flatnonzero(elsewhere & (labels == 0)),
        np.flatnonzero(elsewhere & (labels == 1) & marked),
    )
    half = images // 2
    if len(train) < images or min(len(normal), len(flawed)) < half:
        raise SystemExit(f"The data set has too few images for --images {images}.")
    test = np.concatenate([rows[np.arange(half) * len(rows) // half] for rows in (normal, flawed)])
    return samples.take(train), samples.take(test)


def plant_tree(train: Samples, test: Samples, tree: Path) -> None:
    """The folders that anomalib reads: links to the images, and masks made binary at 128 as kizu reads them
    (it takes all above 0)."""
    from PIL import Image

    folders = {name: tree / name for name in ("train", "test_good", "defect", "mask")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    for samples, good in ((train, "train"), (test, "test_good")):
        for image, mask, label in samples.table.select("image", "mask", "label").iter_rows():
            source = Path(image)
            source.read_bytes()  # neither side is to meet a cold disk
            (folders["defect" if label else good] / source.name).symlink_to(source)
            if label:
                with Image.open(mask) as opened:
                    binary = opened.convert("L").point(lambda value: 255 * (value > 127))
                binary.save(folders["mask"] / f"{source.stem}.png")


def peak_mib() -> float:
    """Largest resident memory of this process, MiB (Linux). Not getrusage's, which a child inherits from its
    parent."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def clock() -> tuple[float, float]:
    """Seconds by the wall and of processor time (all threads of this process)."""
    return time.perf_counter(), time.process_time()


def import_all(method: str) -> float:
    """Import what the job needs, lazy parts too; seconds."""
    begin = time.perf_counter()
    import timm  # noqa: F401

    from kizu import registry
    from kizu.evaluation import measure, predict  # noqa: F401

    for room, member in (
        ("detectors", method),
        ("datasets", "magnetic_tile"),
        ("representations", "backbone"),
    ):
        registry.load(room, member)
    return time.perf_counter() - begin


def job(method: str, data: str, images: int, out: str) -> dict[str, Any]:
    """Our side, in this fresh process."""
    imports = import_all(method)
    import kizu
    from kizu.evaluation.predict import predict_all

    start = clock()
    train, test = choose(kizu.dataset("magnetic_tile", data), images)
    representation, parameters = METHODS[method]
    detector = kizu.detector(method, representation, image_size=SIZE, **parameters)
    built = clock()
    detector.fit(train)
    fitted = clock()
    path = detector.save(Path(out) / "model.kizu", overwrite=True)
    saved = clock()
    predictions = predict_all(detector, test)
    predicted = clock()
    found = predictions.measure(test).metrics
    tested = clock()
    marks = (start, built, fitted, saved, predicted, tested)
    parts = zip(("build", "fit", "save", "predict", "measure"), itertools.pairwise(marks), strict=True)
    spent = {name: [after - before for before, after in zip(*pair, strict=True)] for name, pair in parts}
    test_wall, test_cpu = (spent["predict"][at] + spent["measure"][at] for at in (0, 1))
    values = {f"{part}_{name}": value for part in ("image", "pixel") for name, value in found[part].items()}
    return {
        "import_seconds": imports,
        **{f"{name}_seconds": seconds[0] for name, seconds in spent.items()},
        "test_seconds": test_wall,
        "test_cpu_seconds": test_cpu,
        "fit_cpu_seconds": spent["fit"][1],
        "fit_extrapolated": False,
        "saved_bytes": path.stat().st_size,
        "peak_mib": peak_mib(),
        "images": {
            "train": len(train),
            "test": len(predictions.rows),
            "without_mask": found["images"]["without_mask"],
        },
        "metrics": values,
    }


def run_ours(method: str, data: Path, images: int, out: Path) -> dict[str, Any]:
    """`job` in a process of its own."""
    request = json.dumps({"method": method, "data": str(data), "images": images, "out": str(out)})
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--job", request], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"Our side stopped with exit code {done.returncode}:\n{done.stderr}")
    return {**json.loads(done.stdout), "process_seconds": time.perf_counter() - start}


def run_peer(method: str, folder: Path, steps: int, workers: int) -> dict[str, Any]:
    """anomalib's job in a process of its own; process_seconds includes what was run of the coreset only."""
    start = time.perf_counter()
    peer = Peer("anomalib_job")
    weights, out = str(folder / f"{method}.safetensors"), str(folder / "anomalib")
    answer = peer.ask(
        method=method,
        tree=str(folder / "tree"),
        size=SIZE,
        weights=weights,
        steps=steps,
        workers=workers,
        out=out,
    )
    peer.close()
    return {**answer, "process_seconds": time.perf_counter() - start}


def summary(rows: list[dict[str, Any]], method: str) -> dict[str, Any]:
    """Medians of each side, and anomalib's over ours."""
    medians = {
        side: {
            part: statistics.median(
                row[part] for row in rows if (row["side"], row["method"]) == (side, method)
            )
            for part in PARTS
        }
        for side in ("kizu", "anomalib")
    }
    ratios = {part: medians["anomalib"][part] / medians["kizu"][part] for part in PARTS}
    extrapolated = any(row["fit_extrapolated"] for row in rows if row["method"] == method)
    return {**medians, "anomalib_over_kizu": ratios, "anomalib_fit_extrapolated": extrapolated}


def show(found: dict[str, dict[str, Any]]) -> None:
    """A small table."""
    print(f"{'':10}{'':18}{'kizu':>12}{'anomalib':>12}{'ratio':>8}")
    for method, values in found.items():
        for part in PARTS:
            scale = 1e6 if part == "saved_bytes" else 1.0
            ours, theirs = (values[side][part] / scale for side in ("kizu", "anomalib"))
            extrapolated = part == "fit_seconds" and values["anomalib_fit_extrapolated"]
            name = "saved MB" if part == "saved_bytes" else part.replace("_", " ")
            print(
                f"{method:10}{name:18}{ours:12.2f}{theirs:12.2f}{values['anomalib_over_kizu'][part]:8.1f}"
                + (" (anomalib extrapolated)" if extrapolated else "")
            )


def measure_all(given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Every job of every round, in turn."""
    from safetensors.torch import save_file

    import kizu

    data = Path(given.data) / "magnetic-tile"
    plant_tree(*choose(kizu.dataset("magnetic_tile", data), given.images), folder / "tree")
    rows = []
    for method, (representation, _) in METHODS.items():
        weights = kizu.representation(representation).state_dict()
        save_file(
            {name.removeprefix("net."): value for name, value in weights.items()},
            folder / f"{method}.safetensors",
        )
    for number in range(given.rounds):
        for method, side in itertools.product(METHODS, ("kizu", "anomalib")):
            load = os.getloadavg()[0]
            if side == "kizu":
                row = run_ours(method, data, given.images, folder)
            else:
                row = run_peer(method, folder, given.peer_steps, given.peer_workers)
            rows.append({"side": side, "method": method, "round": number, "load_before": load, **row})
            print(
                f"round {number} {method} {side}: fit {row['fit_seconds']:.2f} s, test "
                f"{row['test_seconds']:.2f} s",
                file=sys.stderr,
            )
    return rows


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "--data",
        default=os.environ.get("KIZU_DATA"),
        help="folder that holds magnetic-tile (default: KIZU_DATA)",
    )
    parser.add_argument("--images", type=int, default=200, help="good ones to fit on, and ones to test on")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--peer-steps", type=int, default=300, help="steps of anomalib's coreset to time; 0: all"
    )
    parser.add_argument("--peer-workers", type=int, default=0, help="loader processes of anomalib")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    return parsed(parser, arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and write whole_job.json."""
    given = options(arguments)
    if given.job:
        print(json.dumps(job(**json.loads(given.job))))
        return
    if not given.data:
        raise SystemExit(
            "Say where the images are: --data FOLDER or KIZU_DATA, a folder that holds magnetic-tile."
        )
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_all(given, Path(folder))
    found = {method: summary(rows, method) for method in METHODS}
    workload = {"images": given.images, "size": SIZE, "network": "resnet18, random weights"}
    workload |= {name: getattr(given, name) for name in ("rounds", "peer_steps", "peer_workers")}
    show(found)
    print(write("whole_job", given.results, workload=workload, summary=found, rows=rows))


if __name__ == "__main__":
    main()
