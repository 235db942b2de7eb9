"""`kizu fit` and `kizu adapt`: learn from good images, with checkpoints beside the output while it is
trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kizu
from kizu import registry, store
from kizu.apps._commands import error_list, image_size_from, read, training
from kizu.apps._screen import Screen
from kizu.apps._settings import parameters_from
from kizu.apps._suspicious import LeftOut as LeftOut
from kizu.apps._suspicious import report
from kizu.apps._training_folder import training_folder
from kizu.errors import UsageError, counted

if TYPE_CHECKING:
    from kizu.detectors.base import Detector
    from kizu.detectors.scored import Scored
    from kizu.representations.base import Representation
    from kizu.samples import Samples

LARGER = (
    "timm/wide_resnet50_2.tv_in1k@2,3",
    "imagenet/efficientnet_lite2@2,3",
    "imagenet/efficientnet_lite1@2,3",
)
"""Representations that are worth a try where their weights are at hand, the largest first."""


@dataclass(frozen=True)
class Learner:
    """What learns: names, and parameters as name=value texts."""

    detector: str
    representation: str | None
    parameters: list[str]
    adaptation: str | None
    adaptation_parameters: list[str]

    def build(self) -> Detector:
        """The unfitted detector. Raises UsageError for parameters of an adaptation that is not named."""
        from kizu.adaptation.base import Adaptation

        adaptation = None
        if self.adaptation is not None:
            chosen = parameters_from(
                self.adaptation_parameters, registry.load("adaptation", self.adaptation), option="--adapt-set"
            )
            adaptation = Adaptation(self.adaptation, chosen)
        elif self.adaptation_parameters:
            raise UsageError("--adapt-set has no effect without --adaptation NAME.")
        parameters = parameters_from(self.parameters, registry.load("detectors", self.detector))
        return kizu.detector(self.detector, self.representation, adaptation=adaptation, **parameters)


def with_options(parameters: list[str], **options: object) -> list[str]:
    """Parameters as name=value texts, those of options that were named among them."""
    return [*parameters, *(f"{name}={value}" for name, value in options.items() if value is not None)]


@dataclass(frozen=True)
class Promise:
    """What is promised, and how it is backed."""

    false_alarm_rate: float | None
    method: str
    seed: int


def fit(
    data: Path,
    out: Path,
    learner: Learner,
    promised: Promise,
    left_out: LeftOut,
    *,
    dataset: str,
    category: str | None,
    mask_rule: str | None,
    resume: bool,
    overwrite: bool,
    as_json: bool,
) -> int:
    """`kizu fit`."""
    from kizu.evaluation.calibration_method import choose
    from kizu.evaluation.suspicion import suspicion

    screen = Screen(as_json)
    inputs: list[Path | str] = [data, *([learner.representation] if learner.representation else [])]
    store.check_output(out, store.CARD, overwrite=overwrite, inputs=inputs)
    model = learner.build()
    samples = read(dataset, data, category, mask_rule)
    store.refuse_inputs(out, samples.paths)
    good = training(samples) if model.supervision == "normal" else labelled(samples)
    good, found = left_out.apply(model, good, data, promised.seed, screen)
    method = choose(model, good, promised.false_alarm_rate, promised.method)
    facts = {**_facts(model, good), "calibration": method, "seed": promised.seed}
    facts |= {"false_alarm_rate": promised.false_alarm_rate}  # it says how many images are held out
    with training_folder(out, facts if model.trains else None, resume=resume, overwrite=overwrite) as folder:
        scored = _learn(model, good, learner, promised, screen, folder, resume)
        model.save(out, overwrite=overwrite)
    screen.say(f"Wrote {out}. {promise(model)}")
    known = report(out, found or suspicion(scored), left_out, model, screen)
    screen.say(f"Precision: {model.precision_}." if model.precision_ else "")
    facts = {
        "model": str(out),
        "precision": model.precision_.facts() if model.precision_ else None,
        "images": model.images_seen_,
        "calibration": model.decision_.facts() if model.decision_ else None,
        **known,
    }
    return _close(screen, facts, model.skipped_, samples)


def _learn(
    model: Detector,
    good: Samples,
    learner: Learner,
    promised: Promise,
    screen: Screen,
    folder: Path | None,
    resume: bool,
) -> list[Scored]:
    """Fit and calibrate; the scores that the calibration is made of."""
    from kizu.evaluation.calibrated import fit_calibrated
    from kizu.training import FitOptions

    screen.say(
        f"Learning from {counted(len(good), 'image')} with {learner.detector} on "
        f"{model.representation.card['name']}"
    )
    if learner.representation is None and model.representation.card["kind"] != "pixels":
        screen.say(default_notice())
    scored: list[Scored] = []
    with screen.progress(len(good)) as progress:
        fit_calibrated(
            model,
            good,
            false_alarm_rate=promised.false_alarm_rate,
            method=promised.method,
            seed=promised.seed,
            options=FitOptions(progress=progress, folder=folder, resume=resume),
            collected=scored,
        )
    return scored


def _close(screen: Screen, facts: dict[str, Any], skipped: Sequence[tuple[str, str]], data: Samples) -> int:
    """Say what was not used; the exit code."""
    screen.unused(skipped)
    screen.passed_over(data.passed_over)
    screen.result({**facts, "skipped": error_list(skipped), "passed_over": error_list(data.passed_over)})
    return 1 if skipped else 0


def adapt(
    data: Path,
    out: Path,
    name: str,
    representation: str | None,
    parameters: list[str],
    *,
    dataset: str,
    category: str | None,
    image_size: str,
    white_level: int | None,
    seed: int,
    resume: bool,
    overwrite: bool,
    as_json: bool,
) -> int:
    """`kizu adapt`."""
    from kizu.adaptation.base import Adaptation, adapt_to
    from kizu.representations.sources import open_representation, save_representation
    from kizu.training import FitOptions
    from kizu.training.checkpoint import has_checkpoint

    screen = Screen(as_json)
    store.check_output(
        out,
        store.CARD,
        overwrite=overwrite,
        inputs=[str(data), *([representation] if representation else [])],
    )
    chosen = parameters_from(parameters, registry.load("adaptation", name))
    adaptation = Adaptation(name, chosen, seed)
    size = image_size_from(image_size)
    base = open_representation(representation)
    samples = read(dataset, data, category)
    store.refuse_inputs(out, samples.paths)
    good, broken = training(samples), list[tuple[str, str]]()
    facts = {"adaptation": name, **_plain(adaptation.settings()), "seed": seed, "size": list(size)}
    facts |= {"white_level": white_level}
    facts |= {"representation": base.card["name"], "weights": _digest(base), "images": good.digest()}
    with training_folder(
        out, facts if adaptation.trains else None, resume=resume, overwrite=overwrite
    ) as folder:
        screen.say(f"Adapting {base.card['name']} to {counted(len(good), 'good image')} with {name}")
        with screen.progress(len(good)) as progress:
            started = folder is not None and has_checkpoint(folder)
            options = FitOptions(progress=progress, folder=folder, resume=resume and started)
            given: dict[str, Any] = {"image_size": size, "white_level": white_level, "errors": broken}
            adapted = adapt_to(adaptation, base, good, options=options, **given)
        save_representation(adapted, out, overwrite=overwrite)
    screen.say(f"Wrote {out}. Use it with --representation {out}")
    facts = {
        "representation": str(out),
        "name": adapted.card["name"],
        "images": len(adapted.card["images_seen"]),
    }
    return _close(screen, facts, broken, good)


def _facts(model: Detector, data: Samples) -> dict[str, Any]:
    """All that decides the fitted model."""
    adaptation = model.adaptation
    return {
        "detector": type(model).__name__,
        "parameters": _plain(model.parameters),
        "representation": model.representation.card["name"],
        "weights": _digest(model.representation),
        "adaptation": None
        if adaptation is None
        else {"name": adaptation.name, **_plain(adaptation.settings())},
        "images": data.digest(),
    }


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items()}


def _digest(net: Representation) -> str:
    from kizu.representations.weights import digest

    return digest(net)


def labelled(samples: Samples) -> Samples:
    """The labelled images of the training split, or all labelled ones where there is no split."""
    known = samples.to_learn
    return known.normal.concat(known.anomalous)


def promise(model: Detector) -> str:
    """What the decision promises, and what is certain, in a few sentences."""
    from kizu.calibration import parts_needed, smallest_rate

    decision = model.decision_
    if decision is None:
        return (
            "Not calibrated: scores and heat maps, but no decision. `kizu calibrate MODEL GOOD` with good "
            "images that it has not learned from gives it one, and so does a fit with --calibration auto and "
            "at least 3 good images that differ (2 for what is trained)."
        )
    rate, parts, count = decision.false_alarm_rate, decision.parts, len(decision.scores)
    images = counted(count, "good image") + ("" if parts == count else f" of {counted(parts, 'part')}")
    if decision.fixed:
        certain = decision.certified_rate
        sure = "" if certain is None else f" With 95 % confidence its rate is at most {certain:.2%}."
        return (
            f"The threshold {decision.threshold:.4g} was named: of {images} {decision.parts_above} lie above "
            f"it, so that about {rate:.2%} of good parts will be called anomalous. That is an estimate, no "
            f"promise.{sure}"
        )
    if decision.certified_rate is None:
        return (
            f"Expected: about {rate:.2%} of good parts are called anomalous (score > "
            f"{decision.threshold:.4g}; {images}, each scored by a model that had not seen it). This is an "
            "estimate, no promise: with more good images, or --calibration split, the rate is promised."
        )
    needed = parts_needed(rate)
    named = math.ceil(smallest_rate(needed) * 1e5) / 1e5  # rounded up: below 1 / (n + 1) is refused
    surer = (
        f" To be as sure of {rate:.2%} takes {counted(needed, 'part')} to calibrate on, and "
        f"--false-alarm-rate {named:g}."
    )
    return (
        f"Promise: at most {rate:.2%} of good parts are called anomalous, on average over calibration sets "
        f"(score > {decision.threshold:.4g}; {images}, held out). With 95 % confidence this model's rate is "
        f"at most {decision.certified_rate:.2%}.{surer if decision.certified_rate > rate else ''}"
    )


def default_notice() -> str:
    """What stands behind the default representation, and a larger one that this machine has."""
    from kizu.representations.weights import DEFAULT, at_hand

    larger = next((name for name in LARGER if at_hand(name)), None)
    more = f" A larger one may see more: --representation {larger}" if larger else ""
    return f"No representation was named: using {DEFAULT}, a small network trained on ImageNet.{more}"
