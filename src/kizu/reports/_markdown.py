"""The table of an experiment as Markdown."""

from __future__ import annotations

from typing import Any

SETTING = ("representation", "detector", "parameters", "dataset", "protocol", "shots")
"""Columns that, together, make a row of the table; the category makes its column and the seed its spread."""


def markdown(
    metric: str, categories: list[str], rows: list[dict[str, Any]], published: list[dict[str, Any]]
) -> str:
    """Our rows, then published rows that may be compared, then those that may not, with the reason."""
    many = len(categories) > 1
    columns = [*categories, *(["mean"] if many else [])]
    used = [name for name in (*SETTING, "weights") if any(row["setting"][name] is not None for row in rows)]
    lines = [
        f"{metric} in per cent, mean ± standard deviation over seeds (number of seeds). Empty: not run.",
        "",
        *_heading([*used, *columns], len(used)),
    ]
    lines += [_line([*(row["setting"][name] or "" for name in used), *_cells(row, many)]) for row in rows]
    groups = {
        "Published, under the same metric, detector, protocol, backbone and weights:": False,
        "Published, not comparable:": True,
    }
    for title, has_reason in groups.items():
        group = [row for row in published if bool(row["reason"]) is has_reason]
        if group:
            lines += ["", title, "", *_heading(["row", *columns, "why not", "source"], 1)]
            lines += [
                _line([named(row), *_cells(row, many), row["reason"], row["facts"]["source"]])
                for row in group
            ]
    return "\n".join(lines) + "\n"


def named(row: dict[str, Any]) -> str:
    """A published row's name with backbone and shots."""
    facts = row["facts"]
    shots = f"{facts['shots']} shots" if facts["shots"] is not None else None
    more = ", ".join(part for part in (facts["backbone"], shots) if part)
    return str(facts["row"]) + (f" ({more})" if more else "")


def mean_spread(values: list[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; no deviation for one value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5


def _cells(row: dict[str, Any], many: bool) -> list[str]:
    return [_cell(values) for values in (*row["cells"], *([row["mean"]] if many else []))]


def _heading(names: list[str], words: int) -> list[str]:
    rules = [
        "---" if index < words or name in ("why not", "source") else "---:"
        for index, name in enumerate(names)
    ]
    return [_line(names), _line(rules)]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _cell(values: list[float]) -> str:
    """Fractions -> per cent; the sample standard deviation from two values on; empty for none."""
    if not values:
        return ""
    mean, spread = mean_spread(values)
    if spread is None:
        return f"{100 * mean:.1f}"
    return f"{100 * mean:.1f} ± {100 * spread:.1f} ({len(values)})"
