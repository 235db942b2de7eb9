"""What happens at the line, measured on planted data: bad pictures among the good ones, another product, and
learning on.

    python experiments/inspection/line.py [--parts contamination product update] [--seeds 10] [--size 128]
    [--products metal capsule circuit] [--detector patchcore] [--out FILE.csv]

One row of the CSV a case:

    contamination   90 good pictures of which 0, 3 or 5 % are flawed, fitted as they are and with the
                    suspicious left out: threshold, false alarms and flaws found on the test, how many of the
                    flawed pictures stand out, and how many good ones do
    product         batches of 20 and 40 of the same product (good, and a third flawed) and of another one:
                    whether the batch is said to be another product, and the promise to be broken
    update          60 good pictures, then 20 more: rate, false alarms and flaws found before and after, and
                    of a fit on all 80

Started again, it goes on with what is missing."""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import kizu
from kizu.datasets.planted import planted
from kizu.detectors.base import Detector
from kizu.evaluation.calibrated import fit_calibrated
from kizu.evaluation.promises import broken_promise, other_product
from kizu.evaluation.suspicion import suspicion, without_suspicious
from kizu.evaluation.updating import update_calibrated
from kizu.samples import Samples

PARTS = ("contamination", "product", "update")
FIELDS = (
    *("part", "product", "seed", "case", "rate", "threshold", "good", "false_alarms", "flawed", "found"),
    *("planted", "outstanding_flawed", "outstanding_good", "said_other", "said_broken"),
)
SHARES = (0.0, 0.03, 0.05)
PICTURES, MORE = 90, 20


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--products", nargs="+", default=["metal", "capsule", "circuit"])
    parser.add_argument("--detector", default="patchcore")
    parser.add_argument("--out", type=Path, default=Path("line.csv"))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> Path:
    """Run what is missing; the file of rows."""
    options = parsed(arguments)
    done = rows_of(options.out)
    with tempfile.TemporaryDirectory() as folder:
        for product in options.products:
            for seed in range(options.seeds):
                data = drawn(Path(folder), product, seed, options.size)
                for part in options.parts:
                    if not any(
                        (r["part"], r["product"], r["seed"]) == (part, product, str(seed)) for r in done
                    ):
                        cases = CASES[part](data, options, seed)
                        append(
                            options.out,
                            [{"part": part, "product": product, "seed": seed, **c} for c in cases],
                        )
    return options.out


def drawn(folder: Path, product: str, seed: int, size: int) -> Samples:
    """One product, all images of it."""
    counts = {"train": PICTURES + MORE, "test_good": 60, "test_defective": 40}
    return planted(folder / f"{product}{seed}", products=product, size=size, seed=seed, **counts)


def contamination(data: Samples, options: argparse.Namespace, seed: int) -> Iterator[dict[str, Any]]:
    """Flawed pictures among those to learn from; they are not tested on."""
    good, flawed = data.train.take(range(PICTURES)), data.test.anomalous
    order = np.random.default_rng(seed).permutation(len(flawed))
    for share in SHARES:
        count = round(share * PICTURES)
        bad = flawed.take(order[:count])
        test = data.test.normal.concat(flawed.take(np.sort(order[count:])))
        mixed = good.take(range(PICTURES - count)).concat(bad.as_good())
        for robust in (False, True):
            model, parts = kizu.detector(options.detector, image_size=options.size), []
            kept, found = without_suspicious(model, mixed, seed=seed) if robust else (mixed, None)
            fit_calibrated(model, kept, seed=seed, collected=parts)
            names = set((found or suspicion(parts)).outstanding)
            hits = len(names & set(bad.paths))
            case = f"{share:.0%}, {'robust' if robust else 'as it is'}"
            stood = {"planted": count, "outstanding_flawed": hits, "outstanding_good": len(names) - hits}
            yield {"case": case, **measured(model, test), **stood}


def product(data: Samples, options: argparse.Namespace, seed: int) -> Iterator[dict[str, Any]]:
    """Batches that are of the product, and one that is not."""
    model = kizu.detector(options.detector, image_size=options.size)
    fit_calibrated(model, data.train.take(range(PICTURES)), seed=seed)
    rng, good, flawed = np.random.default_rng(seed), data.test.normal, data.test.anomalous
    own = str(data.table["category"][0])
    name = next(one for one in ("metal", "capsule", "circuit") if one != own)
    with tempfile.TemporaryDirectory() as folder:
        counts = {"train": 1, "test_good": 40, "test_defective": 1}
        other = planted(Path(folder) / "other", products=name, size=options.size, seed=seed, **counts)
        for batch in (20, 40):
            some = good.take(rng.choice(len(good), batch, replace=False))
            third = some.take(range(batch - batch // 3)).concat(flawed.take(range(batch // 3)))
            cases = {"good": some, "a third flawed": third, name: other.test.normal.take(range(batch))}
            for case, images in cases.items():
                said = spoken(model, images)
                yield {"case": f"{batch} of {case}", **measured(model, images), **said}


def update(data: Samples, options: argparse.Namespace, seed: int) -> Iterator[dict[str, Any]]:
    """A model, the same with more good pictures, and one of all of them."""
    first, more = data.train.take(range(60)), data.train.take(range(PICTURES, PICTURES + MORE))
    model = kizu.detector(options.detector, image_size=options.size)
    fit_calibrated(model, first, seed=seed)
    yield {"case": "60", **measured(model, data.test)}
    update_calibrated(model, more, seed=seed)
    yield {"case": "60 + 20, cross", **measured(model, data.test)}
    model = fit_calibrated(model.clone(), first, seed=seed)
    update_calibrated(model, more, seed=seed, method="split")
    yield {"case": "60 + 20, split", **measured(model, data.test)}
    yield {"case": "80", **measured(fit_calibrated(model.clone(), first.concat(more), seed=seed), data.test)}


CASES = {"contamination": contamination, "product": product, "update": update}


def measured(model: Detector, test: Samples) -> dict[str, Any]:
    """Threshold and counts on labelled images."""
    flags, labels = model.predict(test).is_anomalous, test.labels
    assert flags is not None
    assert model.decision_ is not None  # calibrated
    flagged = flags.numpy()
    return {
        "rate": model.decision_.false_alarm_rate,
        "threshold": model.decision_.threshold,
        "good": int((labels == 0).sum()),
        "false_alarms": int(flagged[labels == 0].sum()),
        "flawed": int((labels == 1).sum()),
        "found": int(flagged[labels == 1].sum()),
    }


def spoken(model: Detector, images: Samples) -> dict[str, Any]:
    """Whether an inspection of these images says that they are of another product, or the promise broken."""
    seen = model.predict(images)
    assert seen.unlike is not None
    assert seen.is_anomalous is not None  # calibrated on images
    called, unlike, decision = int(seen.is_anomalous.sum()), int(seen.unlike.sum()), model.decision_
    return {
        "said_other": other_product(unlike, len(images), decision) is not None,
        "said_broken": broken_promise(called, len(images), decision, good=False) is not None,
    }


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows so far."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add the rows of one part, and the names of the columns where the file is new."""
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, FIELDS)
        if new:
            writer.writeheader()
        writer.writerows(rows)
        print(*(f"{row['part']} {row['product']} {row['seed']} {row['case']}" for row in rows), sep="\n")


if __name__ == "__main__":
    main()
