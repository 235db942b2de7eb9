"""`kizu inspect`: a line of results for each image as it comes, a panel for each, and a page at the end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from kizu import store
from kizu.apps._screen import Screen
from kizu.digests import file_digest
from kizu.errors import ImageError, LayoutError, OutputExists, UsageError, counted, some
from kizu.image_files import Found, find_images
from kizu.images import open_image

if TYPE_CHECKING:
    from kizu.detectors.base import Detector
    from kizu.types import Prediction

RESULTS, RECORD = "results.jsonl", "inspection.json"


def inspect_images(
    detector: Detector,
    digest: str,
    paths: list[Path],
    out: Path,
    *,
    panels: bool,
    overwrite: bool,
    resume: bool,
    screen: Screen,
) -> int:
    """Write out/results.jsonl (a line an image, in the order given), out/panels/*.png and out/index.html.

    An image that cannot be read has a line too, with the reason under "error". After an interruption the
    lines written so far stay, and resume=True goes on with the other images, and with those whose files have
    changed since. digest: of the model's file; lines of another model, or of images that are not given, are
    not gone on with. Returns 1 if an image could not be read, else 0. Raises OutputExists, EmptyData,
    UsageError."""
    found = find_images(paths)
    files = found.images
    what = {"model_digest": digest, "precision_asked": detector.precision}
    if resume and (out / RESULTS).exists():
        done = _rows_before(out, what, found, screen)
    else:
        done = _begin(out, what, overwrite)
    left = [path for path in files if str(path) not in done]
    shown: tuple[float, float] | None = detector.decision_.map_range if detector.decision_ else None
    broken: list[tuple[str, str]] = [(path, row["error"]) for path, row in done.items() if row["error"]]
    facts: dict[str, Any] = {
        "model": detector.parameters,
        **what,
        "detector": type(detector).__name__,
        "calibration": detector.decision_.facts() if detector.decision_ else None,
    }
    with (
        screen.progress(len(left)) as progress,
        (out / RESULTS).open("a", encoding="utf-8", buffering=1) as stream,
    ):
        number, at = _next_panel(done), 0
        for chunk in _chunks(left, detector.batch_size):
            rows, errors, shown = _look(detector, chunk, out if panels else None, number, shown)
            _write(rows, stream, screen)
            broken += errors
            number, at = number + len(chunk), at + len(chunk)
            progress(at, "inspecting images")
        told = {path for path, _ in broken}
        left_out = [(path, reason) for path, reason in found.unused if path not in told]
        _write({path: _failed(path, reason) for path, reason in left_out}, stream, screen)
        broken += left_out
    facts["passed_over"] = found.passed_over
    facts["precision"] = detector.precision_.facts() if detector.precision_ else None
    facts["warnings"] = _warnings(out, detector)
    page = _page(out, facts, shown)
    for warning in facts["warnings"]:
        screen.say(f"WARNING: {warning}")
    screen.say(f"{_summary(out, len(files), detector)} Page: {page}")
    screen.say(f"Precision: {detector.precision_}." if detector.precision_ else "")
    screen.unused(broken)
    screen.passed_over(found.passed_over)
    return 1 if broken else 0


def _look(
    detector: Detector, chunk: list[Path], out: Path | None, number: int, shown: tuple[float, float] | None
) -> tuple[dict[str, dict[str, Any]], list[tuple[str, str]], tuple[float, float] | None]:
    """(lines by path, files not used, display range) of some images. out: where panels go, None for none;
    number: that of the first panel."""
    errors: list[tuple[str, str]] = []
    rows: dict[str, dict[str, Any]] = {str(path): {} for path in chunk}
    for part in detector.predict_batches(chunk, errors=errors):
        shown = shown or _range(part)
        for index, path in enumerate(part.paths):
            at = number + chunk.index(Path(path))
            panel_name = _panel(part, index, out, at, shown, detector.white_level) if out else None
            rows[path] = _row(part, index, path, panel_name)
    rows |= {path: _failed(path, reason) | {"sha256": file_digest(path)} for path, reason in errors}
    return rows, errors, shown


def _failed(path: str, reason: str) -> dict[str, Any]:
    """The line of an image that was not looked at."""
    return {"path": path, "score": None, "p_value": None, "is_anomalous": None, "error": reason}


def _begin(out: Path, what: dict[str, str], overwrite: bool) -> dict[str, dict[str, Any]]:
    """Make the output folder; no image is done. Raises OutputExists."""
    store.check_output(out, RECORD, overwrite=overwrite)
    store.remove_folder(out, RECORD)
    (out / "panels").mkdir(parents=True, exist_ok=True)
    store.write_record(out, RECORD, what)
    return {}


def _rows_before(out: Path, what: dict[str, str], found: Found, screen: Screen) -> dict[str, dict[str, Any]]:
    """The rows that an interrupted run left, by path; a last one that is not whole is dropped, and those of
    files that have changed since.

    Raises OutputExists for a folder of something else, UsageError for another model, precision or other
    images, LayoutError for damage."""
    if not store.has_record(out, RECORD):
        raise OutputExists(out, f"its {RESULTS} is not beside an {RECORD} of kizu's")
    record = store.read_record(out, RECORD)
    for name, words in (("model_digest", "of another model"), ("precision_asked", "in another --precision")):
        if record.get(name) != what[name]:
            raise UsageError(
                f"{out} holds results {words}, and one page shows those of one model in one precision: give "
                "another -o, or say --overwrite without --resume to inspect all images anew."
            )
    rows = store.read_rows(out / RESULTS)
    if not all(isinstance(row.get("path"), str) and "error" in row for row in rows):
        raise LayoutError(f"{out / RESULTS} is damaged: a line is of no image. Begin anew, with --overwrite.")
    _refuse_other_images(out, rows, found)
    whole = [row for row in rows if not _has_changed(row)]
    if len(whole) < len(rows):
        screen.say(f"Files that have changed since, inspected anew: {len(rows) - len(whole)}.")
    with store.replacing(out / RESULTS) as temporary:
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in whole), "utf-8")
    return {row["path"]: row for row in whole}


def _refuse_other_images(out: Path, rows: list[dict[str, Any]], found: Found) -> None:
    """Raise UsageError when there are lines of images that are not given now; one whose file is gone is
    no matter."""
    given = {str(path) for path in found.images} | {path for path, _ in found.unused}
    others = [row["path"] for row in rows if row["path"] not in given and Path(row["path"]).exists()]
    if others:
        raise UsageError(
            f"{out} holds results of images that are not given now ({some(others, 2)}), and one page shows "
            "those of one list. Give them too, or another -o, or say --overwrite without --resume."
        )


def _has_changed(row: dict[str, Any]) -> bool:
    """Whether a file is there and is not the one that was inspected."""
    return "sha256" in row and file_digest(row["path"]) not in (row["sha256"], None)


def _next_panel(done: dict[str, dict[str, Any]]) -> int:
    """A number above those of all images before, whose panels stay."""
    names = [re.fullmatch(r"panels/(\d+)\.png", str(row.get("panel"))) for row in done.values()]
    return max([len(done), *(int(name[1]) + 1 for name in names if name)])


def _chunks(files: list[Path], size: int) -> Iterator[list[Path]]:
    step = max(size, 1) * 4
    for start in range(0, len(files), step):
        yield files[start : start + step]


def _range(part: Prediction) -> tuple[float, float]:
    """A display range from the first batch, for a model without calibration."""
    low, high = float(part.map.median()), float(part.map.max())
    return low, high if high > low else low + 1.0


def _row(part: Prediction, index: int, path: str, panel_name: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "path": path,
        "score": float(part.score[index]),
        "p_value": None if part.p_value is None else float(part.p_value[index]),
        "is_anomalous": None if part.is_anomalous is None else bool(part.is_anomalous[index]),
        "error": None,
        "sha256": file_digest(path),
        "unlike": None if part.unlike is None else bool(part.unlike[index]),
    }
    return {**row, "panel": panel_name} if panel_name else row


def _panel(
    part: Prediction,
    index: int,
    out: Path,
    number: int,
    shown: tuple[float, float],
    white_level: int | None,
) -> str | None:
    from kizu.reports.panel import panel

    path = part.paths[index]
    try:
        image = open_image(path, white_level=white_level)
    except ImageError:
        return None  # gone since it was scored; its line stays
    panel_name = panel(
        image,
        part.map[index].numpy(),
        map_range=shown,
        title=Path(path).name,
        score=float(part.score[index]),
        p_value=None if part.p_value is None else float(part.p_value[index]),
        is_anomalous=None if part.is_anomalous is None else bool(part.is_anomalous[index]),
    )
    name = f"panels/{number:06d}.png"
    (out / "panels").mkdir(exist_ok=True)
    with store.replacing(out / name) as temporary:
        panel_name.save(temporary, format="PNG")
    return name


def _write(rows: dict[str, dict[str, Any]], stream: TextIO, screen: Screen) -> None:
    for row in rows.values():
        stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        screen.line({key: row[key] for key in ("path", "score", "p_value", "is_anomalous", "error")})


def _page(out: Path, facts: dict[str, Any], shown: tuple[float, float] | None) -> Path:
    from kizu.reports.inspection_html import inspection_html

    store.write_record(out, RECORD, {**facts, "map_range": shown})
    return inspection_html(out, out / "index.html")


def _warnings(out: Path, detector: Detector) -> list[str]:
    """What makes these results doubtful; another product comes first."""
    from kizu.evaluation.promises import broken_promise, other_product

    rows = [row for row in store.read_rows(out / RESULTS) if row["score"] is not None]
    known = [bool(row["unlike"]) for row in rows if row.get("unlike") is not None]
    called = sum(bool(row["is_anomalous"]) for row in rows)
    other = other_product(sum(known), len(known), detector.decision_)
    broken = None if other else broken_promise(called, len(rows), detector.decision_, good=False)
    return [sentence for sentence in (other, broken) if sentence]


def _summary(out: Path, images: int, detector: Detector) -> str:
    if detector.decision_ is None:
        return (
            f"{counted(images, 'image')} scored, none decided: the model is not calibrated. `kizu calibrate "
            "MODEL GOOD`, with good images that it has not learned from, gives it a decision."
        )
    called = sum(bool(row["is_anomalous"]) for row in store.read_rows(out / RESULTS))
    return f"{counted(images, 'image')}, {called} called anomalous."
