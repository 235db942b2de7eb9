"""Several named lines in one chart, as inline SVG coloured by the page's CSS; and a square of values as an
image.

Class names used: line s0 ... s8 (the lines, in order), grid, tick.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from kizu.reports._heat import colour
from kizu.reports._svg import svg, thin, ticks

SERIES = 9
"""Lines that have a colour of their own in the style sheet."""
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 520, 300, 52, 10, 12, 40

Line = tuple[Sequence[float], Sequence[float]]
Place = Callable[[float, float], tuple[float, float]]


def lines(
    title: str, given: Mapping[str, Line], labels: tuple[str, str], *, order: Sequence[str] = ()
) -> Markup:
    """A chart of lines by name, each (xs, ys); points that are not finite are left out. Empty when no line
    has a point.

    labels: of the axes. order: all names of the page, so that a name has one colour in every chart. A line of
    one point is a dot."""
    names = list(order) or list(given)
    points = {
        name: [(x, y) for x, y in zip(*line, strict=True) if math.isfinite(x) and math.isfinite(y)]
        for name, line in given.items()
    }
    every = [point for path in points.values() for point in path]
    if not every:
        return Markup("")
    (left, right), (low, high) = _span([x for x, _ in every]), _span([y for _, y in every])

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (x - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT),
            _TOP + (high - y) / (high - low) * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = _axes(place, (left, right), (low, high), labels)
    for name, path in points.items():
        kind, tooltip = f"line s{names.index(name) % SERIES}", f"<title>{escape(name)}</title>"
        drawn = thin([place(*point) for point in path])
        if len(drawn) == 1:
            parts.append(
                f'<circle class="{kind}" cx="{drawn[0][0]:.1f}" cy="{drawn[0][1]:.1f}" r="3">'
                f"{tooltip}</circle>"
            )
        elif drawn:
            joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
            parts.append(f'<polyline class="{kind}" points="{joined}">{tooltip}</polyline>')
    return svg(_WIDTH, _HEIGHT, title, f"{labels[1]} against {labels[0]} of {', '.join(given)}.", parts)


def _span(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.03 * (high - low) or max(abs(high), 1.0) * 0.05
    return low - margin, high + margin


def _axes(
    place: Place, across: tuple[float, float], upward: tuple[float, float], labels: tuple[str, str]
) -> list[str]:
    floor, parts = _HEIGHT - _BOTTOM, []
    for x in ticks(*across, 6):
        at = place(x, upward[0])[0]
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{floor}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{floor + 16}" text-anchor="middle">{x:.6g}</text>')
    for y in ticks(*upward, 5):
        at = place(across[0], y)[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{y:.4g}</text>')
    parts.append(
        f'<text class="tick" x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 6}" '
        f'text-anchor="end">{escape(labels[0])}</text>'
    )
    return parts


def square(values: NDArray[np.floating], side: int = 288) -> NDArray[np.uint8]:
    """(n, n) values -> an image (side', side', 3) of equal fields, side' the multiple of n below `side`; low
    is dark."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    unit = np.nan_to_num((values - low) / (high - low) if high > low else np.zeros_like(values)).astype(
        np.float32
    )
    times = max(side // len(values), 1)
    return np.kron(colour(unit), np.ones((times, times, 1), dtype=np.uint8))
