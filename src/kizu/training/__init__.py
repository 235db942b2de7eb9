"""The one loop that everything in kizu trains with (level 2).

An `Objective` says what is minimised and how; a stream gives batches as a pure function of the position in
the run; `train` does the rest: devices and precision, many processes and machines, checkpoints and exact
resume, log and progress."""

from kizu.training.distributed import gather, is_first_process, rank_and_world
from kizu.training.loop import Objective, check_counts, train
from kizu.training.options import FitOptions
from kizu.training.prefetch import Position, Stream
from kizu.training.sample_store import SampleStore, features_of
from kizu.training.schedule import constant, cosine, steps_down

__all__ = [
    "FitOptions", "Objective", "Position", "SampleStore", "Stream", "check_counts", "constant", "cosine", "features_of",
    "gather", "is_first_process", "rank_and_world", "steps_down", "train",
]  # fmt: skip
