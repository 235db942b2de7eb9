"""What every detector is: fit on good images, predict map and score, save, and a decision once calibrated.

A member implements four small methods and nothing else:
    _begin()                      forget what was learned
    _observe(features)            FeatureMaps of some good images, as `_digest` leaves them
    _finish()                     what is learned becomes attributes ending in `_`
    _score(features, size)        FeatureMaps -> (map (B, H, W), score (B,)) float32, higher is more anomalous
and names its state: `_state()` -> tensors, `_shapes` their patterns, `_restore(tensors)`.
"""

from __future__ import annotations

import inspect
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from kizu import calibration, registry
from kizu.detectors._inputs import Images, as_batches, image_batches
from kizu.detectors._outputs import joined
from kizu.engine import imap_ordered, chunk_size, thread_map
from kizu.errors import EmptyData, NotFinite, NotFitted, UsageError
from kizu.representations.base import Frozen, Representation
from kizu.representations.sources import representation as open_representation
from kizu.samples import Samples
from kizu.types import Batch, FeatureMaps, Prediction

Progress = Callable[[int, str], None]
"""Called with (images done so far, what is being done)."""


class Detector(ABC):
    """Base of all detectors; see the module's head for what a member adds.

    representation: a Representation, its name or path, or None for the default at the detector's preferred
    levels. image_size: side or (H, W) in pixels to which image files are resized; tensors are taken at the
    size they have. precision, device: see representations.Frozen. batch_size: images a forward pass."""

    preferred_levels: ClassVar[tuple[int, ...]] = (2, 3)
    needs_images: ClassVar[bool] = False
    """Whether features alone, as caches give them, are not enough."""
    by_image: ClassVar[bool] = False
    """Whether scoring shares no work between images: a CPU then looks at some beside others, each from its
    pixels to its map."""
    any_precision: ClassVar[bool] = False
    """Whether features may come in the type in which they were computed (Frozen.as_computed); otherwise they
    are float32."""
    _shapes: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        representation: Representation | str | Path | None,
        *,
        image_size: int | tuple[int, int],
        precision: str,
        device: str,
        batch_size: int,
    ) -> None:
        sizes = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        if len(sizes) != 2 or min(sizes) < 8:
            raise UsageError(
                f"image_size is one side or (height, width), at least 8 pixels, got {image_size!r}."
            )
        if batch_size < 1:
            raise UsageError(f"batch_size is at least 1, got {batch_size}.")
        self.image_size: tuple[int, int] = (int(sizes[0]), int(sizes[1]))
        self.precision, self.device, self.batch_size = precision, device, batch_size
        self.representation = _opened(representation, self.preferred_levels)
        self._extractor: Frozen | None = None
        self.fitted_ = False
        self.images_seen_ = 0
        self.skipped_: list[tuple[str, str]] = []
        self.calibration_: dict[str, Any] | None = None

    # -- what a member adds ----------------------------------------------------------------------------------

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _observe(self, features: FeatureMaps) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _score(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _state(self) -> dict[str, Tensor]: ...

    @abstractmethod
    def _restore(self, tensors: dict[str, Tensor]) -> None: ...

    @classmethod
    @abstractmethod
    def tiny(cls, representation: Representation | str) -> Self:
        """Parameters with which the contract tests run in seconds at 64 pixels."""

    # -- what users call -------------------------------------------------------------------------------------

    def fit(
        self,
        data: Samples | str | Path | Tensor | Iterable[Batch | Tensor],
        *,
        progress: Progress | None = None,
    ) -> Self:
        """Learn from good images: Samples, a folder, one tensor (B, 3, H, W) in [0, 1], or batches. Streams;
        one pass.

        Image files that cannot be read are left out and listed in `skipped_`. Raises EmptyData when none is
        left, UsageError when rows are labelled anomalous, NotFinite when the representation gives NaN or
        infinity."""
        skipped: list[tuple[str, str]] = []
        self.fitted_, self.calibration_, seen = False, None, 0
        self._begin()
        given = as_batches(data, self.image_size, self.batch_size, skipped)
        self._open_eyes(data)
        for count in self._absorb(given):
            seen += count
            if progress:
                progress(seen, "looking at good images")
        if not seen:
            broken = (
                f"; {len(skipped)} could not be read, the first: {skipped[0][0]}: {skipped[0][1]}"
                if skipped
                else ""
            )
            raise EmptyData(f"There is no good image to learn from{broken}.")
        if progress:
            progress(seen, "building the model")
        self._finish()
        self.fitted_, self.images_seen_, self.skipped_ = True, seen, skipped
        return self

    def predict(self, images: Images) -> Prediction:
        """Map and score of images: a tensor (B, 3, H, W) in [0, 1], a path, a folder, paths, Samples or
        Batches.

        Maps have the images' size (tensors) or `image_size` (files). p_value and is_anomalous are there once
        calibrated. Unreadable files are left out and listed in `.errors`. Raises NotFitted, EmptyData when
        nothing was readable."""
        errors: list[tuple[str, str]] = []
        parts = list(self.predict_batches(images, errors=errors))
        if not parts:
            raise EmptyData(
                f"None of the images could be read; the first: {errors[0][0]}: {errors[0][1]}"
                if errors
                else "There is no image to look at."
            )
        return joined(parts, errors)

    def predict_batches(
        self, images: Images, *, errors: list[tuple[str, str]] | None = None
    ) -> Iterator[Prediction]:
        """`predict`, one Prediction a batch as they come, for sets that do not fit in memory; `errors` grows
        with unreadable files."""
        self._require_fit("predict")
        given = image_batches(images, self.image_size, self.batch_size, [] if errors is None else errors)
        self._open_eyes(images)
        for batch in given:
            yield self._predict(batch)

    def set_calibration(
        self,
        normal_scores: Any,
        false_alarm_rate: float,
        *,
        method: str = "split",
        map_range: tuple[float, float] | None = None,
    ) -> Self:
        """Take scores (n,) of held-out good images; from now on `predict` decides at `false_alarm_rate`.

        method says how they were held out: "split" or "cross". map_range (low, high): map values that a heat
        map shows as its coldest and hottest colour. Raises TooFewImages when n cannot back the promise."""
        self._require_fit("set_calibration")
        scores = np.asarray(normal_scores, dtype=np.float32)
        threshold = calibration.conformal_threshold(scores, false_alarm_rate)
        self.calibration_ = {
            "method": method,
            "images": len(scores),
            "false_alarm_rate": float(false_alarm_rate),
            "threshold": threshold,
            "map_range": None if map_range is None else [float(map_range[0]), float(map_range[1])],
            "scores": np.sort(scores),
        }
        return self

    def save(self, path: Path | str, *, overwrite: bool = False) -> Path:
        """Write the model (a folder, or one file when the path ends in .kizu); it holds all that `kizu.load`
        needs. Raises OutputExists."""
        from kizu.detectors.files import save

        self._require_fit("save")
        return save(self, path, overwrite=overwrite)

    def clone(self) -> Self:
        """An unfitted detector of the same parameters on the same representation."""
        return type(self)(self.representation, **self.parameters)

    @property
    def parameters(self) -> dict[str, Any]:
        """Every keyword of the constructor as it stands."""
        return {name: getattr(self, name) for name in parameter_names(type(self))}

    def __repr__(self) -> str:
        state = f"fitted on {self.images_seen_} images" if self.fitted_ else "not fitted"
        return f"{type(self).__name__}({self.representation.card['name']}, {state})"

    # -- within the room -------------------------------------------------------------------------------------

    def _absorb(self, batches: Iterator[Batch]) -> Iterator[int]:
        """Good images as they come; yields how many were taken in. Detectors that learn from images rather
        than features override this."""

        def digest(part: Batch) -> tuple[int, FeatureMaps]:
            return len(part), self._digest(self._features(part))

        first = next(batches, None)
        if first is None:
            return
        cpu = self._device(first).type == "cpu"
        parts = itertools.chain.from_iterable(
            self._parts(batch) for batch in itertools.chain([first], batches)
        )
        for count, digested in imap_ordered(digest, parts) if cpu else map(digest, parts):
            self._observe(digested)
            yield count

    def _digest(self, features: FeatureMaps) -> FeatureMaps:
        """What of some images is learned from. Images share no work in it: a CPU digests some beside others."""
        return features

    def _parts(self, batch: Batch) -> list[Batch]:
        """What a stream takes at a time of it; on an accelerator all."""
        return batch.split(chunk_size(len(batch))) if self._device(batch).type == "cpu" else [batch]

    def _ready(self, device: torch.device) -> None:  # noqa: B027 (most have nothing to make)
        """Make what scoring on `device` needs and is made once: streams may score at the same time after it."""

    def _features(self, batch: Batch) -> FeatureMaps:
        see = self._eyes.as_computed if self.any_precision else self._eyes
        features = see(batch.images) if batch.features is None else batch.features
        for level in features:
            if not bool(torch.isfinite(level.sum())) and not bool(torch.isfinite(level).all()):
                named = f" for {batch.paths[_first_bad(level)]}" if batch.paths else ""
                raise NotFinite(
                    f"{self.representation.card['name']} gives NaN or infinity{named}: its weights or its "
                    "precision are broken."
                )
        return features

    def _device(self, batch: Batch) -> torch.device:
        """Where the features of a batch are, or will be."""
        return self._eyes.device if batch.features is None else batch.features[0].device

    def _open_eyes(self, source: Any) -> None:
        """Freeze the representation while the first files are decoded; from another source features may come."""
        if isinstance(source, Samples | str | Path) and not self.needs_images:
            _ = self._eyes

    @property
    def _eyes(self) -> Frozen:
        """The frozen representation."""
        if self._extractor is None:
            self._extractor = self.representation.frozen(self.precision, self.device)
        return self._extractor

    @torch.inference_mode()
    def _predict(self, batch: Batch) -> Prediction:
        size = (int(batch.images.shape[2]), int(batch.images.shape[3]))
        self._ready(self._device(batch))

        def score(part: Batch) -> tuple[Tensor, Tensor]:
            return self._score(self._features(part), size)

        parts = thread_map(score, self._parts(batch)) if self.by_image else [score(batch)]
        joined = parts[0] if len(parts) == 1 else (torch.cat(values) for values in zip(*parts, strict=True))
        maps, scores = (values.float().cpu() for values in joined)
        p_value = flagged = None
        if self.calibration_ is not None:
            values = calibration.p_values(scores, self.calibration_["scores"])
            p_value = torch.from_numpy(values)
            flagged = scores.double() > self.calibration_["threshold"]
        return Prediction(map=maps, score=scores, p_value=p_value, is_anomalous=flagged, paths=batch.paths)

    def _require_fit(self, verb: str) -> None:
        if not self.fitted_:
            raise NotFitted(
                f"{type(self).__name__}.{verb} needs a fitted detector: call .fit(good images) first, or "
                "kizu.load a saved one."
            )


def parameter_names(kind: type[Detector]) -> list[str]:
    """The keyword-only arguments of a detector's constructor."""
    parameters = inspect.signature(kind.__init__).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]


def build(
    kind: type[Detector], representation: Representation | str | Path | None, parameters: dict[str, Any]
) -> Detector:
    """Construct with checked parameters. Raises UnknownParameter naming the nearest."""
    registry.check_keywords(kind.__name__, kind.__init__, parameters)
    return kind(representation, **parameters)


def _opened(source: Representation | str | Path | None, levels: tuple[int, ...]) -> Representation:
    return source if isinstance(source, Representation) else open_representation(source, levels=levels)


def _first_bad(level: Tensor) -> int:
    return int((~torch.isfinite(level)).flatten(1).any(1).int().argmax())
