"""`kizu inspect`: a line of results for each image as it comes, a panel for each, and a page at the end."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from kizu import store
from kizu.apps._findings import Outputs, names_of, numbered, regions_of, stem_of, write_map, write_table
from kizu.apps._inspected import facts_of, summary, warnings_of
from kizu.apps._screen import Screen
from kizu.digests import file_digest
from kizu.errors import ImageError, LayoutError, OutputExists, UsageError, some
from kizu.image_files import Found, find_images
from kizu.images import open_image
from kizu.roi import open_region

if TYPE_CHECKING:
    from kizu.detectors.base import Detector
    from kizu.types import Prediction

RESULTS, RECORD = "results.jsonl", "inspection.json"
SHOWN = ("path", "score", "p_value", "is_anomalous", "error", "regions", "panel", "map")
"""Of a line, what --json prints."""
SAME = (
    ("model_digest", "of another model"),
    ("precision_asked", "in another --precision"),
    ("maps_asked", "with another --maps"),
    ("roi", "of another --roi"),
)
"""What an inspection that is gone on with was begun with, in the same words."""


@dataclass(frozen=True)
class _Place:
    """Where some images' files go. number: that of the first image."""

    out: Path
    outputs: Outputs
    number: int


def inspect_images(
    detector: Detector,
    digest: str,
    paths: list[Path],
    out: Path,
    *,
    outputs: Outputs,
    overwrite: bool,
    resume: bool,
    screen: Screen,
) -> int:
    """Write out/results.jsonl (a line an image, in the order given), out/panels/*.png and out/index.html,
    and what else of `outputs` is asked for.

    An image that cannot be read has a line too, with the reason under "error". After an interruption the
    lines written so far stay, and resume=True goes on with the other images, and with those whose files have
    changed since. digest: of the model's file; lines of another model, or of images that are not given, are
    not gone on with. Returns 1 if an image could not be read, else 0. Raises OutputExists, EmptyData,
    UsageError."""
    found = find_images(paths)
    files = found.images
    what: dict[str, Any] = {"model_digest": digest, "precision_asked": detector.precision}
    what |= {"maps_asked": outputs.maps, "roi": detector.parameters["roi"]}
    names = names_of([*files, *(path for path, _ in found.unused)])
    if resume and (out / RESULTS).exists():
        done = _rows_before(out, what, found, screen)
    else:
        done = _begin(out, what, overwrite)
    left = [path for path in files if str(path) not in done]
    shown: tuple[float, float] | None = detector.decision_.map_range if detector.decision_ else None
    broken: list[tuple[str, str]] = [(path, row["error"]) for path, row in done.items() if row["error"]]
    with (
        screen.progress(len(left)) as progress,
        (out / RESULTS).open("a", encoding="utf-8", buffering=1) as stream,
    ):
        number, at = _next_number(done), 0
        for chunk in _chunks(left, detector.batch_size):
            rows, errors, shown = _look(detector, chunk, names, _Place(out, outputs, number), shown)
            _write(rows, stream, screen)
            broken += errors
            number, at = number + len(chunk), at + len(chunk)
            progress(at, "inspecting images")
        told = {path for path, _ in broken}
        left_out = [(path, reason) for path, reason in found.unused if path not in told]
        _write({path: _failed(path, reason) for path, reason in left_out}, stream, screen)
        broken += left_out
    facts = facts_of(detector) | what | {"passed_over": found.passed_over}
    _conclude(detector, out, outputs, facts, shown, screen)
    screen.unused(broken)
    screen.passed_over(found.passed_over)
    return 1 if broken else 0


def _conclude(
    detector: Detector,
    out: Path,
    outputs: Outputs,
    facts: dict[str, Any],
    shown: tuple[float, float] | None,
    screen: Screen,
) -> None:
    """Write the page and the table, and say what was found: what is wrong with the batch comes first."""
    lines = store.read_rows(out / RESULTS)
    facts["warnings"] = warnings_of(lines, detector)
    page = _page(out, facts, shown)
    for warning in facts["warnings"]:
        screen.say(f"WARNING: {warning}")
    if outputs.table:
        screen.say(f"Table: {write_table(out, lines)}")
    screen.say(f"{summary(lines, detector)} Page: {page}")
    screen.say(f"Precision: {detector.precision_}." if detector.precision_ else "")


def _look(
    detector: Detector,
    chunk: list[Path],
    names: dict[str, str],
    place: _Place,
    shown: tuple[float, float] | None,
) -> tuple[dict[str, dict[str, Any]], list[tuple[str, str]], tuple[float, float] | None]:
    """(lines by path, files not used, display range) of some images. names: what is shown of their paths;
    place: where panels and maps go, with the number of the first."""
    errors: list[tuple[str, str]] = []
    rows: dict[str, dict[str, Any]] = {str(path): {} for path in chunk}
    for part in detector.predict_batches(chunk, errors=errors):
        shown = shown or _range(part)
        for index, path in enumerate(part.paths):
            row = _row(part, index, path) | {
                "name": names[path],
                "regions": regions_of(detector, part, index),
            }
            stem = stem_of(place.number + chunk.index(Path(path)), names[path])
            rows[path] = row | _files(detector, part, index, place, stem, names[path], shown)
    rows |= {path: _failed(path, reason) | {"sha256": file_digest(path)} for path, reason in errors}
    return rows, errors, shown


