"""The folder beside a model where a fit keeps its checkpoints until the model is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kizu import store
from kizu.apps._options import say
from kizu.errors import UsageError
from kizu.locks import locked


@contextmanager
def training_folder(
    out: Path, facts: dict[str, Any] | None, *, resume: bool, overwrite: bool
) -> Iterator[Path | None]:
    """The folder OUT.training for checkpoints; it is removed when the block ends well, and kept otherwise.

    facts: all that decides the result, None for a fit without training, which needs no folder. Raises
    UsageError when there is nothing to resume, when what is there is of another command, when an interrupted
    training is there and neither resume nor overwrite is said, and while another run is in it."""
    folder = out.with_name(f"{out.name}.training")
    if facts is None:
        if resume:
            raise UsageError(
                "There is nothing to resume: this fit is done in one pass, without checkpoints. Leave "
                "--resume away."
            )
        yield None
        return
    record = folder / "fit.json"
    with locked(folder):
        if resume:
            _check_same(folder, record, facts)
        elif not store.is_empty(folder) and not overwrite:
            raise UsageError(
                f"{folder} holds a training that was interrupted. Say --resume to go on with it, or "
                "--overwrite to begin again."
            )
        else:
            store.remove_folder(folder, record.name)
            store.write_record(folder, record.name, facts)
        try:
            yield folder
        except (KeyboardInterrupt, SystemExit):
            say(f"The training so far is in {folder}: the same command with --resume goes on with it.")
            raise
        store.remove_folder(folder, record.name)


def _check_same(folder: Path, record: Path, facts: dict[str, Any]) -> None:
    if not record.exists():
        raise UsageError(f"There is nothing to resume: {folder} is not there. Leave --resume away to begin.")
    before = store.read_record(folder, record.name)
    keys = {*facts, *before} - {"kizu_format"}
    different = sorted(key for key in keys if before.get(key) != facts.get(key))
    if different:
        raise UsageError(
            f"{folder} holds the training of another command: {', '.join(different)} differ. Repeat that "
            "command, or say --overwrite without --resume to begin again."
        )
