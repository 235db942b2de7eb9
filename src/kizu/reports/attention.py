"""Attention maps side by side: the nearest good image, the flawed one, and what sets them apart for each
representation.

The rows of Fig. 11 of SPot-the-Difference's supplement. A map is drawn in units of its own peak: gradients of
two networks share no scale."""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from kizu.errors import LayoutError, UsageError
from kizu.images import resize_image
from kizu.masks import resize_mask
from kizu.reports._draw import INK, PAPER, SOFT, figure, fit, font, made_by_kizu, shorten
from kizu.reports._heat import draw_outline, overlay, resize_map
from kizu.reports._page import photo_uri, render
from kizu.store import replacing

_MARGIN, _GAP, _TEXT, _HEAD, _FOOT = 24, 10, 190, 74, 20
_KEYS = ("representations", "image_size", "columns", "share_inside", "area")
_ARRAYS = ("images", "normals", "masks", "maps")


def attention(folder: Path | str, *, limit: int = 8, longest: int = 160) -> Path:
    """Write attention.png and attention.html into a folder that `kizu attention` wrote; returns the page.

    limit: how many images are shown at most, taken evenly from all. longest: pixels of an image's longer
    side. Raises LayoutError when the folder is another's."""
    if limit < 1 or longest < 16:
        raise UsageError(f"attention needs limit >= 1 and longest >= 16, got {limit} and {longest}.")
    folder = Path(folder)
    info, arrays = _opened(folder)
    sheet = _sheet(info, arrays, limit, longest)
    with replacing(folder / "attention.png") as temporary:
        sheet.save(temporary, "PNG", pnginfo=made_by_kizu())
    with replacing(folder / "attention.html") as temporary:
        temporary.write_text(render("attention.html.j2", **_content(info, sheet, limit)), encoding="utf-8")
    return folder / "attention.html"


def _opened(folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    try:
        info = json.loads((folder / "attention.json").read_text("utf-8"))
        with np.load(folder / "attention.npz", allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in _ARRAYS}
        n, (high, wide) = len(info["columns"]), info["image_size"]
        shapes = [
            (n, high, wide, 3),
            (n, high, wide, 3),
            (n, high, wide),
            (len(info["representations"]), n, high, wide),
        ]
        whole = all(name in info for name in _KEYS) and [arrays[name].shape for name in _ARRAYS] == shapes
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LayoutError(
            f"{folder} holds no attention maps ({error}). `kizu attention` writes them."
        ) from error
    if not whole:
        raise LayoutError(
            f"{folder} is damaged: attention.json and attention.npz do not fit together. Run `kizu "
            "attention` again."
        )
    return info, arrays


def _sheet(info: dict[str, Any], arrays: dict[str, NDArray[Any]], limit: int, longest: int) -> Image.Image:
    """Rows of images, one column for each flawed image; the columns are taken evenly from all."""
    total, labels = len(info["columns"]), info["representations"]
    count = min(limit, total)
    shown = sorted({place * total // count for place in range(count)})
    high, wide = fit(tuple(info["image_size"]), longest)
    step = high + _FOOT + _GAP
    lefts = [_MARGIN + _TEXT + index * (wide + _GAP) for index in range(len(shown))]
    size = (lefts[-1] + wide + _MARGIN, _HEAD + (2 + len(labels)) * step + _MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    _write_labels(pen, info, len(shown), step)
    for left, place in zip(lefts, shown, strict=True):
        for line, (tile, words) in enumerate(_tiles(info, arrays, place, (high, wide))):
            top = _HEAD + line * step
            sheet.paste(Image.fromarray(tile), (left, top))
            pen.text((left, top + high + 2), shorten(words, font(12), wide), SOFT, font(12))
    return sheet


def _write_labels(pen: ImageDraw.ImageDraw, info: dict[str, Any], shown: int, step: int) -> None:
    """Title, and on the left what each row holds."""
    title = "What sets a flawed image apart from its nearest good one"
    pen.text((_MARGIN, _MARGIN - 6), title, INK, font(18, True))
    counted = f"{_counted(info, shown)} Each map in units of its own peak."
    pen.text((_MARGIN, _MARGIN + 20), counted, SOFT, font(12))
    for line, label in enumerate(["nearest good", "flawed, outlined", *info["representations"]]):
        top = _HEAD + line * step
        pen.text((_MARGIN, top), shorten(label, font(14, True), _TEXT - 14), INK, font(14, True))
        if line > 1:
            words = _share_in_words(info["share_inside"][label], info["area"])
            pen.text((_MARGIN, top + 20), words, SOFT, font(12))


def _tiles(
    info: dict[str, Any], arrays: dict[str, NDArray[Any]], place: int, size: tuple[int, int]
) -> list[tuple[NDArray[np.uint8], str]]:
    """The images of one column with the words beneath them, from top to bottom."""
    column = info["columns"][place]
    good, flawed = (resize_image(arrays[name][place], size) for name in ("normals", "images"))
    mask = resize_mask(arrays["masks"][place], size)
    tiles = [(good, ""), (_outlined(flawed, mask), column["defect"] or "")]
    for number, label in enumerate(info["representations"]):
        unit = np.clip(resize_map(arrays["maps"][number, place].astype(np.float32), size), 0, 1)
        share = column["looks"][label]["share_inside"]
        words = "" if share is None else f"{100 * share:.0f} % in the flaw"
        tiles.append((_outlined(overlay(flawed, unit), mask), words))
    return tiles


def _outlined(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return draw_outline(image, mask) if mask.any() else image


def _counted(info: dict[str, Any], shown: int) -> str:
    total = len(info["columns"])
    return f"{total} flawed images" + ("." if shown == total else f", {shown} of them shown.")


def _share_in_words(share: float | None, area: float | None) -> str:
    """In words how much of the maps lies in the flaws; chance is the flaws' share of the images."""
    return "" if share is None or area is None else f"{100 * share:.1f} % in flaws (area {100 * area:.1f} %)"


def _content(info: dict[str, Any], sheet: Image.Image, limit: int) -> dict[str, Any]:
    labels = info["representations"]
    rows = []
    for column in info["columns"]:
        looks = [column["looks"][label] for label in labels]
        figures = [(figure(look["similarity"]), _percent(look["share_inside"])) for look in looks]
        names = (PurePath(column["image"]).name, PurePath(column["normal"]).name)
        rows.append(
            {
                "image": names[0],
                "normal": names[1],
                "defect": column["defect"] or "",
                "area": _percent(column["area"]),
                "looks": figures,
            }
        )
    return {
        "title": "Attention to what is different",
        "counted": _counted(info, min(limit, len(info["columns"]))),
        "labels": labels,
        "means": [_percent(info["share_inside"][label]) for label in labels],
        "area": _percent(info["area"]),
        "level": info.get("level"),
        "rows": rows,
        "uri": photo_uri(np.asarray(sheet), 3_000_000),
        "wide": sheet.width,
        "high": sheet.height,
    }


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
