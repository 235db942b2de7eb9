"""Tables of what a part adds to the time of the whole, for `table.py`."""

from __future__ import annotations

from typing import Any


def residual(row: dict[str, Any]) -> list[str]:
    """What residuals and their projector add to the features, as shares of these."""
    parts = list(row["rows"][0]["over_features"])
    lines = [f"| weights | pixels | batch | features ms | {' | '.join(parts)} |", "|---" * 7 + "|"]
    for case in row["rows"]:
        own = case["seconds"]["features"]["median"] * 1e3
        added = " | ".join(f"{case['over_features'][part]:.2f}" for part in parts)
        lines.append(f"| {case['weights']} | {case['size']} | {case['batch']} | {own:.1f} | {added} |")
    return [*lines, "", f"Added time over the features'; the goal is {row['goal']:g} at most for the search."]


def findings(row: dict[str, Any]) -> list[str]:
    """What flaw regions and a region of interest add to an inspection, as shares of it."""
    lines = ["| images | pixels | called anomalous | inspect s | regions | region of interest |"]
    lines.append("|---" * 6 + "|")
    for case in row["rows"]:
        own, over = case["seconds"]["inspect"]["median"], case["over_inspect"]
        added = f"{over['regions']:.3f} | {over['region of interest']:.3f}"
        lines.append(f"| {case['images']} | {case['pixels']} | {case['called']} | {own:.2f} | {added} |")
    return [*lines, "", f"Added time over the inspection's; the goal is {row['goal']:g} at most for each."]
