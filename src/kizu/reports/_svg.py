"""Charts as inline SVG, coloured by the page's CSS (so they follow light and dark), light enough to mail.

Class names used: good, flawed (the two groups), axis, grid, mark, label. Every chart has a title and a
description for screen readers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

_BINS = 36


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def histogram(
    above: Sequence[float], below: Sequence[float], names: tuple[str, str], threshold: float | None
) -> Markup:
    """Two groups of scores, one counted upwards, one downwards, on one scale, with the threshold as a line.

    A long upper tail (largest more than 20 medians, all positive) is drawn on a logarithmic scale, and said
    so. Values that are not finite are left out. Returns an empty string when there is no score at all."""
    groups = [np.asarray(g, dtype=float) for g in (above, below)]
    groups = [g[np.isfinite(g)] for g in groups]
    every = np.concatenate(groups)
    if not every.size:
        return Markup("")
    marks = every if threshold is None else np.append(every, threshold)
    log = bool(marks.min() > 0 and every.max() > 20 * np.median(every))
    edges = _edges(marks, log)
    counts = [np.histogram(g, edges)[0] for g in groups]
    return _draw_histogram(counts, edges, names, threshold, log)


def _edges(values: NDArray[np.float64], log: bool) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 0.5 * max(1e-6, abs(low)), high + 0.5 * max(1e-6, abs(high))
    if log:
        return np.geomspace(low, high * (1 + 1e-9), _BINS + 1)
    margin = 0.02 * (high - low)
    return np.linspace(low - margin, high + margin, _BINS + 1)


def _draw_histogram(
    counts: list[NDArray],
    edges: NDArray[np.float64],
    names: tuple[str, str],
    threshold: float | None,
    log: bool,
) -> Markup:
    left, right, top, bottom, width = 40, 8, 26, 44, 1060
    tallest = [max(1, int(group.max())) if group.sum() else 0 for group in counts]
    unit = 170 / max(1, sum(tallest))
    middle = top + tallest[0] * unit
    height = top + sum(tallest) * unit + bottom
    floor = height - bottom

    def place(value: float) -> float:
        low, high, at = (math.log(v) if log else v for v in (edges[0], edges[-1], value))
        return left + (at - low) / (high - low) * (width - left - right)

    parts = [
        _grid_count(tallest, unit, middle, left, width - right),
        *_bars(counts, edges, place, middle, unit),
    ]
    parts.append(f'<line class="axis" x1="{left}" x2="{width - right}" y1="{middle:.1f}" y2="{middle:.1f}"/>')
    marks = _decades(edges) if log else ticks(float(edges[0]), float(edges[-1]), 9)
    parts += [_tick(place(mark), floor + 18, "middle", f"{mark:.4g}") for mark in marks]
    scale = "score (log scale), higher is more anomalous" if log else "score, higher is more anomalous"
    parts.append(_tick(f"{width - right}", height - 4, "end", scale))
    if threshold is not None:
        parts.append(_threshold(place(threshold), threshold, top, floor, width))
    groups = [f"{int(group.sum())} {name}" for group, name in zip(counts, names, strict=True) if group.sum()]
    tail = f"; threshold {threshold:.4g}" if threshold is not None else ""
    description = f"Scores of {' and '.join(groups)}{tail}."
    return svg(width, height, "Score histogram", description, parts, "chart hist")


def _bars(
    counts: list[NDArray],
    edges: NDArray[np.float64],
    place: Callable[[float], float],
    middle: float,
    unit: float,
) -> Iterator[str]:
    """The first group upwards from the middle, the second downwards."""
    for side, group in enumerate(counts):
        for index in np.flatnonzero(group):
            x, tall = place(edges[index]), group[index] * unit
            wide = max(1.0, place(edges[index + 1]) - x - 1)
            y = middle - tall if side == 0 else middle
            box = f'x="{x + 0.5:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{tall:.1f}"'
            yield f'<rect class="{("good", "flawed")[side]}" {box}/>'


def _tick(x: float | str, y: float | str, anchor: str, text: str) -> str:
    """A label of an axis; numbers are rounded to a tenth, texts stay as they are."""
    across, down = (value if isinstance(value, str) else f"{value:.1f}" for value in (x, y))
    return f'<text class="tick" x="{across}" y="{down}" text-anchor="{anchor}">{text}</text>'


def _grid_count(tallest: list[int], unit: float, middle: float, left: float, right: float) -> str:
    parts = []
    marks = ticks(0, max(1, *tallest), 4)
    step = max(1.0, marks[1] if len(marks) > 1 else 1.0)
    for side, most in enumerate(tallest):
        for tick in np.arange(0, most + 0.5, step):
            if tick or side == 0:
                y = middle - tick * unit if side == 0 else middle + tick * unit
                parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
                parts.append(_tick(f"{left - 8}", y + 4, "end", f"{int(tick)}"))
    return "".join(parts)


def _threshold(x: float, value: float, top: float, floor: float, width: float) -> str:
    end = x > width * 0.7
    anchor, shift = ("end", -6) if end else ("start", 6)
    return (
        f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 16:.1f}" y2="{floor:.1f}"/>'
        f'<text class="label" x="{x + shift:.1f}" y="{top - 8:.1f}" text-anchor="{anchor}">threshold '
        f"{value:.4g}</text>"
    )


def _decades(edges: NDArray[np.float64]) -> list[float]:
    low, high = math.floor(math.log10(edges[0])), math.ceil(math.log10(edges[-1]))
    every = [m * 10.0**p for p in range(low, high + 1) for m in (1, 2, 5)]
    inside = [v for v in every if edges[0] <= v <= edges[-1]]
    return (
        inside
        if len(inside) <= 10
        else [v for v in inside if math.isclose(math.log10(v) % 1, 0, abs_tol=1e-9)]
    )


def curve(
    title: str,
    xs: Sequence[float],
    ys: Sequence[float],
    labels: tuple[str, str],
    *,
    x_limit: float = 1.0,
    point: tuple[float, float] | None = None,
) -> Markup:
    """One curve in a square: x in [0, x_limit], y in [0, 1]. `point`: where the calibrated decision stands.
    Empty without points."""
    size, left, top, right = 216, 28, 8, 12
    inner = size - left - right

    def place(x: float, y: float) -> tuple[float, float]:
        return left + min(max(x / x_limit, 0.0), 1.0) * inner, top + (1 - min(max(y, 0.0), 1.0)) * inner

    pairs = zip(xs, ys, strict=False)
    limit = x_limit * (1 + 1e-9)
    path = thin([place(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y) and x <= limit])
    if len(path) < 2:
        return Markup("")
    parts = _curve_grid(place, x_limit, left, top, inner)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in path)
    parts.append(f'<polyline class="curve" points="{points}"/>')
    if point is not None:
        x, y = place(*point)
        parts.append(f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
    parts.append(_tick(f"{left + inner}", f"{top + inner + 32}", "end", escape(labels[0])))
    turn = f"translate({left - 12} {top + inner / 2}) rotate(-90)"
    parts.append(f'<text class="tick" transform="{turn}" text-anchor="middle">{escape(labels[1])}</text>')
    return svg(size, top + inner + 38, title, f"{labels[1]} against {labels[0]}.", parts)


def _curve_grid(
    place: Callable[[float, float], tuple[float, float]], x_limit: float, left: int, top: int, inner: int
) -> list[str]:
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = place(share * x_limit, share)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + inner}"/>')
        parts.append(f'<line class="grid" x1="{left}" x2="{left + inner}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if share in (0.0, 0.5, 1.0):
            parts.append(_tick(x, f"{top + inner + 16}", "middle", f"{share * x_limit:.3g}"))
        if share in (0.0, 1.0):
            parts.append(_tick(f"{left - 6}", y + 4, "end", f"{share:.0f}"))
    return parts


def thin(path: list[tuple[float, float]], tolerance: float = 0.15) -> list[tuple[float, float]]:
    """The same line with fewer points: none is farther than `tolerance` from the line that replaces it
    (Douglas and Peucker, 1973)."""
    if len(path) < 3:
        return path
    points = np.asarray(path)
    keep = np.zeros(len(points), dtype=bool)
    keep[[0, -1]] = True
    stack = [(0, len(points) - 1)]
    while stack:
        first, last = stack.pop()
        if last - first < 2:
            continue
        chord, inner = points[last] - points[first], points[first + 1 : last] - points[first]
        length = float(np.hypot(*chord))
        cross = np.abs(chord[0] * inner[:, 1] - chord[1] * inner[:, 0])
        off = cross / length if length > 0 else np.hypot(inner[:, 0], inner[:, 1])
        worst = int(off.argmax())
        if off[worst] > tolerance:
            keep[first + 1 + worst] = True
            stack += [(first, first + 1 + worst), (first + 1 + worst, last)]
    return [(float(x), float(y)) for x, y in points[keep]]


def svg(
    width: float, height: float, title: str, description: str, parts: list[str], kind: str = "chart"
) -> Markup:
    """The element around `parts`, with a title and a description for screen readers."""
    box, label = f"0 0 {width:.0f} {height:.0f}", f"{escape(title)}. {escape(description)}"
    head = f'<svg class="{kind}" viewBox="{box}" role="img" aria-label="{label}">'
    return Markup(f"{head}<title>{escape(title)}</title>{''.join(parts)}</svg>")
