"""`kizu demo`: the main job, whole, on images that kizu draws itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kizu
from kizu.apps._commands import evaluate_and_report
from kizu.apps._fit import default_notice, promise
from kizu.apps._screen import Screen
from kizu.errors import OutputExists
from kizu.locks import locked

FULL: dict[str, Any] = {"products": ("capsule", "metal", "circuit"), "size": 256, "train": 60}
QUICK: dict[str, Any] = {"products": ("capsule",), "size": 128, "train": 40}
FALSE_ALARM_RATE = 0.05


def demo(out: Path, quick: bool, overwrite: bool, as_json: bool) -> int:
    """Draw products with planted defects, learn from the good ones, promise a false-alarm rate, test, report.

    out/data holds the images, out/<product>/model.kizu the models, out/<product>/run/report.html the
    reports."""
    screen = Screen(as_json)
    if out.exists() and not overwrite and not (out.is_dir() and not any(out.iterdir())):
        raise OutputExists(out)
    with locked(out):
        return _demo(out, QUICK if quick else FULL, overwrite, screen)


def _demo(out: Path, scale: dict[str, Any], overwrite: bool, screen: Screen) -> int:
    from kizu.evaluation.calibrated import fit_calibrated
    from kizu.evaluation.run import Run
    from kizu.training import FitOptions

    products, size, train = scale["products"], scale["size"], scale["train"]
    screen.say(f"Drawing {', '.join(products)}: {train} good images each to learn from, 50 to test on ...")
    samples = kizu.dataset(
        "planted", out / "data", products=products, train=train, test_good=20, test_defective=30, size=size
    )
    screen.say(default_notice())
    worst = 0
    for product in products:
        chosen = samples.where(category=product)
        model = kizu.detector("patchcore", image_size=size)
        with screen.progress(len(chosen.train)) as progress:
            options = FitOptions(progress=progress)
            fit_calibrated(model, chosen.train, false_alarm_rate=FALSE_ALARM_RATE, options=options)
        folder = out / product
        model.save(folder / "model.kizu", overwrite=overwrite)
        screen.say(f"\n{product}: {promise(model)}")
        run = Run(f"demo: {product}", dataset="planted", category=product, command=screen.command)
        code = evaluate_and_report(model, chosen.test, folder / "run", screen, run, overwrite=overwrite)
        worst = max(worst, code)
    screen.say(
        f"\nNext: kizu inspect {out / products[0] / 'model.kizu'} {out / 'data' / products[0] / 'test'} -o "
        f"{out / 'inspected'}"
    )
    return worst
