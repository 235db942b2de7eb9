"""A contact sheet of a run: image, true defect, heat map, decision; the worst mistakes first.

One PNG for a slide or a mail. It says how many images it leaves out.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

from PIL import Image, ImageDraw

from kizu.errors import EmptyData, UsageError
from kizu.reports._draw import (
    INK,
    PAPER,
    RULE,
    SOFT,
    colour_bar,
    figure,
    font,
    frame,
    made_by_kizu,
    panel_images,
    shorten,
)
from kizu.reports._run import MISTAKES, Run, open_run, worst_first
from kizu.store import replacing

_MARGIN, _GAP, _TEXT, _HEAD = 28, 12, 250, 118
_LABELS = ("image", "true defect", "heat map", "decision")


def contact_sheet(
    run_folder: Path | str, out: Path | str | None = None, *, limit: int = 24, longest: int = 168
) -> Path:
    """Write the contact sheet of a run folder and return its path.

    out: a PNG, by default contact_sheet.png in the run folder; an old one is replaced. limit: how many images
    at most, at least 1. longest: pixels of an image's longer side. Order: false alarms (highest score first)
    and missed flaws (lowest first) in turn, then the rest, nearest to the threshold first. Raises LayoutError
    when the folder is no run folder, EmptyData without images."""
    if limit < 1 or longest < 16:
        raise UsageError(f"contact_sheet needs limit >= 1 and longest >= 16, got {limit} and {longest}.")
    with open_run(run_folder) as run:
        ranked = worst_first(run)
        if ranked.is_empty():
            raise EmptyData(f"{run_folder} holds no test images; there is nothing to show.")
        chosen = list(ranked.head(limit).iter_rows(named=True))
        sheet = _sheet(run, chosen, longest)
    target = Path(out) if out is not None else Path(run_folder) / "contact_sheet.png"
    with replacing(target) as temporary:
        sheet.save(temporary, "PNG", pnginfo=made_by_kizu())
    return target


def _sheet(run: Run, chosen: list[dict[str, Any]], longest: int) -> Image.Image:
    wide = 2 * _MARGIN + _TEXT + len(_LABELS) * (longest + _GAP)
    strips = [_strip(run, sample, longest, wide) for sample in chosen]
    columns = 1 if len(strips) <= 6 else 2
    lines = [strips[first : first + columns] for first in range(0, len(strips), columns)]
    sheet = Image.new(
        "RGB", (columns * wide, _HEAD + sum(max(s.height for s in line) for line in lines) + _MARGIN), PAPER
    )
    pen = ImageDraw.Draw(sheet)
    title = str(run.info.get("name") or run.folder.name)
    pen.text(
        (_MARGIN, _MARGIN - 6), shorten(title, font(22, True), sheet.width - 2 * _MARGIN), INK, font(22, True)
    )
    pen.text((_MARGIN, _MARGIN + 26), _statement(run, len(chosen)), SOFT, font(13))
    _legend(sheet, pen, run.map_range, _HEAD - 24)
    for column in range(columns):
        for index, label in enumerate(_LABELS):
            pen.text(
                (column * wide + _MARGIN + _TEXT + index * (longest + _GAP), _HEAD - 24),
                label,
                SOFT,
                font(13),
            )
    top = _HEAD
    for line in lines:
        for column, strip in enumerate(line):
            sheet.paste(strip, (column * wide, top))
        top += max(strip.height for strip in line)
    return sheet


def _statement(run: Run, shown: int) -> str:
    left, mistakes = run.samples.height - shown, run.samples["verdict"].is_in(MISTAKES).sum()
    missing = "all of them shown" if left == 0 else f"{shown} shown, {left} not shown"
    return f"{run.samples.height} test images, {mistakes} wrongly decided; {missing}. Worst first."


def _legend(sheet: Image.Image, pen: ImageDraw.ImageDraw, map_range: tuple[float, float], top: int) -> None:
    low, high = figure(map_range[0], 3), figure(map_range[1], 3)
    bar, small = colour_bar(90, 10), font(13)
    start = _MARGIN + round(small.getlength(low)) + 6
    pen.text((_MARGIN, top), low, SOFT, small)
    sheet.paste(bar, (start, top + 4))
    pen.text((start + bar.width + 6, top), high, SOFT, small)


def _strip(run: Run, sample: dict[str, Any], longest: int, width: int) -> Image.Image:
    image = run.image(sample["row"])
    shown = (
        None
        if image is None
        else panel_images(image, run.heat(sample["row"]), run.mask(sample["row"]), run.map_range, longest)
    )
    high = 90 if shown is None else max(90, shown.image.shape[0])
    strip = Image.new("RGB", (width, high + 2 * _GAP), PAPER)
    pen = ImageDraw.Draw(strip)
    pen.line((_MARGIN, 0, width - _MARGIN, 0), RULE)
    name = PurePath(sample["image"]).name
    lines = [
        (sample["verdict"], font(15, True), INK),
        (name, font(13), INK),
        (sample["defect"] or "", font(13), SOFT),
    ]
    p_value = "" if sample["p_value"] is None else f"   p {figure(sample['p_value'], 3)}"
    lines.append((f"score {figure(sample['score'])}{p_value}", font(13), SOFT))
    for index, (text, face, ink) in enumerate(lines):
        pen.text((_MARGIN, _GAP + index * 21), shorten(text, face, _TEXT - 20), ink, face)
    if shown is None:
        pen.text((_MARGIN + _TEXT, _GAP), "no image kept", SOFT, font(13))
        return strip
    tiles = (shown.image, shown.truth, shown.heat, shown.decision)
    for index, tile in enumerate(tiles):
        left = _MARGIN + _TEXT + index * (longest + _GAP)
        if tile is None:
            pen.text((left, _GAP), "none" if index == 1 else "no map kept", SOFT, font(13))
            continue
        strip.paste(frame(tile, sample["is_anomalous"] if index == 3 else None), (left, _GAP))
    return strip
