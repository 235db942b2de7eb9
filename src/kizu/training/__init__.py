"""The one loop that everything in kizu trains with (level 2).

An `Objective` says what is minimised and how. A stream gives the batch of each position in the run. `train`
does the rest: devices and precision, many processes and machines, checkpoints and exact resume, log and
progress bar."""

from kizu.training.distributed import gather, gather_mapping, leave, rank_and_world
from kizu.training.loop import train
from kizu.training.objective import Objective
from kizu.training.options import FitOptions
from kizu.training.prefetch import Position, Stream
from kizu.training.sample_store import SampleStore, features_of
from kizu.training.schedule import constant_schedule, cosine_schedule, multistep

__all__ = [
    "FitOptions",
    "Objective",
    "Position",
    "SampleStore",
    "Stream",
    "constant_schedule",
    "cosine_schedule",
    "features_of",
    "gather",
    "gather_mapping",
    "leave",
    "multistep",
    "rank_and_world",
    "train",
]
