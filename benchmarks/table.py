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

from _harness import ROOT, parsed

HEAD = """# Benchmarks

Speed beside a peer or a limit, as a ratio within one run: cases in turn, medians.
`python benchmarks/table.py` writes this page from benchmarks/results/*.json, which also hold quartiles,
versions and the commit.
`make peer-env` builds the peers' environment. `--quick --out FOLDER` shows in seconds that a script runs, and
`--out FOLDER` alone keeps measured rows away from those of this page.

Two cores of a shared host: seconds move by half from day to day, ratios within a run much less. Rows of
different days do not compare.

| script | what |
|---|---|
| `benchmarks/pixel_metrics.py` | exact pixel metrics, 500 maps of 256 x 256, beside anomalib, scikit-learn |
| `benchmarks/coreset.py` | greedy k-centre of 80,000 x 1,536 to 10 %, beside anomalib and the plain loop |
| `benchmarks/nearest.py` | nearest neighbours beside torch.cdist, a product, faiss, the backbone |
| `benchmarks/latency.py` | detectors end to end beside the backbone's own bf16 forward pass |
| `benchmarks/whole_job.py` | 200 + 200 magnetic-tile images, fit and evaluate, beside anomalib |
| `benchmarks/pretraining.py` | SimSiam's throughput beside lightly's own example, and the cost of SPD |
| `benchmarks/reconstruction.py` | ReContrast's training loop beside its networks written plainly |
| `benchmarks/busy.py` | each part beside one busy process, and beside one for each core |
| `benchmarks/calibration.py` | the promised false-alarm rate over seeds: [results](results/calibration.md) |
| `benchmarks/residual_promise.py` | the same under an adaptation: [results](results/residual_promise.md) |
| `benchmarks/table.py` | this page |
"""


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
    """Seconds of each selection, the plain loop and the peer."""
    lines = ["| selection | median s | best s | covering radius |", "|---|---|---|---|"]
    for name, seconds in row["seconds"].items():
        radius = row["covering_radius"].get(name)
        lines.append(
            f"| {name} | {seconds['median']:.1f} | {seconds['min']:.1f} | "
            f"{'' if radius is None else f'{radius:.3f}'} |"
        )
    plain, peer = row["plain_float64_loop"], row.get("anomalib")
    lines.append(
        f"| plain float64 loop ({plain['equal_picks']} of {plain['steps']} picks equal) | "
        f"{plain['seconds']:.1f} | | |"
    )
    if peer:
        how = (
            f"extrapolated from {peer['steps']} of {peer['of']} steps" if peer["extrapolated"] else "in full"
        )
        lines.append(f"| anomalib ({how}) | {peer['total_seconds']:.0f} | | |")
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
    lines = ["| workload | kizu ms | best brute force ms | ratio |", "|---|---|---|---|"]
    for name, case in row["rows"].items():
        own = case["seconds"]["kizu"]["median"]
        faster = case["times_faster_than_best_brute_force"]
        lines.append(f"| {name} | {own * 1e3:.1f} | {own * faster * 1e3:.1f} | {faster:.2f} |")
    return lines


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
    "latency": ("End to end", latency),
    "pretraining": ("Pretraining", pretraining),
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
