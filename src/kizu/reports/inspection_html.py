"""The result of inspecting unlabelled images as one HTML file: the most suspicious first, each with its
panel.

Reads the folder that `kizu inspect` wrote: results.jsonl, inspection.json and panels/. Nothing else on the
disk is opened, whatever the records say."""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import Any

from markupsafe import Markup

from kizu.errors import ImageError, LayoutError, UsageError
from kizu.images import open_image, resize_image
from kizu.reports import _svg
from kizu.reports._draw import figure, fit
from kizu.reports._page import photo_uri, render
from kizu.reports._run import number
from kizu.store import has_record, read_record, replacing

RECORD = "inspection.json"
_BYTES = 5_000_000
_WIDEST = 1320


def inspection_html(
    folder: Path | str, out: Path | str | None = None, *, limit: int = 200, title: str = "Inspection"
) -> Path:
    """Write the report of an inspection and return its path.

    folder: holds results.jsonl, one line per image {"path", "score", "p_value", "is_anomalous", "error",
    "panel"}; "panel" is the path of a PNG inside the folder. A line may also have a "name", what is shown of
    the path, and "regions", the flaw regions (kizu.regions). inspection.json may name the folders that were
    "passed_over", as [folder, reason], and have sentences under "warnings", which stand first. out: the file,
    by default report.html in the folder; an old one is replaced. limit: how many panels at most, the lowest
    p-values and then the highest scores first; the report says how many are not shown. Raises LayoutError
    when the folder is no such folder or results.jsonl is damaged."""
    if limit < 1:
        raise UsageError(f"inspection_html needs limit >= 1, got {limit}.")
    folder = Path(folder)
    records = _read(folder / "results.jsonl")
    read = sorted((r for r in records if number(r.get("score")) is not None), key=_suspicion)
    failed = [r for r in records if number(r.get("score")) is None]
    target = Path(out) if out is not None else folder / "report.html"
    page = render(
        "inspection.html.j2",
        title=title,
        verdict=_verdict(read, failed),
        warnings=_warnings(folder),
        histogram=_histogram(read),
        decided=any(r.get("is_anomalous") is not None for r in read),
        called=sum(r.get("is_anomalous") is True for r in read),
        cards=[
            _card(folder, rank, record, _BYTES // max(1, min(limit, len(read))))
            for rank, record in enumerate(read[:limit])
        ],
        total=len(read),
        errors=[(str(r.get("path", "")), str(r.get("error") or "no score")) for r in failed],
        passed_over=_passed_over(folder),
    )
    with replacing(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise LayoutError(
            f"{path.parent} has no results.jsonl. Give the folder that `kizu inspect ... -o OUT` wrote."
        )
    records = []
    for line, text in enumerate(path.read_text("utf-8").split("\n"), 1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except ValueError as error:
            raise LayoutError(
                f"{path}, line {line}, is damaged: it is not JSON ({error}). Inspect again."
            ) from error
        if not isinstance(record, dict):
            raise LayoutError(
                f"{path}, line {line}: an object was expected, got {type(record).__name__}. Inspect again."
            )
        records.append(record)
    return records


def _passed_over(folder: Path) -> list[tuple[str, str]]:
    """(folder, reason) of what was not looked into; none where no record says."""
    notes = read_record(folder, RECORD).get("passed_over") if has_record(folder, RECORD) else None
    pairs = (
        [note for note in notes if isinstance(note, list) and len(note) == 2]
        if isinstance(notes, list)
        else []
    )
    return [(str(place), str(reason)) for place, reason in pairs]


def _warnings(folder: Path) -> list[str]:
    """Sentences that the record has; none where it has none."""
    found = read_record(folder, RECORD).get("warnings") if has_record(folder, RECORD) else None
    return [str(one) for one in found] if isinstance(found, list) else []


def _suspicion(record: dict[str, Any]) -> tuple[float, float, str]:
    p_value = number(record.get("p_value"))
    return (
        2.0 if p_value is None else p_value,
        -(number(record.get("score")) or 0.0),
        str(record.get("path", "")),
    )


def _verdict(read: list[dict[str, Any]], failed: list[dict[str, Any]]) -> str:
    images = f"{len(read)} image{'' if len(read) == 1 else 's'}"
    decisions = [r.get("is_anomalous") for r in read]
    if not read:
        first = "No image could be inspected."
    elif any(d is None for d in decisions):
        first = f"{images} inspected. The detector is not calibrated: these are scores, not decisions."
    else:
        called = sum(d is True for d in decisions)
        first = f"Of {images}, {called or 'none'} {'was' if called == 1 else 'were'} called anomalous."
    verb = "was" if len(failed) == 1 else "were"
    files = f" {len(failed)} file{'' if len(failed) == 1 else 's'} {verb} not used." if failed else ""
    return first + files


def _histogram(read: list[dict[str, Any]]) -> Markup:
    normal, anomalous = (
        [float(r["score"]) for r in read if (r.get("is_anomalous") is True) is wanted]
        for wanted in (False, True)
    )
    return _svg.histogram(
        normal, anomalous, ("images called normal or not decided", "images called anomalous"), None
    )


def _card(folder: Path, rank: int, record: dict[str, Any], budget: int) -> dict[str, Any]:
    called, p_value, path = (
        record.get("is_anomalous"),
        number(record.get("p_value")),
        str(record.get("path", "")),
    )
    card = {
        "rank": rank,
        "path": path,
        "name": str(record.get("name") or PurePath(path).name or f"image {rank + 1}"),
        "regions": _regions(record),
        "score": float(record["score"]),
        "score_text": figure(float(record["score"])),
        "p_value": "" if p_value is None else figure(p_value, 3),
        "verdict": "not decided" if called is None else "anomalous" if called else "normal",
        "mistake": called is True,
    }
    return card | _panel(folder, record.get("panel"), budget)


def _regions(record: dict[str, Any]) -> list[str]:
    """Where the flaws are, a line for each region."""
    lines, regions = [], record.get("regions")
    for region in regions if isinstance(regions, list) else []:
        box = region.get("box") if isinstance(region, dict) else None
        if isinstance(box, list) and len(box) == 4 and all(number(side) is not None for side in box):
            lines.append(
                f"x {box[0]}, y {box[1]}, {box[2]} \u00d7 {box[3]}, peak {figure(number(region.get('peak')))}"
            )
    return lines


def _panel(folder: Path, name: Any, budget: int) -> dict[str, Any]:
    """The panel as a data URI. A path that leads out of the folder is not followed."""
    nothing: dict[str, Any] = {"uri": "", "wide": 1, "high": 1, "problem": "no panel was kept"}
    if not isinstance(name, str) or not name:
        return nothing
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return nothing
    try:
        image = open_image(path)
    except ImageError as error:
        return nothing | {"problem": error.reason}
    image = resize_image(image, fit(image.shape[:2], _WIDEST))
    return {
        "uri": photo_uri(image, budget),
        "wide": image.shape[1],
        "high": image.shape[0],
        "problem": "",
    }
