"""What the commands do, each a few calls into the rooms; returns the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kizu
from kizu import registry
from kizu.apps._findings import Outputs
from kizu.apps._screen import Screen
from kizu.checks import image_size
from kizu.errors import EmptyData, UsageError, counted, listed_unused
from kizu.locks import locked
from kizu.masks import checked_rule
from kizu.outputs import check_output, refuse_inputs
from kizu.store import content_digest

if TYPE_CHECKING:
    from kizu.detectors.base import Detector
    from kizu.evaluation.run import Run
    from kizu.samples import Samples


def inspect(
    model: Path,
    paths: list[Path],
    out: Path,
    outputs: Outputs,
    precision: str | None,
    roi: str | None,
    *,
    overwrite: bool,
    resume: bool,
    as_json: bool,
) -> int:
    """`kizu inspect`."""
    from kizu.apps._inspect import inspect_images

    screen = Screen(as_json)
    refuse_inputs(out, [model, *paths])
    if not resume:
        check_output(out, "inspection.json", overwrite=overwrite)
    detector, digest = kizu.load(model, precision=precision, roi=roi), content_digest(model)
    with locked(out):
        return inspect_images(
            detector, digest, paths, out, outputs=outputs, overwrite=overwrite, resume=resume, screen=screen
        )


def evaluate(
    model: Path,
    data: Path,
    out: Path,
    dataset: str,
    category: str | None,
    mask_rule: str | None,
    use_masks: bool,
    allow_seen: bool,
    precision: str | None,
    overwrite: bool,
    as_json: bool,
) -> int:
    """`kizu evaluate`."""
    from kizu.evaluation.run import Run

    screen = Screen(as_json)
    check_output(out, "run.json", overwrite=overwrite, inputs=[model, data])
    detector = kizu.load(model, precision=precision)
    samples = read(dataset, data, category, mask_rule, use_masks=use_masks)
    refuse_inputs(out, samples.paths)
    _refuse_unlabelled(samples, data)
    test = samples.test if len(samples.test) else samples
    notes = [f"passed over: {folder} ({reason})" for folder, reason in samples.passed_over]
    unlabelled = int((test.labels == -1).sum())
    if unlabelled:
        notes.append(
            f"{counted(unlabelled, 'image carries', 'images carry')} no label: scored, but in no figure"
        )
    name = category or data.resolve().name
    protocol = "unified" if test.table["category"].n_unique() > 1 else "one_class"
    run = Run(
        name,
        protocol,
        dataset=dataset,
        category=category or "",
        command=screen.command,
        allow_seen=allow_seen,
        notes=notes,
    )
    return evaluate_and_report(detector, test, out, screen, run, overwrite=overwrite)


def evaluate_and_report(
    detector: Detector, test: Samples, out: Path, screen: Screen, run: Run, *, overwrite: bool
) -> int:
    """Run folder, report and the few numbers that a terminal shows."""
    from kizu.evaluation.measure import flatten
    from kizu.evaluation.run import evaluate
    from kizu.reports.html import html

    run.counts["train"] = detector.images_seen_
    with screen.progress(len(test)) as progress:
        metrics = evaluate(detector, test, out, run, overwrite=overwrite, progress=progress)
    report = html(out)
    flat = flatten(metrics)
    for warning in run.warnings:
        screen.say(f"WARNING: {warning}")
    screen.table(flat)
    each = [{"category": entry["category"], **flatten(entry)} for entry in metrics.get("categories", [])]
    for line in each:
        screen.say(
            f"{line['category']}: image AUROC {line['image_auroc']}, pixel AUROC {line['pixel_auroc']}, "
            f"AUPRO {line['aupro_0.3']}"
        )
    screen.say(f"Report: {report}")
    screen.say(f"Precision: {detector.precision_}." if detector.precision_ else "")
    screen.unused(run.errors)
    for note in run.notes:
        screen.say(f"Note: {note}.")
    flat |= {"categories": each} if each else {}
    flat |= {"precision": detector.precision_.facts() if detector.precision_ else None}
    flat |= {"seen": run.seen, "left_out": run.left_out, "notes": run.notes}
    flat |= {"warnings": run.warnings}
    screen.result({**flat, "run": str(out), "report": str(report), "errors": error_list(run.errors)})
    return 1 if run.errors else 0


def data_check(name: str, path: Path, category: str | None, mask_rule: str | None, as_json: bool) -> int:
    """`kizu data check`."""
    from kizu.datasets.checking import check

    registry.module("datasets", name)
    screen = Screen(as_json)
    with screen.progress(None) as progress:
        report = check(
            name,
            path,
            category=category,
            mask_rule=mask_rule,
            progress=lambda done, total: progress(done, f"opening {counted(total, 'image')}"),
        )
    for line in report.lines:
        screen.say(line, plain=True)
    screen.result({"ok": report.ok, "lines": list(report.lines)})
    return 0 if report.ok else 1


def read(
    dataset: str, path: Path, category: str | None, mask_rule: str | None = None, *, use_masks: bool = True
) -> Samples:
    """Samples of a data set on disk, one category of it when asked for, its masks read by `mask_rule` if
    named, or left aside. Raises UsageError for masks to be left aside where the data set cannot."""
    known = signature(registry.load("datasets", dataset)).parameters
    if not use_masks and "use_masks" not in known:
        raise UsageError(f"--no-masks is for the data set folder; {dataset} is read as it was published.")
    if not use_masks and mask_rule:
        raise UsageError("--mask-rule has no effect with --no-masks: leave one of them away.")
    filters: dict[str, Any] = {} if use_masks else {"use_masks": False}
    keyword = getattr(registry.module("datasets", dataset), "CATEGORY_KEYWORD", None)
    if category and keyword:  # a large set, of which the one category alone is made into files
        filters[keyword] = category
    samples = kizu.dataset(dataset, path, **filters)
    samples = samples.read_masks_by(checked_rule(mask_rule)) if mask_rule else samples
    return samples.where(category=category) if category and not keyword else samples


def training(samples: Samples) -> Samples:
    """The good images of the training split, or all good images where there is no split.

    Raises EmptyData, and says what there is: an image of the test split is never learned from."""
    good = samples.to_learn.normal
    if len(good):
        return good
    tested, flawed = len(samples.test), len(samples.to_learn.anomalous)
    if tested and not len(samples.train):
        raise EmptyData(
            f"All {tested} images are of the split test, which is never learned from. Put good parts into "
            f"train/good/.{_aside(samples)}"
        )
    raise EmptyData(
        f"There are no good images to learn from among these {len(samples)} ({flawed} flawed ones, {tested} "
        f"to test on): put good parts into a folder of their own, or into one called good/.{_aside(samples)}"
    )


def _aside(samples: Samples) -> str:
    return f" {listed_unused(samples.unused, 3)}." if samples.unused else ""


def _refuse_unlabelled(samples: Samples, data: Path) -> None:
    """Raise UsageError for a folder of images only: nothing says which of them are good."""
    if data.is_dir() and {Path(path).parent for path in samples.paths} == {data.absolute()}:
        raise UsageError(
            f"{data} holds images only, so nothing says which are good and which are flawed. Put them in "
            "good/ and a folder for each defect (good/ alone measures false alarms), or use `kizu inspect`."
        )


def error_list(errors: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Unreadable files as JSON has them."""
    return [{"path": path, "error": reason} for path, reason in errors]


def image_size_from(text: str) -> tuple[int, int]:
    """ "224" or "448,192" -> (H, W)."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts) or len(parts) > 2:
        raise UsageError(f"--image-size is 224 or 448,192 (height, width), got '{text}'.")
    return image_size((int(parts[0]), int(parts[-1])))