def _failed(path: str, reason: str) -> dict[str, Any]:
    """The line of an image that was not looked at."""
    empty = dict.fromkeys(("score", "p_value", "is_anomalous", "regions"))
    return {"path": path, **empty, "error": reason}


def _begin(out: Path, what: dict[str, Any], overwrite: bool) -> dict[str, dict[str, Any]]:
    """Make the output folder; no image is done. Raises OutputExists."""
    store.check_output(out, RECORD, overwrite=overwrite)
    store.remove_folder(out, RECORD)
    (out / "panels").mkdir(parents=True, exist_ok=True)
    store.write_record(out, RECORD, what)
    return {}


def _rows_before(out: Path, what: dict[str, Any], found: Found, screen: Screen) -> dict[str, dict[str, Any]]:
    """The rows that an interrupted run left, by path; a last one that is not whole is dropped, and those of
    files that have changed since.

    Raises OutputExists for a folder of something else, UsageError for another model, precision or other
    images, LayoutError for damage."""
    if not store.has_record(out, RECORD):
        raise OutputExists(out, f"its {RESULTS} is not beside an {RECORD} of kizu's")
    record = store.read_record(out, RECORD)
    for name, words in SAME:
        if record.get(name) != what[name]:
            raise UsageError(
                f"{out} holds results {words}, and one page shows those of one model, all made alike: give "
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


def _next_number(done: dict[str, dict[str, Any]]) -> int:
    """A number above those of all images before, whose panels and maps stay."""
    files = [row.get(kind) for row in done.values() for kind in ("panel", "map")]
    names = [re.match(r"(?:panels|maps)/(\d+)", str(name)) for name in files]
    return max([len(done), *(int(name[1]) + 1 for name in names if name)])


def _chunks(files: list[Path], size: int) -> Iterator[list[Path]]:
    step = max(size, 1) * 4
    for start in range(0, len(files), step):
        yield files[start : start + step]


def _range(part: Prediction) -> tuple[float, float]:
    """A display range from the first batch, for a model without calibration."""
    low, high = float(part.map.median()), float(part.map.max())
    return low, high if high > low else low + 1.0


def _row(part: Prediction, index: int, path: str) -> dict[str, Any]:
    return {
        "path": path,
        "score": float(part.score[index]),
        "p_value": None if part.p_value is None else float(part.p_value[index]),
        "is_anomalous": None if part.is_anomalous is None else bool(part.is_anomalous[index]),
        "error": None,
        "sha256": file_digest(path),
        "unlike": None if part.unlike is None else bool(part.unlike[index]),
    }


def _files(
    detector: Detector,
    part: Prediction,
    index: int,
    place: _Place,
    stem: str,
    name: str,
    shown: tuple[float, float],
) -> dict[str, str]:
    """Write the panel and the map that are asked for: what they are -> their names within the folder."""
    panel = _panel(detector, part, index, place.out, stem, name, shown) if place.outputs.panels else None
    kind = place.outputs.maps
    heat = write_map(place.out, stem, detector, part, index, kind) if kind else None
    return {what: file for what, file in (("panel", panel), ("map", heat)) if file}


def _panel(
    detector: Detector,
    part: Prediction,
    index: int,
    out: Path,
    stem: str,
    name: str,
    shown: tuple[float, float],
) -> str | None:
    from kizu.reports.panel import panel

    path, roi = part.paths[index], detector.roi
    reading = open_image if roi is None else functools.partial(open_region, roi=roi)
    try:
        image = reading(path, white_level=detector.white_level)
    except ImageError:
        return None  # gone since it was scored; its line stays
    drawn = panel(
        image,
        part.map[index].numpy(),
        map_range=shown,
        title=name,
        score=float(part.score[index]),
        p_value=None if part.p_value is None else float(part.p_value[index]),
        is_anomalous=None if part.is_anomalous is None else bool(part.is_anomalous[index]),
        regions=numbered(detector, part, index),
    )
    file = f"panels/{stem}.png"
    with store.replacing(out / file) as temporary:
        drawn.save(temporary, format="PNG")
    return file


def _write(rows: dict[str, dict[str, Any]], stream: TextIO, screen: Screen) -> None:
    for row in rows.values():
        stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        screen.line({key: row[key] for key in SHOWN if key in row})


def _page(out: Path, facts: dict[str, Any], shown: tuple[float, float] | None) -> Path:
    from kizu.reports.inspection_html import inspection_html

    store.write_record(out, RECORD, {**facts, "map_range": shown})
    return inspection_html(out, out / "index.html")
