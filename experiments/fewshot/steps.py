"""Contrastive fine-tuning along its steps: what each of its losses does to the AUROC, paired with the network
it starts from.

    python experiments/fewshot/steps.py [--data planted ksdd] [--variants bare con con+pp ...] [--shots 5 10]
    [--seeds 0 1 2] [--iterations 30] [--every 10] [--set name=value ...] [--data-root FOLDER] [--out FILE]

For every data set, number of good images and seed, and for each variant: the representation is adapted to
the drawn good images, and every few steps the detectors are fitted on the same images with the network as
it is by then. One row of the CSV a step and detector; step 0 is the network before any training. The last
step is what counts; the best one is an oracle. Started again, it goes on with what is missing. Choices are
made on planted products and KolektorSDD alone."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VARIANTS: dict[str, dict[str, Any]] = {
    "con": {"positives": "none"},
    "con+fc": {"positives": "fixed_centre"},
    "con+pp": {},
    "con+pp+np": {"negatives": "cutpaste"},
    "con+pp+np(image)": {"negatives": "cutpaste", "negative_of": "image"},
}
"""Table 5's rows, and the reading of Eq. 3 that plants into the image as it came."""
DETECTORS: dict[str, dict[str, Any]] = {
    "gaussian": {"copies": 10},
    "gaussian, no copies": {},
    "patchcore": {},
}
PLANTED = {"train": 30, "test_good": 30, "test_defective": 30, "seed": 7}
PRODUCTS = ("capsule", "circuit", "fabric", "gear", "leather")
FIELDS = (
    "data",
    "shots",
    "seed",
    "representation",
    "variant",
    "parameters",
    "step",
    "detector",
    "image_auroc",
    "seconds",
)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", nargs="+", default=["planted"], choices=["planted", "ksdd"])
    add("--products", nargs="+", default=list(PRODUCTS))
    add("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    add("--shots", nargs="+", type=int, default=[5])
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--iterations", type=int, default=30)
    add("--every", type=int, default=10)
    add("--image-size", type=int, default=256)
    add("--representation", default="imagenet/efficientnet_lite0@4")
    add("--set", nargs="*", default=[], help="parameters of the adaptation, name=value")
    add("--label", default="", help="said in the column variant beside its name")
    add("--data-root", type=Path, default=os.environ.get("KIZU_DATA"))
    add("--out", type=Path, default=ROOT / "runs" / "fewshot" / "steps.csv")
    return parser.parse_args(arguments)


def sets(options: argparse.Namespace) -> dict[str, Any]:
    """Samples by name."""
    import kizu

    found: dict[str, Any] = {}
    if "planted" in options.data:
        place = options.out.parent / "planted" / "_".join(options.products)
        every = kizu.dataset("planted", place, products=list(options.products), **PLANTED)
        found |= {f"planted {name}": every.where(category=name) for name in options.products}
    if "ksdd" in options.data:
        root = Path(options.data_root or ".") / "ksdd"
        found["ksdd"] = kizu.dataset("ksdd", root)
    return found


def rows_of(name: str, samples: Any, shots: int, seed: int, variant: str, options: argparse.Namespace) -> Any:
    """Rows of one adaptation, all of its steps."""
    import kizu
    from kizu.adaptation.base import adapt_to
    from kizu.metrics.image_metrics import image_metrics
    from kizu.protocols.few_shot import few_shot
    from kizu.training import FitOptions

    split = few_shot(samples, shots=shots, seed=seed, leak_safe=name == "ksdd")
    chosen = {**VARIANTS[variant], **dict(map(_value, options.set)), "iterations": options.iterations}
    rows: list[dict[str, Any]] = []
    clock = {"since": time.perf_counter(), "training": 0.0}

    def measure(step: int, net: Any) -> dict[str, float]:
        clock["training"] += time.perf_counter() - clock["since"] if step else 0.0
        for label, parameters in DETECTORS.items():
            detector = kizu.detector(
                label.partition(",")[0], net, image_size=options.image_size, **parameters
            ).fit(split.train)
            scores = detector.predict(split.test).score
            rows.append(
                {
                    "data": name,
                    "shots": shots,
                    "seed": seed,
                    "representation": options.representation,
                    "variant": variant + options.label,
                    "parameters": json.dumps(chosen, sort_keys=True),
                    "step": step,
                    "detector": label,
                    "image_auroc": round(image_metrics(scores, split.test.labels)["auroc"], 5),
                    "seconds": round(clock["training"], 1),
                }
            )
        clock["since"] = time.perf_counter()
        return {}

    base = kizu.representation(options.representation)
    measure(0, base)
    adaptation = kizu.Adaptation("fewshot_contrastive", chosen, seed)
    adapt_to(
        adaptation,
        base,
        split.train,
        image_size=options.image_size,
        options=FitOptions(evaluate=measure, evaluate_every=options.every, progress=lambda *_: None),
    )
    return rows


def _value(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing."""
    options = parsed(arguments)
    options.out = options.out.resolve()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    done: set[tuple[str, ...]] = set()
    if options.out.exists():
        with options.out.open(newline="", encoding="utf-8") as file:
            done = {
                (r["data"], r["shots"], r["seed"], r["representation"], r["variant"])
                for r in csv.DictReader(file)
            }
    for name, samples in sets(options).items():
        for shots in options.shots:
            for seed in options.seeds:
                for variant in options.variants:
                    key = (name, str(shots), str(seed), options.representation, variant + options.label)
                    if key in done:
                        continue
                    rows = rows_of(name, samples, shots, seed, variant, options)
                    fresh = not options.out.exists()
                    with options.out.open("a", newline="", encoding="utf-8") as file:
                        writer = csv.DictWriter(file, FIELDS)
                        if fresh:
                            writer.writeheader()
                        writer.writerows(rows)
                    say = ", ".join(
                        f"{r['step']}:{r['image_auroc']:.3f}" for r in rows if r["detector"] == "gaussian"
                    )
                    print(time.strftime("%H:%M:%S"), *key, say, f"{rows[-1]['seconds']} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
