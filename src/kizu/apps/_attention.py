"""`kizu attention`: what sets flawed images apart, for several representations side by side."""

from __future__ import annotations

from pathlib import Path

from kizu.apps._commands import read, training
from kizu.apps._screen import Screen
from kizu.errors import EmptyData, OutputExists, UsageError


def attention(
    data: Path,
    out: Path,
    representations: list[str],
    *,
    dataset: str,
    category: str | None,
    count: int,
    image_size: str,
    level: int | None,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> int:
    """`kizu attention`."""
    from kizu.evaluation.attention import look, spread_out
    from kizu.reports.attention import attention as report

    screen = Screen(as_json)
    if not representations:
        raise UsageError("Say whose attention: --representation NAME, once or more often.")
    if out.exists() and not overwrite:
        raise OutputExists(out)
    samples = read(dataset, data, category)
    flawed = (samples.test if len(samples.test) else samples).anomalous
    if not len(flawed):
        raise EmptyData(
            f"There are no flawed images among these {len(samples)}; attention is about what sets them apart "
            "from good ones."
        )
    chosen, good = spread_out(flawed, count, seed), training(samples)
    with screen.progress(len(representations)) as progress:
        size = _size(image_size)
        info, errors = look(
            representations,
            good,
            chosen,
            out,
            image_size=size,
            level=level,
            overwrite=overwrite,
            progress=progress,
        )
    page = report(out)
    shares = {
        label: f"{100 * share:.1f} %" if share is not None else ""
        for label, share in info["share_inside"].items()
    }
    screen.table({f"in the flaws, {label}": share for label, share in shares.items()})
    screen.say(f"Wrote {page}")
    screen.unreadable(errors)
    facts = {
        "report": str(page),
        "images": len(info["columns"]),
        "share_inside": info["share_inside"],
        "area": info["area"],
    }
    screen.result({**facts, "errors": [{"path": path, "error": reason} for path, reason in errors]})
    return 1 if errors else 0


def _size(text: str) -> tuple[int, int]:
    """ "224" or "448,192" -> (H, W)."""
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts) or len(parts) > 2:
        raise UsageError(f"--image-size is 224 or 448,192 (height, width), got '{text}'.")
    return int(parts[0]), int(parts[-1])
