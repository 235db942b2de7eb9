"""`kizu attention`: what sets flawed images apart, for several representations side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kizu.apps._commands import error_list, image_size_from, read, training
from kizu.apps._screen import Screen
from kizu.checks import whole_numbers
from kizu.errors import EmptyData, UsageError
from kizu.outputs import check_output, refuse_inputs


def attention(
    data: Path,
    out: Path,
    representations: list[str],
    *,
    dataset: str,
    category: str | None,
    mask_rule: str | None,
    count: int,
    image_size: str,
    white_level: int | None,
    level: int | None,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> int:
    """`kizu attention`."""
    from kizu.evaluation.attention import compare_attention, spread_out
    from kizu.reports.attention import attention as report

    screen = Screen(as_json)
    if not representations:
        raise UsageError("Say whose attention: --representation NAME, once or more often.")
    named = [text.rpartition("=")[2] for text in representations]
    check_output(out, "attention.json", overwrite=overwrite, inputs=[data, *named])
    size = image_size_from(image_size)
    whole_numbers(least=0, seed=seed)
    samples = read(dataset, data, category, mask_rule)
    refuse_inputs(out, samples.paths)
    flawed = (samples.test if len(samples.test) else samples).anomalous
    if not len(flawed):
        raise EmptyData(
            f"There are no flawed images among these {len(samples)}; attention is about what sets them apart "
            "from good ones."
        )
    chosen, good = spread_out(flawed, count, seed), training(samples)
    with screen.progress(len(representations)) as progress:
        info, errors = compare_attention(
            representations,
            good,
            chosen,
            out,
            image_size=size,
            white_level=white_level,
            level=level,
            overwrite=overwrite,
            progress=progress,
        )
    errors = list(dict.fromkeys([*samples.unused, *errors]))
    screen.passed_over(samples.passed_over)
    return _show(screen, report(out), info, errors)


def _show(screen: Screen, page: Path, info: dict[str, Any], errors: list[tuple[str, str]]) -> int:
    shares = info["share_inside"]
    screen.table(
        {
            f"in the flaws, {label}": "" if share is None else f"{100 * share:.1f} %"
            for label, share in shares.items()
        }
    )
    screen.say(f"Wrote {page}")
    screen.unused(errors)
    screen.result(
        {
            "report": str(page),
            "images": len(info["columns"]),
            "share_inside": shares,
            "area": info["area"],
            "errors": error_list(errors),
        }
    )
    return 1 if errors else 0
