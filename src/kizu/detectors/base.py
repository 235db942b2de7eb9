"""What every detector is: fit on images, predict map and score, save, and a decision once calibrated.

    fit      images -> [adaptation] -> features -> what is learned -> scorer
    predict  images -> features -> scorer -> map, score -> p-value, decision

Two bases carry the learning: OnePassDetector (one_pass.py) for what is computed from features in one pass,
and LearnedDetector (learned.py) for what is trained step by step. A member writes `scorer()`: a plain
nn.Module, (FeatureMaps, size) -> (map, score), which holds all that scoring needs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from kizu import cards, engine, store
from kizu.adaptation.base import Adaptation
from kizu.detectors import _predictions
from kizu.detectors._after_fit import AfterFit
from kizu.detectors._card import card_of
from kizu.detectors.runtime import Runtime, build, parameters_of
from kizu.errors import EmptyData, NotFitted, UsageError, counted
from kizu.precision import Choice
from kizu.reader import Channels, Errors, Images, Supervision, read
from kizu.representations.base import InferenceCopy, Representation
from kizu.representations.sources import open_representation, pack
from kizu.roi import Roi
from kizu.training import FitOptions, SampleStore
from kizu.types import Batch, Centres, FeatureMaps, Prediction

_WARM_UP = threading.Lock()
"""One thread at a time makes a network ready; a detector itself holds no lock, so that it can be copied."""


class Detector(AfterFit, ABC):
    """Base of all detectors.

    representation: a Representation, its name or path, or None for the default at the preferred levels.
    adaptation: an Adaptation or its name: `fit` first adapts the representation to its images. After `fit`,
    `representation_` looks at images; `representation` stays as it was, and a clone starts from it."""

    supervision: ClassVar[Supervision] = "normal"
    """"normal": learns from good images alone and is never handed a label. "labelled": learns from both."""
    preferred_levels: ClassVar[tuple[int, ...]] = (2, 3)
    imagenet_levels: ClassVar[tuple[int, ...] | None] = None  # of imagenet/..., where measured to be better
    _shapes: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        representation: Representation | str | Path | None,
        *,
        adaptation: Adaptation | str | None,
        runtime: Runtime | None,
    ) -> None:
        self.runtime = run = runtime or Runtime()
        self.image_size: tuple[int, int] = run.image_size  # type: ignore[assignment]
        self.precision, self.device, self.alignment = run.precision, run.device, run.alignment
        self.batch_size, self.white_level = run.batch_size, run.white_level
        self.roi: Roi | None = run.roi  # type: ignore[assignment]
        self._device = engine.device_named(self.device)
        self.precision_: Choice | None = None  # in which features are computed, once that was asked
        self.adaptation = Adaptation(adaptation) if isinstance(adaptation, str) else adaptation
        self.representation = open_representation(
            representation, levels=self.preferred_levels, imagenet_levels=self.imagenet_levels
        )
        self.representation_ = self.representation
        self._inference: InferenceCopy | None = None
        self._scorer: nn.Module | None = None
        self.fitted_, self.images_seen_ = False, 0
        self.size_: tuple[int, int] | None = None
        self.seen_: dict[str, list[str]] = {"fitted": [], "calibrated": []}
        self.skipped_: list[tuple[str, str]] = []
        self.decision_ = None
        self.history_ = []

    # -- what a member adds ----------------------------------------------------------------------------------

    @abstractmethod
    def _learn(self, batches: Iterator[Batch], options: FitOptions) -> int:
        """Learn from the batches; how many images there were. Nothing is learned from none."""

    @abstractmethod
    def scorer(self) -> nn.Module:
        """What was learned, as a module on the CPU: (FeatureMaps, (H, W)) -> (map (B, H, W), score (B,))."""

    @abstractmethod
    def _state(self) -> dict[str, Tensor]:
        """What was learned, by name."""

    @abstractmethod
    def _restore(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `_state`; raises KeyError, IndexError or RuntimeError when tensors do not fit."""

    @classmethod
    @abstractmethod
    def tiny(
        cls, representation: Representation | str, *, adaptation: Adaptation | str | None = None
    ) -> Self:
        """Parameters with which the contract tests run in seconds at 64 pixels."""

    # -- what users call -------------------------------------------------------------------------------------

    def fit(self, data: Images, *, options: FitOptions | None = None, channels: Channels = "rgb") -> Self:
        """Learn from images: Samples, a folder, paths, arrays, tensors or Batches (kizu.reader says which).

        Files that cannot be read are left out and listed in `skipped_`. Raises EmptyData when none is left,
        NotFinite when the representation gives NaN or infinity, UsageError for a sample labelled anomalous
        where good ones are due, options without effect, or parameters that no model file may have."""
        options = _predictions.checked_options(options)
        self._check_options(options)
        cards.check_parameters(self.parameters)
        skipped: list[tuple[str, str]] = []
        self.fitted_, self.decision_, self._inference = False, None, None
        self.seen_, self.size_, self.history_ = {"fitted": [], "calibrated": []}, None, []
        self.representation_ = self.representation
        batches = self._noted(self._read(data, skipped, channels, supervision=self.supervision))
        seen = self._learn(batches if self.adaptation is None else self._adapt(batches, options), options)
        if not seen:
            raise EmptyData(_predictions.nothing_to_learn(skipped))
        self.fitted_, self.images_seen_, self.skipped_ = True, seen, skipped
        self._prepare_scoring()
        return self

    def predict(self, images: Images, *, channels: Channels = "rgb") -> Prediction:
        """Map and score of images, given as to `fit`.

        Maps have the size of tensors, or `image_size` for files and 8-bit arrays. p_value and is_anomalous
        are there once calibrated. Unreadable files are left out and listed in `.errors`. Raises NotFitted,
        EmptyData when nothing was readable."""
        errors: list[tuple[str, str]] = []
        parts = list(self.predict_batches(images, errors=errors, channels=channels))
        if not parts:
            raise EmptyData(f"There is no image to look at{_predictions.unreadable(errors)}.")
        return _predictions.joined(parts, errors)

    def predict_batches(
        self, images: Images, *, errors: list[tuple[str, str]] | None = None, channels: Channels = "rgb"
    ) -> Iterator[Prediction]:
        """`predict`, one Prediction a batch, for sets beyond memory; `errors` grows with unreadable files."""
        self._require_fit("predict")
        for batch in self._read(images, [] if errors is None else errors, channels):
            yield self._predict(batch)

    def save(self, path: Path | str, *, overwrite: bool = False) -> Path:
        """Write the model (a folder, or one file when the path ends in .kizu); it holds all that `kizu.load`
        needs. Raises NotFitted, OutputExists."""
        self._require_fit("save")
        tensors, representation = pack(self.representation_)
        tensors |= {f"detector.{name}": tensor for name, tensor in self._state().items()}
        tensors |= self.decision_.tensors() if self.decision_ else {}
        return store.save(path, tensors, card_of(self, representation), overwrite=overwrite)

    def clone(self) -> Self:
        """An unfitted detector of the same parameters on the same representation, before any adaptation."""
        return build(type(self), self.representation, self.parameters, adaptation=self.adaptation)

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter by name as it stands, the runtime's among them."""
        return parameters_of(self)

    @property
    def centres(self) -> Centres | None:
        """(stride, offset) of each level; None with alignment "grid"."""
        net = self.representation
        return None if self.alignment == "grid" else tuple(zip(net.strides, net.offsets, strict=True))

    @property
    def trains(self) -> bool:
        """Whether a fit trains anything step by step: the detector, or its adaptation."""
        return self.adaptation is not None and self.adaptation.trains

    @property
    def takes_features(self) -> bool:
        """Whether the features of its representation are all it needs of an image, to fit and to predict."""
        return self.adaptation is None

    @property
    def learns_from_features(self) -> bool:
        """Whether scores depend on features of the good images beyond what the adaptation took from them."""
        return True

    def __repr__(self) -> str:
        state = f"fitted on {counted(self.images_seen_, 'image')}" if self.fitted_ else "not fitted"
        names = [self.representation.card["name"], *([self.adaptation.name] if self.adaptation else [])]
        return f"{type(self).__name__}({' + '.join(names)}, {state})"

    # -- within the room -------------------------------------------------------------------------------------
    @property
    def _precision(self) -> Choice:
        """In which features are computed; chosen when it is first asked for."""
        if self.precision_ is None:
            self.precision_ = self.representation_.choose_precision(self.precision, self._device)
        return self.precision_

    def _read(
        self, data: Images, errors: Errors, channels: Channels, *, supervision: Supervision | None = None
    ) -> Iterator[Batch]:
        return read(
            data, size=self.image_size, batch_size=self.batch_size, errors=errors, supervision=supervision,
            channels=channels, white_level=self.white_level, roi=self.roi,
        )  # fmt: skip

    def _noted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; what identifies their images is kept in `seen_`, and their size in `size_`."""
        peak = -1.0
        for batch in batches:
            peak = max(peak, _predictions.brightest(batch))
            self.seen_["fitted"] += [digest for digest in batch.digests if digest]
            self.size_ = batch.size if self.size_ in (None, batch.size) else (0, 0)
            yield batch
        _predictions.warn_if_dark(peak, self.white_level)

    def _check_options(self, options: FitOptions) -> None:
        """Raise for options that have no effect on a fit in one pass."""
        if options.trains and not self.trains:
            raise UsageError(
                f"{type(self).__name__} is fitted in one pass: folder=, resume= and evaluate= have no effect."
            )

    def _adapt(self, batches: Iterator[Batch], options: FitOptions) -> Iterator[Batch]:
        """Adapt the representation to the good images among the batches; the batches again."""
        assert self.adaptation is not None
        every = SampleStore(white_level=self.white_level, roi=self.roi)
        for batch in batches:
            every.add(batch)
        good = every.good()
        if len(good):
            within = options.within("adaptation").without_evaluation()
            self.representation_ = self.adaptation.adapt(self.representation, good, options=within)
            if self.learns_from_features:
                _predictions.require_more_than_references(self.representation_, len(good))
        return every.batches(self.batch_size) if len(good) else iter(())

    def _scoring_representation(self) -> Representation:
        """What looks at images when they are scored."""
        return self.representation_

    def _warm_up(self) -> InferenceCopy:
        """The representation ready for inference, made when first asked for."""
        with _WARM_UP:
            if self._inference is None:
                self._inference = InferenceCopy(
                    self._scoring_representation(), self._precision.dtype, self._device
                )
            return self._inference

    def _features(self, batch: Batch) -> FeatureMaps:
        """Features of a batch, [(B, C_l, h_l, w_l)] float32 on the device. Raises NotFinite."""
        if batch.features is not None and self.takes_features:
            levels = batch.features
        else:
            levels = self._warm_up()(batch.require_images())
        levels = [level.to(self._device, torch.float32) for level in levels]
        _predictions.require_finite(levels, batch, self.representation_.card["name"])
        return levels

    def _require_fit(self, verb: str) -> None:
        if not self.fitted_:
            raise NotFitted(f"{type(self).__name__}.{verb} needs a fitted detector: call .fit first.")

    def _prepare_scoring(self) -> None:
        """Build the scorer from what was learned, on the device."""
        self._scorer = self.scorer().eval().requires_grad_(False).to(self._device)

    def _score(self, batch: Batch) -> tuple[Tensor, Tensor]:
        assert self._scorer is not None  # there is one once fitted
        return tuple(self._scorer(self._features(batch), batch.size))

    def _predict(self, batch: Batch) -> Prediction:
        if self.decision_ is not None:
            _predictions.check_size(self.decision_, self.size_, batch)
        if batch.images is not None:
            self._warm_up()
        with torch.inference_mode():
            parts = engine.map_chunks(self._score, batch.split, len(batch), self._device)
            maps, scores = (values.float().cpu() for values in parts)
        if self.roi is not None:
            maps = _predictions.lowest_outside(self.roi, maps)
        if self.decision_ is None:
            return Prediction(maps, scores, paths=batch.paths)
        p_value, flagged = self.decision_(scores)
        look = self.decision_.appearance if batch.images is not None else None
        unlike = look.unlike(batch.require_images()) if look else None
        return Prediction(maps, scores, p_value, flagged, batch.paths, unlike=unlike)
