"""What a fitted detector still takes: a decision, another threshold, more good images."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from kizu.calibration import Groups
from kizu.detectors import _predictions
from kizu.detectors.decision import Decision
from kizu.detectors.scored import Scored, decision_of, score_batches
from kizu.digests import seen_digests
from kizu.errors import EmptyData, UsageError, some
from kizu.reader import Channels, Errors, Images, Supervision
from kizu.samples import Samples
from kizu.training import FitOptions
from kizu.types import Batch, Prediction


class AfterFit:
    """The part of `Detector` that needs a fit."""

    decision_: Decision | None
    history_: list[dict[str, Any]]
    """Of each update: its date, how many images it added, which ("digests"), how many were left out."""
    seen_: dict[str, list[str]]
    skipped_: list[tuple[str, str]]
    fitted_: bool
    images_seen_: int

    if TYPE_CHECKING:
        representation_: Any

        def _read(
            self, data: Images, errors: Errors, channels: Channels, *, supervision: Supervision | None = None
        ) -> Iterator[Batch]: ...
        def _noted(self, batches: Iterator[Batch]) -> Iterator[Batch]: ...
        def _check_options(self, options: FitOptions) -> None: ...
        def _require_fit(self, verb: str) -> None: ...
        def _prepare_scoring(self) -> None: ...
        def predict_batches(self, images: Images) -> Iterator[Prediction]: ...

    def set_calibration(
        self,
        normal_scores: Any,
        false_alarm_rate: float | None,
        *,
        groups: Groups | None = None,
        method: str = "split",
        map_range: tuple[float, float] | None = None,
        threshold: float | None = None,
    ) -> Self:
        """Take scores (n,) of held-out good images; from now on `predict` decides at `false_alarm_rate`,
        or at a threshold. Arguments as of `kizu.detectors.Decision`. Raises NotFitted, TooFewImages."""
        self._require_fit("set_calibration")
        self.decision_ = Decision(
            normal_scores,
            false_alarm_rate,
            groups=groups,
            method=method,
            map_range=map_range,
            threshold=threshold,
        )
        return self

    def recalibrate(
        self,
        good: Images | None = None,
        *,
        false_alarm_rate: float | None = None,
        threshold: float | None = None,
    ) -> Self:
        """Move the decision; nothing is learned.

        good: good images that the model has not learned from: their scores replace those of the calibration
        (split conformal: a promise). Images with the same pixels or, in Samples, the same group are one part.
        None: the scores in the model are used again. false_alarm_rate: what is promised; with `good` None
        asks for the smallest rate, from 1 % on, that they can back. threshold: the limit itself instead of a
        rate; nothing is promised then.

        Raises NotFitted; UsageError when rate and threshold are both named, when nothing is, when the model
        is not calibrated and no images are given, and for images that the model, or its representation, has
        learned from; TooFewImages for a rate that the scores cannot back. The decision stays as it was
        then."""
        self._require_fit("recalibrate")
        if false_alarm_rate is not None and threshold is not None:
            raise UsageError("A false-alarm rate gives the threshold, and a threshold the rate: name one.")
        if good is not None:
            scored, groups = self._scored(good)
            decision = decision_of([scored], groups, false_alarm_rate=false_alarm_rate, threshold=threshold)
            self.decision_, self.seen_["calibrated"] = decision, scored.digests
            self.skipped_ = scored.errors
            return self
        before = self.decision_
        if before is None:
            raise UsageError(
                "The model is not calibrated and holds no scores to decide by: give good images that it has "
                "not learned from."
            )
        if false_alarm_rate is None and threshold is None:
            raise UsageError("Nothing is to change: name a false-alarm rate or a threshold, or give images.")
        after = Decision(
            before.scores,
            false_alarm_rate,
            groups=before.groups.tolist(),
            method=before.method,
            map_range=before.map_range,
            threshold=threshold,
        )
        if before.peaks is not None:
            after.set_peaks(before.peaks)
        after.file_sizes, after.appearance, self.decision_ = before.file_sizes, before.appearance, after
        return self

    def update(self, data: Images, *, options: FitOptions | None = None, channels: Channels = "rgb") -> Self:
        """Learn from more good images, beside those that were learned from before.

        Scores change by it, so that the decision is gone: `recalibrate` sets it anew, and
        `kizu.evaluation.updating.update_calibrated` does both. Images that were learned from before are left
        out. An adaptation stays as it was fitted. Each update is noted in `history_`. On an error the
        detector stays as it was. Raises NotFitted; UsageError for a detector that cannot learn on, and for
        samples labelled anomalous; EmptyData when no image is new; and what `fit` raises."""
        self._require_fit("update")
        options = _predictions.checked_options(options)
        self._check_options(options)
        self.check_update()
        before = dict(vars(self))
        self.seen_ = {role: list(digests) for role, digests in self.seen_.items()}
        try:
            return self._updated(data, options, channels)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    def _updated(self, data: Images, options: FitOptions, channels: Channels) -> Self:
        skipped: list[tuple[str, str]] = []
        known, left_out = len(self.seen_["fitted"]), [0]
        fresh = self._unseen(self._read(data, skipped, channels, supervision="normal"), left_out)
        first = next(fresh, None)
        if first is None:
            again = f": all {left_out[0]} were learned from before" if left_out[0] else ""
            raise EmptyData(f"There is no new image to learn from{again}{_predictions.unreadable(skipped)}.")
        self.decision_ = None
        added = self._update(self._noted(itertools.chain([first], fresh)), options)
        self.images_seen_, self.skipped_ = self.images_seen_ + added, skipped
        self.history_ = [
            *self.history_,
            {
                "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "images": added,
                "digests": self.seen_["fitted"][known:],
                "left_out": left_out[0],
            },
        ]
        self._prepare_scoring()
        return self

    def _unseen(self, batches: Iterator[Batch], left_out: list[int]) -> Iterator[Batch]:
        """The images that were not learned from before, and no two with the same pixels; counts others."""
        known = set(self.seen_["fitted"])
        for batch in batches:
            digests = batch.digests or ("",) * len(batch)
            keep = [row for row, digest in enumerate(digests) if not digest or digest not in known]
            left_out[0] += len(batch) - len(keep)
            known.update(digests[row] for row in keep)
            if keep:
                yield batch if len(keep) == len(batch) else _rows_of(batch, keep)

    def check_update(self) -> None:
        """Raise UsageError, in one sentence, where this detector cannot learn on."""
        raise UsageError(
            f"{type(self).__name__} cannot learn on, for what it has learned does not grow image by image: "
            "fit it again, on all good images."
        )

    def _update(self, batches: Iterator[Batch], options: FitOptions) -> int:
        """Learn from the batches beside what was learned; how many images there were. Only called after
        `check_update`."""
        raise NotImplementedError

    def _scored(self, good: Images) -> tuple[Scored, list[object]]:
        """Scores of good images that were not learned from, and the part of each."""
        errors: list[tuple[str, str]] = []
        learned = set(self.seen_["fitted"]) | seen_digests(self.representation_.card)
        before, self.decision_ = self.decision_, None  # its warnings are of what comes after
        try:
            batches = self._read(good, errors, "rgb", supervision="normal")
            scored = score_batches(self.predict_batches, batches, errors)
        finally:
            self.decision_ = before
        again = [at for at, digest in enumerate(scored.digests) if digest and digest in learned]
        if again:
            names = [scored.paths[at] if scored.paths else f"image {at}" for at in again]
            raise UsageError(
                f"The model has learned from {len(again)} of the {len(scored.scores)} images: "
                f"{some(names, 3)}. Good parts that it has not learned from score higher, so the promise "
                "would not hold. Give other good images."
            )
        return scored, _parts(scored, good.table["group"].to_list() if isinstance(good, Samples) else None)


def _parts(scored: Scored, groups: list[str | None] | None) -> list[object]:
    """One label an image: its group, else its pixels."""
    labels: list[object] = [digest or None for digest in scored.digests] or [None] * len(scored.scores)
    if groups is None or not scored.rows:
        return labels
    named = [groups[row] for row in scored.rows]
    return [label if name is None else ("group", name) for label, name in zip(labels, named, strict=True)]


def _rows_of(batch: Batch, rows: list[int]) -> Batch:
    """Some of the images of a batch without labels."""

    def chosen(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(values[row] for row in rows) if values else ()

    return replace(
        batch,
        images=None if batch.images is None else batch.images[rows],
        features=None if batch.features is None else [level[rows] for level in batch.features],
        paths=chosen(batch.paths),
        rows=chosen(batch.rows),
        digests=chosen(batch.digests),
        file_sizes=chosen(batch.file_sizes),
    )
