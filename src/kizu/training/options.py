"""How a fit goes, beside its data and its parameters: the same for every detector and adaptation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kizu import checks
from kizu.errors import UsageError
from kizu.training.checkpoint import has_checkpoint
from kizu.types import Progress


@dataclass(frozen=True)
class FitOptions:
    """progress: called with (images or steps done, what is being done).

    The others are for what is trained step by step. folder: where log.jsonl and, every `checkpoint_every`
    steps, checkpoint.kizu go (None: nowhere); resume: go on from the checkpoint there, to the same result bit
    for bit. evaluate: called every `evaluate_every` steps and at the end with (step, a fitted copy of the
    detector as it is by then); the figures that it returns go into the log's row of that step, and the
    training is the same with it as without. Raises UsageError for values of another kind, counts below 1, or
    resume without a folder.
    """

    progress: Progress | None = None
    folder: Path | str | None = None
    resume: bool = False
    checkpoint_every: int = 200
    evaluate: Callable[[int, Any], dict[str, float]] | None = None
    evaluate_every: int = 250

    def __post_init__(self) -> None:
        checks.switches(resume=self.resume)
        for name, value in (("progress", self.progress), ("evaluate", self.evaluate)):
            if value is not None and not callable(value):
                raise UsageError(f"{name} is a function that is called on the way, got {value!r}.")
        if not isinstance(self.folder, str | Path | None):
            raise UsageError(f"folder is a path, got {self.folder!r}.")
        checks.whole_numbers(checkpoint_every=self.checkpoint_every, evaluate_every=self.evaluate_every)
        for name, partner, default in (
            ("checkpoint_every", "folder", 200),
            ("evaluate_every", "evaluate", 250),
        ):
            if getattr(self, name) != default and getattr(self, partner) is None:
                raise UsageError(f"{name} has no effect without {partner}: give that too, or leave it away.")
        if self.resume and self.folder is None:
            raise UsageError("resume goes on from a checkpoint: say in which folder it lies, folder=PATH.")

    def within(self, name: str) -> FitOptions:
        """The options of one of several trainings: a folder inside the common one, gone on with if it holds a
        checkpoint."""
        if self.folder is None:
            return self
        folder = Path(self.folder) / name
        return replace(self, folder=folder, resume=self.resume and has_checkpoint(folder))

    def without_evaluation(self) -> FitOptions:
        """The same, with nothing to evaluate on the way."""
        return replace(self, evaluate=None, evaluate_every=250)

    @property
    def trains(self) -> bool:
        """Whether anything is asked for that only a training step by step can do."""
        return self.folder is not None or self.evaluate is not None
