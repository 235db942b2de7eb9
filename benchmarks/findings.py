"""What flaw regions and a region of interest cost, over `kizu inspect` in the same run.

Planted metal parts, half of them flawed, and a calibrated PatchCore with the default network. In turn: the
inspection as the command does it without panels; the flaw regions of all its images alone, from predictions
that are there already; the inspection with a region of interest that is the whole image, so that the same
pixels are looked at. The goal is at most 3 % of the inspection for each.

    python benchmarks/findings.py [--rounds 9] [--images 64] [--pixels 1024] [--quick --out FOLDER]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _harness import interleave, parsed, write

import kizu
from kizu.apps._findings import Outputs, regions_of
from kizu.apps._inspect import inspect_images
from kizu.apps._screen import Screen
from kizu.detectors.base import Detector
from kizu.evaluation.calibrated import fit_calibrated

GOAL = 0.03
INSPECT, REGIONS, ROI = "inspect", "flaw regions alone", "inspect with --roi"


def inspection(model: Detector, paths: list[Path], out: Path) -> Callable[[], Any]:
    """The command's work without panels."""

    def once() -> None:
        inspect_images(
            model, "", paths, out, outputs=Outputs(panels=False), overwrite=True, resume=False,
            screen=Screen(as_json=False),
        )  # fmt: skip

    return once


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds of each in turn, and what is added as a share of the inspection."""
    count = given.images // 2
    samples = kizu.dataset(
        "planted", folder / "data", products="metal", train=24, test_good=count, test_defective=count,
        size=given.pixels,
    )  # fmt: skip
    model = kizu.detector("patchcore", given.weights)
    fit_calibrated(model, samples.train.normal, false_alarm_rate=0.1)
    model.save(folder / "model.kizu")
    whole = kizu.load(folder / "model.kizu", roi=(0, 0, given.pixels, given.pixels))
    paths = [Path(path) for path in samples.test.paths]
    prediction = model.predict(paths)
    assert prediction.is_anomalous is not None
    cases: dict[str, Callable[[], Any]] = {
        INSPECT: inspection(model, paths, folder / "plain"),
        REGIONS: lambda: [regions_of(model, prediction, row) for row in range(len(paths))],
        ROI: inspection(whole, paths, folder / "roi"),
    }
    seconds = interleave(cases, given.rounds)
    spent = {name: one["median"] for name, one in seconds.items()}
    return {
        **{"images": len(paths), "pixels": given.pixels, "called": int(prediction.is_anomalous.sum())},
        "seconds": seconds,
        "over_inspect": {
            "regions": spent[REGIONS] / spent[INSPECT],
            "region of interest": spent[ROI] / spent[INSPECT] - 1.0,
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and write findings.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--pixels", type=int, default=1024)
    parser.add_argument("--weights", default="imagenet/efficientnet_lite0@2,3")
    quick = {"rounds": 1, "images": 6, "pixels": 96, "weights": "random/test_resnet@1,2"}
    given = parsed(parser, arguments, quick=quick)
    with tempfile.TemporaryDirectory() as folder:
        row = measure(given, Path(folder))
    print(write("findings", given.results, goal=GOAL, rows=[row]).read_text("utf-8"))


if __name__ == "__main__":
    main()
