"""Detectors that are trained step by step: what they share with each other, all of it.

    images or features -> SampleStore -> stream(position) -> training.train(objective) -> network_ -> scorer

A member writes `network()`, `objective(network)` and `scorer()`. This base owns the seeded stream of samples,
the loop with its checkpoints, resuming, evaluation along the training, and the state of the model file."""

from __future__ import annotations

import copy
import functools
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from kizu import checks
from kizu.detectors._predictions import require_finite
from kizu.detectors.base import Detector
from kizu.errors import NotFinite, UsageError
from kizu.precision import Choice
from kizu.representations.weights import digest
from kizu.store import expect, without_prefix
from kizu.training import FitOptions, Objective, SampleStore, checkpoint, train
from kizu.types import Batch, FeatureMaps


class LearnedDetector(Detector):
    """trains_on: "features", computed once for every image, or "images", looked at anew in every step.

    A member's constructor sets iterations (steps of batch_size samples), seed and training_precision ("auto",
    "fp32" or "bf16"), clip (the largest norm of a gradient) where it has one, and calls `_check_training()`.
    After `fit`: network_, what was trained, in evaluation mode on the CPU; steps_; trained_in_, the precision
    of the training; log_, the rows of its log."""

    trains_on: ClassVar[Literal["features", "images"]] = "features"
    _shapes: ClassVar[dict[str, str]] = {"steps": "1"}
    iterations: int
    seed: int
    training_precision: str
    clip: float | None = None
    trained_in_: Choice | None = None

    # -- what a member adds ----------------------------------------------------------------------------------

    @abstractmethod
    def network(self) -> nn.Module:
        """The network before training, drawn from `seed` alone; a saved one is loaded into it as well.

        It is built on torch's default device, which is "meta" where only shapes are asked for."""

    @abstractmethod
    def objective(self, network: nn.Module) -> Objective:
        """What trains `network`, in place. Batches are dicts: "images" or "features", "labels" and "masks"
        where `supervision` is "labelled" (SampleStore.stream)."""

    def _check_samples(self, samples: SampleStore) -> None:
        """Raise UsageError for samples that cannot be learned from."""

    def _measure(self, samples: SampleStore) -> None:
        """What the objective needs of the samples, computed once before the training: a mean, textures."""

    def _complete(self, samples: SampleStore) -> None:
        """What is computed once from the trained network and the samples: a density, a bank."""

    # -- the same for all ------------------------------------------------------------------------------------

    @property
    def takes_features(self) -> bool:
        """Whether the features of its representation are all it needs of an image, to fit and to predict."""
        return super().takes_features and self.trains_on == "features"

    @property
    def trains(self) -> bool:
        """It does."""
        return True

    def _check_training(self) -> None:
        """Raise UsageError for shared parameters that cannot be meant."""
        checks.whole_numbers(iterations=self.iterations)
        checks.whole_numbers(least=0, seed=self.seed)
        if self.training_precision not in ("auto", "fp32", "bf16"):
            raise UsageError(f"training_precision is auto, fp32 or bf16, got {self.training_precision!r}.")

    def _check_options(self, options: FitOptions) -> None:
        """All of them have an effect here."""

    def _learn(self, batches: Iterator[Batch], options: FitOptions) -> int:
        self._adopt_precision(options)
        samples = self._collected(batches, options)
        if not len(samples):
            return 0
        if self.trains_on == "images":
            self._first_features(samples)
        self._check_samples(samples)
        self._measure(samples)
        network = self.network()
        seen, objective = len(samples), self.objective(network)
        self.log_: list[dict[str, Any]] = train(
            objective,
            functools.partial(samples.stream, seed=self.seed),
            steps=self.iterations,
            batch_size=self.batch_size,
            clip=self.clip,
            folder=options.folder,
            recipe=self._recipe(seen),
            resume=options.resume,
            checkpoint_every=options.checkpoint_every,
            precision=self.training_precision,
            device=self.device,
            devices=1,  # a fit stays in its process, whatever started the program
            nodes=1,
            title=type(self).__name__,
            show=options.progress is None,
            on_step_end=functools.partial(self._on_step_end, network, options, samples),
        )
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise NotFinite(
                    f"The training of {type(self).__name__} ended with NaN or infinity in {name}. Take a "
                    "smaller learning_rate, or training_precision='fp32'."
                )
        self._set_network(network, self.iterations)
        self._complete(samples)
        self.trained_in_ = objective.precision_
        return seen

    def _adopt_precision(self, options: FitOptions) -> None:
        """A resumed fit computes features in the precision in which it began: then its result is the same."""
        self.precision_ = None
        if options.resume and options.folder is not None and self.precision == "auto":
            self.precision_ = Choice.of(checkpoint.recipe_of(options.folder).get("features"))

    def _collected(self, batches: Iterator[Batch], options: FitOptions) -> SampleStore:
        """All samples, as images or as features."""
        if self.trains_on == "images":
            samples = SampleStore(white_level=self.white_level, roi=self.roi)
        else:
            samples = SampleStore(self._features_of_images, dtype=self._warm_up().dtype)
        for batch in batches:
            samples.add(batch)
            if options.progress:
                options.progress(len(samples), "good images" if self.supervision == "normal" else "images")
        return samples

    def _first_features(self, samples: SampleStore) -> FeatureMaps:
        """Features of the first image before training. Raises NotFinite, naming representation and image."""
        first = samples.take([0])
        features = self.representation_.inference_copy(self._precision.precision, self.device)(
            first.require_images()
        )
        require_finite(features, first, self.representation_.card["name"])
        return features

    def _features_of_images(self, images: Tensor) -> list[Tensor]:
        return self._features(Batch(images))

    def _on_step_end(
        self, network: nn.Module, options: FitOptions, samples: SampleStore, step: int, steps: int
    ) -> dict[str, float] | None:
        """Progress, and every `evaluate_every` steps the caller's figures of a fitted copy."""
        if options.progress is not None:
            options.progress(len(samples), f"training, step {step} of {steps}")
        if options.evaluate is None or (step % options.evaluate_every and step < steps):
            return None
        return options.evaluate(step, self._fitted_copy(network, step, samples))

    def _fitted_copy(self, network: nn.Module, step: int, samples: SampleStore) -> Self:
        twin = self.clone()
        twin.representation_, twin.precision_ = self.representation_, self.precision_
        twin._set_network(copy.deepcopy(network), step)
        twin._complete(samples)
        twin.fitted_, twin.images_seen_ = True, len(samples)
        twin._prepare_scoring()
        return twin

    def _set_network(self, network: nn.Module, steps: int) -> None:
        """What was learned becomes this detector's own: on the CPU, in evaluation mode."""
        self.network_ = network.cpu().eval().requires_grad_(False)
        self.steps_ = steps

    def _recipe(self, images: int) -> dict[str, Any]:
        """What must be the same for a checkpoint to be gone on from."""
        plain = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.parameters.items()
            if name != "device"
        }
        known = {"images": images, "representation": self.representation.card["name"]}
        known["weights"] = digest(self.representation)
        if self.precision == "auto" and self.precision_ is not None:
            known["features"] = self.precision_.facts()
        return {"detector": type(self).__module__.rpartition(".")[2], **plain, **known}

    def _state(self) -> dict[str, Tensor]:
        weights = {f"network.{name}": value for name, value in self.network_.state_dict().items()}
        return {"steps": torch.tensor([self.steps_]), **weights}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        weights = without_prefix(tensors, "network.")
        with torch.device("meta"):  # shapes without memory: nothing is built that the file does not hold
            planned = self.network().state_dict()
        shapes = {name: " ".join(map(str, tensor.shape)) for name, tensor in planned.items()}
        expect("The network", weights, shapes)
        network = self.network()
        network.load_state_dict(weights)
        self._set_network(network, int(tensors["steps"][0]))
