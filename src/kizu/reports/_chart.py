"""Charts by matplotlib, written as PNG or SVG: what score_distributions and feature_embedding share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kizu.errors import DataError, NotFinite, UsageError
from kizu.store import replacing

GOOD, ANOMALOUS = "#20689e", "#c65416"
"""The blue and the vermilion of the other reports; the two differ with any kind of colour vision."""
SOFT = "#626872"
PER_ROW = 4
"""Panels in a row."""
_MARK = "<!-- written by kizu -->"


def panels(count: int, *, side: float = 2.7, high: float = 2.7) -> tuple[Any, list[Any]]:
    """A figure with `count` panels, PER_ROW in a row, without a display; and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(count, PER_ROW)
    rows = -(-count // PER_ROW)
    drawn = Figure(figsize=(side * columns + 0.3, high * rows + 0.5), dpi=150, layout="constrained")
    FigureCanvasAgg(drawn)
    every = [axes for row in drawn.subplots(rows, columns, squeeze=False) for axes in row]
    for empty in every[count:]:
        empty.set_axis_off()
    return drawn, every[:count]


def save(drawn: Any, out: Path | str) -> Path:
    """Write the figure, by its suffix, in the place of an old one of kizu's. Raises UsageError for another
    suffix, OutputExists."""
    target = checked_suffix(out)
    with replacing(target) as temporary:
        if target.suffix == ".png":
            drawn.savefig(temporary, format="png", metadata={"Software": "kizu"})
        else:
            from matplotlib import rc_context

            with rc_context({"svg.hashsalt": "kizu", "svg.fonttype": "none"}):
                drawn.savefig(temporary, format="svg", metadata={"Date": None})
            head, _, rest = temporary.read_text("utf-8").partition("\n")
            temporary.write_text(f"{head}\n{_MARK}\n{rest}", encoding="utf-8")
    return target


def checked_suffix(out: Path | str) -> Path:
    """The path of a picture. Raises UsageError."""
    target = Path(out)
    if target.suffix not in (".png", ".svg"):
        raise UsageError(f"A picture ends in .png or .svg, got {target.name!r}.")
    return target


def checked_labels(labels: Any) -> NDArray[np.int64]:
    """(n,) of 0 good and 1 anomalous. Raises DataError."""
    given = np.asarray(labels)
    if given.ndim != 1 or not np.isin(given, (0, 1)).all():
        raise DataError(f"labels are (n,), 0 good or 1 anomalous, got shape {given.shape}.")
    return given.astype(np.int64)


def checked_numbers(name: str, values: Any, dimensions: int, count: int) -> NDArray[np.float64]:
    """Real, finite numbers, a row for each of `count` labels. Raises DataError, NotFinite."""
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != dimensions or len(given) != count or not given.size:
        shape = "(n,)" if dimensions == 1 else "(n, D)"
        raise DataError(f"{name} is {shape} with n = {count}, as there are labels; got shape {given.shape}.")
    if not np.isfinite(given).all():
        raise NotFinite(f"{name} holds NaN or infinity. Leave these images out.")
    return given


def titles(given: Any) -> list[str]:
    """The names of a mapping that is not empty. Raises UsageError."""
    if not hasattr(given, "keys") or not given:
        raise UsageError(f"Give a mapping of names to values with at least one entry, got {given!r:.80}.")
    return [str(name) for name in given]
