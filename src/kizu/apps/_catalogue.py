"""The commands that say what there is: `kizu list` and `kizu data check`. `cli` adds them to the command
line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kizu.apps._options import AsJson, MaskRuleName, run


def list_room(
    room: Annotated[
        str | None, typer.Argument(help="detectors, datasets, metrics, ...; none: which there are.")
    ] = None,
    name: Annotated[
        str | None, typer.Argument(help="A member of the room: its parameters and their defaults.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What there is: the rooms, what is in one of them, or the parameters of one member."""
    from kizu.apps import _list

    run(lambda: _list.show(room, name, as_json))


def check(
    name: Annotated[str, typer.Argument(help="See `kizu list datasets`.")],
    path: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    category: Annotated[
        str | None, typer.Option("--category", help="One category alone; where one is read at a time: which.")
    ] = None,
    mask_rule: MaskRuleName = None,
    as_json: AsJson = False,
) -> None:
    """Open every image and mask of a data set and compare the counts with the published ones."""
    from kizu.apps import _commands

    run(lambda: _commands.data_check(name, path, category, mask_rule, as_json))
