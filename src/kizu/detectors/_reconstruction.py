"""What the two detectors by feature reconstruction share: gathering images, training through the one loop,
scoring, state."""

from __future__ import annotations

import copy
import functools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from kizu import maps
from kizu.detectors._images import StoredImages
from kizu.detectors._inputs import Images
from kizu.detectors._objective import ReconstructionObjective, Tell
from kizu.detectors.base import Detector, Progress
from kizu.errors import UnknownName, UsageError
from kizu.losses.cosine import distance_map
from kizu.nn.landscape import landscape
from kizu.nn.mirror import MirrorPlan, plan
from kizu.nn.rebuilder import Rebuilder, smallest_grid
from kizu.nn.residual import folded
from kizu.representations.base import Representation
from kizu.samples import Samples
from kizu.training import train
from kizu.types import Batch, FeatureMaps

SCORE_RULES = ("max", "mean", "top")
DECODERS = ("code", "mirrored")


@dataclass(frozen=True)
class _Way:
    """How a fit goes, beside its data."""

    progress: Progress | None
    folder: Path | None
    resume: bool
    checkpoint_every: int
    watch: Callable[[int, Any], dict[str, float]] | None
    watch_every: int


class Reconstruction(Detector):
    """Base of reverse distillation and ReContrast. A member gives `_objective` and `_pairs`."""

    preferred_levels: ClassVar[tuple[int, ...]] = (1, 2, 3)
    needs_images: ClassVar[bool] = True
    _shapes: ClassVar[dict[str, str]] = {"steps": "1"}
    contrastive: bool = False
    """Whether two encoders meet: the rebuilder then has twin projections."""
    iterations: int
    decoder: str
    embedding_width: int | None
    score_rule: str
    sigma: float
    seed: int
    training_precision: str
    _rebuilder: Rebuilder | None

    def fit(
        self,
        data: Samples | str | Path | Tensor | Iterable[Batch | Tensor],
        *,
        progress: Progress | None = None,
        folder: Path | str | None = None,
        resume: bool = False,
        checkpoint_every: int = 200,
        watch: Callable[[int, Self], dict[str, float]] | None = None,
        watch_every: int = 250,
    ) -> Self:
        """Train on good images; see Detector.fit. They are gone over as often as `iterations` takes, however
        they are given.

        folder: where log.jsonl and, every checkpoint_every steps, checkpoint.kizu of the training go (None:
        nowhere); resume: go on from the checkpoint there. watch: called every watch_every steps and at the
        end with (step, a fitted copy as it is by then); the figures that it returns go into the log's row of
        that step, and the training is the same with it as without. Raises NotFinite when the loss is NaN or
        infinite; the checkpoint in `folder` is then the last good one."""
        if watch_every < 1:
            raise UsageError(f"watch_every is a number of steps, at least 1, got {watch_every}.")
        self._way = _Way(
            progress, None if folder is None else Path(folder), resume, checkpoint_every, watch, watch_every
        )
        try:
            return super().fit(data, progress=progress)
        finally:
            self.__dict__.pop("_images", None)
            del self._way

    def map_landscape(
        self, images: Images, *, distance: float = 1.0, steps: int = 50, seed: int = 0
    ) -> tuple[Tensor, Tensor]:
        """(offsets (steps,), values (steps, steps)): mean of the maps of `images` as bottleneck and decoder
        move about what was learned.

        Two random filter-normalised directions, drawn from `seed`; see nn.landscape (ReContrast's figure 4).
        The encoders stay. Raises NotFitted."""
        self._require_fit("map_landscape")

        def measure() -> float:
            self._rebuilder = None
            return float(self.predict(images).map.double().mean())

        try:
            return landscape(
                self.net_,
                measure,
                distance=distance,
                steps=steps,
                generator=torch.Generator().manual_seed(seed),
            )
        finally:
            self._rebuilder = None

    @abstractmethod
    def _objective(self, net: Rebuilder, tell: Tell | None) -> ReconstructionObjective: ...

    @abstractmethod
    def _pairs(self, features: FeatureMaps) -> list[tuple[FeatureMaps, FeatureMaps]]:
        """(rebuilt, target) whose distances make the map."""

    def _check_common(self) -> None:
        """Raise for parameters that cannot be meant."""
        if self.score_rule not in SCORE_RULES:
            raise UnknownName("score_rule", self.score_rule, SCORE_RULES)
        if self.decoder not in DECODERS:
            raise UnknownName("decoder", self.decoder, DECODERS)
        if self.embedding_width is not None and self.embedding_width < 1:
            raise UsageError(
                f"embedding_width is a number of channels, at least 1, or None; got {self.embedding_width}."
            )
        if self.iterations < 1:
            raise UsageError(f"iterations is at least 1, got {self.iterations}.")

    # -- learning --------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._images = StoredImages()
        self._forget()

    def _forget(self) -> None:
        """Drop the inference twins of what was learned before."""
        self._rebuilder = None

    def _absorb(self, batches: Iterator[Batch]) -> Iterator[int]:
        for batch in batches:
            first = not len(self._images)
            kept = self._images.add(batch)
            if first:
                features = Detector._features(self, kept)
                if smallest_grid(features) * self.batch_size < 2:
                    raise UsageError(
                        f"Images of {self._images.size} leave one number a channel to normalise: take "
                        "larger images, or a larger "
                        "batch_size."
                    )
            yield len(batch)

    def _observe(self, features: FeatureMaps) -> None:
        raise NotImplementedError("this detector learns from images")

    def _finish(self) -> None:
        way, seen = self._way, len(self._images)
        objective: Any = None

        def tell(step: int, steps: int) -> dict[str, float] | None:
            if way.progress is not None:
                way.progress(seen, f"training, step {step} of {steps}")
            if way.watch is None or (step % way.watch_every and step < steps):
                return None
            return way.watch(step, self._as_of_now(objective, step, seen))

        objective = self._objective(self._new_net(self.seed), tell)
        self.log_ = train(
            objective,
            functools.partial(self._images.stream, seed=self.seed),
            steps=self.iterations,
            batch_size=self.batch_size,
            folder=way.folder,
            recipe=self._recipe(seen),
            resume=way.resume,
            checkpoint_every=way.checkpoint_every,
            precision=self.training_precision,
            device=self.device,
            title=type(self).__name__,
            show=way.progress is None,
        )
        self.steps_ = self.iterations
        self._take(objective.net, objective.encoder)

    def _take(self, net: Rebuilder, encoder: nn.Module | None) -> None:
        """What was learned becomes this detector's own: out of the graph, on the CPU."""
        self._forget()
        self.net_ = net.cpu().eval()

    def _as_of_now(self, objective: Any, step: int, seen: int) -> Self:
        """A fitted detector with a copy of what is learned by now."""
        made = self.clone()
        made._take(copy.deepcopy(objective.net), copy.deepcopy(objective.encoder))
        made._extractor, made.steps_, made.images_seen_, made.fitted_ = self._extractor, step, seen, True
        return made

    def _new_net(self, seed: int | None = 0) -> Rebuilder:
        return Rebuilder(
            self._plan(), twin=self.contrastive, blocks=self.decoder, width=self.embedding_width, seed=seed
        )

    def _recipe(self, images: int) -> dict[str, Any]:
        parameters = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.parameters.items()
            if name != "device"
        }
        return {**parameters, "images": images, "representation": self.representation.card["name"]}

    def _plan(self) -> MirrorPlan:
        net: Any = self.representation
        levels = getattr(net, "levels", range(1, len(net.channels) + 1))
        return plan(getattr(net, "net", net), levels, net.channels, net.strides)

    # -- looking ---------------------------------------------------------------------------------------------

    def _score(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Sum over pairs and levels of the upsampled distance maps (align_corners=True, as the released
        code).

        Upsampling is linear: the pairs of a level are added before it.
        """
        distances = [
            [distance_map(*both) for both in zip(rebuilt, target, strict=True)]
            for rebuilt, target in self._pairs(features)
        ]
        grids = [torch.stack(same).sum(0) for same in zip(*distances, strict=True)]
        total = torch.stack(
            [maps.upsample(grid, size, sigma=self.sigma, align_corners=True) for grid in grids]
        ).sum(0)
        return total, maps.image_score(total, self.score_rule)

    def _inference(self) -> tuple[Rebuilder, torch.dtype]:
        """The rebuilder folded, on the device and in the precision of the features."""
        if self._rebuilder is None:
            extractor = self._eyes
            self._dtype = extractor.dtype
            self._rebuilder = folded(self.net_).to(extractor.device, extractor.dtype)  # type: ignore[assignment]
        assert self._rebuilder is not None
        return self._rebuilder, self._dtype

    # -- state -----------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Tensor]:
        return {"steps": torch.tensor([self.steps_])} | {
            f"net.{name}": value for name, value in self.net_.state_dict().items()
        }

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        self._forget()
        self.steps_ = int(tensors["steps"][0])
        self.net_ = self._new_net(None).eval()
        self.net_.load_state_dict(own(tensors, "net."))


def own(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def copied(representation: Representation) -> Representation:
    """A copy to be trained; the original is left alone."""
    return copy.deepcopy(representation).requires_grad_(True)
