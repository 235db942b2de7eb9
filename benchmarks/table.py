"""Write docs/benchmarks.md from the rows in benchmarks/results.

With --out, FOLDER/benchmarks.md from those in FOLDER.

    python benchmarks/table.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _added import findings, residual
from _harness import ROOT, parsed

HEAD = """# Benchmarks

Speed beside a peer or a limit, as a ratio within one run: cases in turn, medians.
`python benchmarks/table.py` writes this page from benchmarks/results/*.json, which also hold quartiles,
versions and the commit.
`make peer-env` builds the peers' environment. `--quick --out FOLDER` shows in seconds that a script runs, and
`--out FOLDER` alone keeps measured rows away from those of this page. `--data FOLDER` (or KIZU_DATA) adds
photographs to the drawn cases of coreset.py, nearest.py and fit_time.py.

Two cores of a shared host: seconds move by half from day to day, ratios within a run much less. Rows of
different days do not compare.

| script | what |
|---|---|
| `benchmarks/pixel_metrics.py` | exact pixel metrics, 500 maps of 256 x 256, beside anomalib, scikit-learn |
| `benchmarks/coreset.py` | greedy k-centre of 80,000 rows to 10 %, beside one product, anomalib, a loop |
| `benchmarks/nearest.py` | nearest neighbours beside one product, torch.cdist, faiss, the backbone |
| `benchmarks/forward.py` | the default features beside timm, onnxruntime and OpenVINO on the same network |
| `benchmarks/residual.py` | nearest reference and projector over the network's own forward pass |
| `benchmarks/findings.py` | flaw regions and a region of interest over `kizu inspect`: 3 % at most wanted |
| `benchmarks/latency.py` | detectors end to end beside the backbone's own bf16 forward pass |
| `benchmarks/whole_job.py` | 200 + 200 magnetic-tile images, fit and evaluate, beside anomalib |
| `benchmarks/fit_time.py` | fit of 100 images of 256 pixels with PatchCore's defaults: 10 s wanted |
| `benchmarks/pretraining.py` | SimSiam's throughput beside lightly's own example, and the cost of SPD |
| `benchmarks/reconstruction.py` | ReContrast's training loop beside its networks written plainly |
| `benchmarks/training_steps.py` | a training step of each learned detector at its default settings |
| `benchmarks/busy.py` | each part beside one busy process, and beside one for each core |
| `benchmarks/calibration.py` | the promised false-alarm rate over seeds: [results](results/calibration.md) |
| `benchmarks/adaptation_promise.py` | the same under an adaptation: [results](results/README.md) |
| `benchmarks/table.py` | this page |
"""


WITHOUT = "Photographs' patches are not in this run: it had no data folder."


def read(folder: Path, name: str) -> dict[str, Any] | None:
    """One result, or None when it was not run."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def measured(row: dict[str, Any]) -> str:
    """Where and when."""
    machine = row["machine"]
    return f"{machine['cpu']}, {machine['cores']} cores, commit {machine['commit']}, {machine['date']}."


def pixel_metrics(row: dict[str, Any]) -> list[str]:
    """Seconds and ratios of the metrics."""
    lines = ["| library | median s | best s | ratio to kizu |", "|---|---|---|---|"]
    for name, seconds in row["seconds"].items():
        ratio = row["ratio_to_kizu"].get(name)
        lines.append(
            f"| {name} | {seconds['median']:.2f} | {seconds['min']:.2f} | "
            f"{'' if ratio is None else f'{ratio:.0f}'} |"
        )
    return lines


def coreset(row: dict[str, Any]) -> list[str]:
    """Seconds of each selection, the plain loop and the peer; then of photographs, where they were there."""
    lines = [
        "| features | selection | median s | best s | over one product | covering radius |",
        "|---" * 6 + "|",
    ]
    for name, case in {"drawn": row, **row.get("real", {})}.items():
        lines += selections(name, case)
    return lines if row.get("real") else [*lines, "", WITHOUT]


def selections(features: str, case: dict[str, Any]) -> list[str]:
    """Lines of one kind of features."""
    lines = []
    for name, seconds in case["seconds"].items():
        radius, ratio = case["covering_radius"].get(name), case.get("over_one_product", {}).get(name)
        values = [f"{seconds['median']:.1f}", f"{seconds['min']:.1f}"]
        values += ["" if ratio is None else f"{ratio:.2f}", "" if radius is None else f"{radius:.3f}"]
        lines.append(f"| {features} | {name} | {' | '.join(values)} |")
    plain, peer = case["plain_float64_loop"], case.get("anomalib")
    equal = f"{plain['equal_picks']} of {plain['steps']} picks equal"
    lines.append(f"| {features} | plain float64 loop ({equal}) | {plain['seconds']:.1f} | | | |")
    if peer:
        part = f"extrapolated from {peer['steps']} of {peer['of']} steps"
        how = part if peer["extrapolated"] else "in full"
        lines.append(f"| {features} | anomalib ({how}) | {peer['total_seconds']:.0f} | | | |")
    return lines


def latency(row: dict[str, Any]) -> list[str]:
    """End to end over the backbone's forward."""
    lines = [
        "| detector | weights | pixels | bank | batch | backbone ms | our features ms | end to end ms | "
        "ratio | by products |",
        "|---" * 10 + "|",
    ]
    for case in row["rows"]:
        for count in (1, 16):
            found = case[f"batch_{count}"]
            own, bank = (
                {key: f"{found[key]['median'] * 1e3:.1f}" for key in ("backbone", "features", "predict")},
                case["bank"] or [],
            )
            search = {key: seconds["median"] for key, seconds in found.get("search", {}).items()}
            slower = f"{search['products'] / search['tree']:.2f} times" if search else ""
            lines.append(
                f"| {case['detector']} | {case['weights']} | {case['size']} | {' x '.join(map(str, bank))} | "
                f"{count} | {own['backbone']} | {own['features']} | {own['predict']} | {found['ratio']:.2f} "
                f"| {slower} |"
            )
    return lines


def nearest(row: dict[str, Any]) -> list[str]:
    """Milliseconds of each search."""
    lines = ["| workload | kizu ms | one product ms | best brute force ms | ratio |", "|---|---|---|---|---|"]
    for name, case in row["rows"].items():
        own, product = case["seconds"]["kizu"]["median"], case["seconds"].get("one product")
        limit = "" if product is None else f"{product['median'] * 1e3:.1f}"
        faster = case["times_faster_than_best_brute_force"]
        lines.append(f"| {name} | {own * 1e3:.1f} | {limit} | {own * faster * 1e3:.1f} | {faster:.2f} |")
    return lines if row.get("photographs") else [*lines, "", WITHOUT]


def forward(row: dict[str, Any]) -> list[str]:
    """Milliseconds of our features, and their ratio to every engine's pass."""
    engines = list(dict.fromkeys(name for case in row["rows"] for name in case["ours_over"]))
    heads = ["pixels", "batch", "ours ms", *(f"over {name}" for name in engines)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for case in row["rows"]:
        own = case["seconds"]["kizu, features"]["median"] * 1e3
        ratios = [case["ours_over"].get(name) for name in engines]
        values = [f"{own:.1f}", *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)]
        lines.append(f"| {case['size']} | {case['batch']} | {' | '.join(values)} |")
    return lines


def fit_time(row: dict[str, Any]) -> list[str]:
    """Seconds of each fit and of its parts."""
    lines = ["| images | bank | fit s | features s | coreset s | one product s |", "|---" * 6 + "|"]
    for name, case in row["rows"].items():
        parts = ("fit", "features", "coreset", "one product")
        seconds = [f"{case['seconds'][part]['median']:.1f}" for part in parts]
        size = f"{case['images']} x {case['size']} px"
        lines.append(f"| {name}, {size} | {case['bank'][0]} | {' | '.join(seconds)} |")
    lines += ["", "Wanted: 10 s on a quiet machine, 25 s beside a busy core."]
    return lines if len(row["rows"]) > 1 else [*lines, WITHOUT]


def whole_job(row: dict[str, Any]) -> list[str]:
    """Fit, test, size and memory of each method beside the peer's."""
    parts = {
        "fit s": "fit_seconds",
        "test s": "test_seconds",
        "import s": "import_seconds",
        "file MB": "saved_bytes",
        "peak MiB": "peak_mib",
    }
    lines = ["| method | part | kizu | anomalib | ratio |", "|---|---|---|---|---|"]
    for method, found in row["summary"].items():
        for part, key in parts.items():
            ours, theirs = (
                found[side][key] / (1e6 if key == "saved_bytes" else 1) for side in ("kizu", "anomalib")
            )
            note = (
                " (extrapolated)" if key == "fit_seconds" and found.get("anomalib_fit_extrapolated") else ""
            )
            lines.append(f"| {method} | {part} | {ours:.1f} | {theirs:.1f}{note} | {theirs / ours:.1f} |")
    return lines


def pretraining(row: dict[str, Any]) -> list[str]:
    """Images a second, and ratios."""
    lines = [
        "| case | images/s |",
        "|---|---|",
        *(f"| {name} | {rate:.0f} |" for name, rate in row["images_per_second"].items()),
    ]
    return [*lines, "", ", ".join(f"{name}: {ratio:.2f}" for name, ratio in row["ratios"].items())]


def reconstruction(row: dict[str, Any]) -> list[str]:
    """The loop's overhead, and images a second in both precisions."""
    lines = [
        "| detector | training, plain s | loop s | overhead | inference fp32, images/s | bf16, images/s | "
        "ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    count, steps = row["workload"]["batch_size"], row["workload"]["steps"]
    for name, case in row["rows"].items():
        plain, loop = (case["training"][kind]["median"] / steps for kind in ("plain", "loop"))
        rates = {kind: f"{count / seconds['median']:.1f}" for kind, seconds in case["inference"].items()}
        faster = f"{case['bf16_over_fp32']:.2f}" if "bf16" in rates else ""
        measured = [f"{100 * case['overhead']:+.1f} %", rates["fp32"], rates.get("bf16", ""), faster]
        lines.append(f"| {name} | {plain:.2f} | {loop:.2f} | {' | '.join(measured)} |")
    return [*lines, "", f"Seconds a step of {count} images of {row['workload']['size']} pixels."]


def training_steps(row: dict[str, Any]) -> list[str]:
    """Seconds of a step and hours of a fit by default, of each learned detector."""
    lines = [
        "| detector | representation | million parameters | s a step | images/s | steps by default | hours |",
        "|---" * 7 + "|",
    ]
    for case in row["rows"]:
        cells = [case["detector"], case["representation"], f"{case['parameters'] / 1e6:.2f}"]
        cells += [f"{case['seconds_per_step']:.2f}", f"{case['images_per_second']:.1f}"]
        cells += [f"{case['iterations']:,}", f"{case['hours_of_a_fit']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    size, count = row["workload"]["size"], row["workload"]["batch_size"]
    words = f"{row['workload']['precision']}, {row['workload']['threads']} threads"
    return [*lines, "", f"Steps of {count} images of {size} pixels, {words}; features are computed before."]


def busy(row: dict[str, Any]) -> list[str]:
    """Each part's time beside busy processes over its time alone."""
    loads = list(next(iter(row["rows"].values()))["ratios"])
    lines = [
        f"| part | alone s | {' | '.join(f'beside {load}' for load in loads)} |",
        "|---" * (2 + len(loads)) + "|",
    ]
    for name, case in row["rows"].items():
        ratios = " | ".join(f"{case['ratios'][load]:.2f}" for load in loads)
        lines.append(f"| {name} | {case['seconds']['0']['median']:.2f} | {ratios} |")
    return [
        *lines,
        "",
        f"Times as long as alone; the goal is {row['goal']:g} at most beside one for each core.",
    ]


SECTIONS = {
    "whole_job": ("Whole job", whole_job),
    "pixel_metrics": ("Pixel metrics", pixel_metrics),
    "coreset": ("Coreset", coreset),
    "nearest": ("Nearest neighbours", nearest),
    "forward": ("Forward pass", forward),
    "residual": ("Residual features", residual),
    "findings": ("Flaw regions and region of interest", findings),
    "fit_time": ("Fit by default settings", fit_time),
    "latency": ("End to end", latency),
    "pretraining": ("Pretraining", pretraining),
    "training_steps": ("Training steps", training_steps),
    "busy": ("Beside other programs", busy),
    "reconstruction": ("Reverse distillation and ReContrast", reconstruction),
}


def page(results: Path) -> str:
    """The page of what lies in a folder of results."""
    parts = [HEAD]
    for name, (title, render) in SECTIONS.items():
        row = read(results, name)
        if row is not None:
            note = f" {row['note']}" if row.get("note") else ""
            parts.append("\n".join([f"## {title}", "", measured(row) + note, "", *render(row)]))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page."""
    given = parsed(argparse.ArgumentParser(description=__doc__.partition("\n\n")[0]), arguments)
    path = (given.out or ROOT / "docs") / "benchmarks.md"
    path.write_text(page(given.results), "utf-8")
    print(path)


if __name__ == "__main__":
    main()
