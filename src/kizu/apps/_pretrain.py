"""`kizu pretrain`: settings together, the run, what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kizu import registry
from kizu.apps._screen import Screen
from kizu.apps._settings import parameters_from
from kizu.errors import UsageError


def pretrain(
    objective: str,
    data: list[str],
    out: Path,
    named: dict[str, Any],
    parameters: list[str],
    resume: bool,
    as_json: bool,
    **settings: Any,
) -> int:
    """`kizu pretrain`. named: parameters that have options of their own; a --set of the same name wins."""
    from kizu import pretraining, store

    screen = Screen(as_json)
    if resume:
        folder = pretraining.resume(out, show=not as_json)
    else:
        if not objective:
            raise UsageError(f"Say what to train: one of {', '.join(registry.names('pretraining'))}.")
        if not data:
            raise UsageError(
                "Say what to train on: --data FOLDER, or --data procedural for our own generator."
            )
        chosen = {**named, **parameters_from(parameters, registry.load("pretraining", objective))}
        screen.say(
            f"Training {chosen['backbone']} with {objective}{' + SPD' if chosen['spd'] else ''} on "
            f"{', '.join(data)}"
        )
        folder = pretraining.pretrain(objective, data, out, show=not as_json, **settings, **chosen)
    if not (folder / store.CARD).exists():  # one of several processes, not the one that writes
        return 0
    card = store.load_card(folder)["representation"]
    last = card["curve"][-1]
    screen.say(
        f"Wrote {folder}: loss {last['loss']:.4f} after {last['step']} steps. Use it with --representation "
        f"{folder}"
    )
    skipped = card["skipped_images"]
    if skipped:
        screen.say(f"{skipped} images could not be read; {folder / 'skipped.json'} names them.")
    screen.result({"representation": str(folder), "name": card["name"], "last": last, "skipped": skipped})
    return 1 if skipped else 0
