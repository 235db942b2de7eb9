"""Pieces of the detectors' base: predictions of several batches as one, and checks of what comes in."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from kizu import engine
from kizu.detectors.decision import Decision, FileSizes, other_size
from kizu.errors import NotFinite, OtherSize, ShapeError, TooFewImages, UnusedRange, UsageError
from kizu.masks import resize_mask
from kizu.representations.base import Representation
from kizu.roi import Roi
from kizu.training import FitOptions
from kizu.types import Batch, FeatureMaps, Prediction

SMALL_SHARE = 0.125
"""Of the range: 12 bits in files of 16 use 0.0625."""


def joined(parts: list[Prediction], errors: list[tuple[str, str]]) -> Prediction:
    """At least one part. Raises UsageError when their maps have several sizes."""
    sizes = {tuple(part.map.shape[1:]) for part in parts}
    if len(sizes) > 1:
        raise UsageError(
            f"The images have different sizes {sorted(sizes)}; predict them one by one, or give their paths."
        )
    first = parts[0]
    return Prediction(
        map=torch.cat([part.map for part in parts]),
        score=torch.cat([part.score for part in parts]),
        p_value=None
        if first.p_value is None
        else torch.cat([part.p_value for part in parts if part.p_value is not None]),
        is_anomalous=None
        if first.is_anomalous is None
        else torch.cat([part.is_anomalous for part in parts if part.is_anomalous is not None]),
        paths=tuple(path for part in parts for path in part.paths),
        errors=tuple(errors),
        unlike=None
        if any(part.unlike is None for part in parts)
        else torch.cat([part.unlike for part in parts if part.unlike is not None]),
    )


def brightest(batch: Batch) -> float:
    """The largest value of images that come from files; -1 for others. In one thread: helpers that were woken
    for so little would take a core from those who compute features."""
    if batch.images is None or not batch.paths:
        return -1.0
    with engine.one_thread():
        return float(batch.images.amax())


def warn_if_dark(peak: float, white_level: int | None) -> None:
    """Warn when the brightest value of all files, in [0, 1], is a small share of the range."""
    if 0.0 <= peak < SMALL_SHARE:
        said = "65535" if white_level is None else str(white_level)
        warnings.warn(
            f"The good images use {peak:.1%} of their range only. If they are of 10 or 12 bits in files of "
            f"16, name the value of white: --white-level 1023 or 4095 (Python: white_level=), not {said}.",
            UnusedRange,
            stacklevel=2,
        )


def checked_options(options: FitOptions | None) -> FitOptions:
    """The options, or the default ones. Raises UsageError for what is none."""
    if not isinstance(options, FitOptions | None):
        raise UsageError(f"options is a kizu.FitOptions, got {options!r:.80}.")
    return options or FitOptions()


def unreadable(errors: list[tuple[str, str]]) -> str:
    """What is said of files that could not be read: nothing when there are none."""
    return (
        f"; {len(errors)} could not be read, the first: {': '.join(errors[0]).rstrip('.')}" if errors else ""
    )


def nothing_to_learn(errors: list[tuple[str, str]]) -> str:
    """What is said when no image was left to learn from."""
    advice = "" if errors else " Samples without splits have theirs in .to_learn.normal; .train is empty."
    return f"There is no good image to learn from{unreadable(errors)}.{advice}"


def require_size(fitted: tuple[int, int] | None, batch: Batch) -> None:
    """Raise ShapeError for images of another size than the decision was calibrated on; fitted is None, or (0,
    0), where images of no or of several sizes were learned from."""
    if fitted not in (None, (0, 0), batch.size):
        raise ShapeError(
            f"The decision was calibrated on images of {fitted} pixels (height, width), these have "
            f"{batch.size}. Resize them, or give their files."
        )


def check_size(decision: Decision, fitted: tuple[int, int] | None, batch: Batch) -> None:
    """`require_size` and `warn_of_size`."""
    require_size(fitted, batch)
    warn_of_size(decision.file_sizes, batch)


def lowest_outside(roi: Roi, maps: Tensor) -> Tensor:
    """Maps (B, H, W) of the region's box: what is outside of its mask gets the lowest value inside."""
    if roi.inside is None:
        return maps
    outside = torch.from_numpy(~resize_mask(roi.inside, (int(maps.shape[1]), int(maps.shape[2]))))
    lowest = maps.masked_fill(outside, torch.inf).flatten(1).amin(1)[:, None, None]
    return torch.where(outside & lowest.isfinite(), lowest, maps)


def warn_of_size(calibrated: FileSizes | None, batch: Batch) -> None:
    """Warn of files or 8-bit arrays of another size than the files of the calibration: they are resized,
    which changes how sharp an image is, and with it every score. The warning of a size is shown once."""
    other = other_size(batch, calibrated) if calibrated else None
    if calibrated and other:
        h, w, most_h, most_w = calibrated
        known = f"{h} x {w}" if (h, w) == (most_h, most_w) else f"{h} x {w} to {most_h} x {most_w}"
        warnings.warn(
            f"There are images of {other[0]} x {other[1]} pixels (height x width), and the decision was "
            f"calibrated on {known}. The false-alarm rate does not hold for them: calibrate on their size.",
            OtherSize,
            stacklevel=2,
        )


def require_more_than_references(representation: Representation, good: int) -> None:
    """Raise TooFewImages when all good images are references of the representation: their residuals are
    zero."""
    if representation.reference_images >= good:
        raise TooFewImages(
            f"Of {good} good images all would be references. Give more good images, or a smaller number of "
            "shots."
        )


def require_finite(levels: FeatureMaps, batch: Batch, name: str) -> None:
    """Raise NotFinite, naming the representation and the image, when features hold NaN or infinity."""
    for level in levels:
        if bool(level.sum().isfinite()):
            continue  # a sum with NaN or infinity in it is not
        if not bool(torch.isfinite(level).all()):
            row = int((~torch.isfinite(level)).flatten(1).any(1).int().argmax())
            image = batch.paths[row] if batch.paths else f"image {row} of the batch"
            raise NotFinite(f"{name} gives NaN or infinity for {image}: check its weights and the image.")


def require_storable(learned: dict[str, Tensor], name: str) -> None:
    """Raise NotFinite when 16 bits do not hold what was learned from the features of a representation."""
    if not all(bool(tensor.isfinite().all()) for tensor in learned.values()):
        raise NotFinite(
            f"{name} gives features whose mean or covariance goes past what 16 bits hold (65,504): scale "
            "them down, or take another representation or detector."
        )


@contextlib.contextmanager
def factored(eps: float) -> Iterator[None]:
    """Raise NotFinite where a covariance plus eps has no Cholesky factor: the features are so large that eps
    is lost beside them, in 64 bits too."""
    try:
        yield
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise NotFinite(
            f"The covariances of the features cannot be inverted: eps = {eps:g} is too small beside features "
            "as large as these. Set a larger eps (--set eps=...), or scale the features down."
        ) from error
