"""The verdict of a run in plain sentences: what was learnt, what was promised, what was measured, and how
sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import polars as pl

from kizu.reports._run import Run, number, section


@dataclass(frozen=True)
class Tally:
    """Decisions on the labelled test images. `good`, `flawed`: how many of each; `false_alarms`, `found`:
    None without decisions."""

    good: int
    flawed: int
    unlabelled: int
    false_alarms: int | None
    found: int | None


def tally(run: Run) -> Tally:
    """Count labels and decisions, from the samples themselves."""
    samples = run.samples
    good, flawed = (samples.filter(pl.col("label") == label) for label in (0, 1))
    decided = samples["is_anomalous"].null_count() == 0 and not samples.is_empty()
    alarms, found = (int(part["is_anomalous"].sum() or 0) if decided else None for part in (good, flawed))
    return Tally(good.height, flawed.height, samples["label"].null_count(), alarms, found)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a share, `hits` of `n` (Wilson, 1927); n >= 1."""
    z, share = 1.959963984540054, hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def percent(share: float) -> str:
    """A share as per cent with one decimal, without it where it is whole."""
    text = f"{100 * share:.1f}"
    return f"{text.removesuffix('.0')}\N{NO-BREAK SPACE}%"


def learnt(run: Run) -> str:
    """What the detector was trained and calibrated on."""
    counts, calibration = section(run.info, "counts"), section(run.info, "calibration")
    detector = f"The {run.info['detector']} detector" if run.info.get("detector") else "The detector"
    what = ", ".join(str(run.info[key]) for key in ("dataset", "category") if run.info.get(key))
    train = number(counts.get("train"))
    first = f"{detector} was trained on {_many(train, 'good image')}{f' ({what})' if what else ''}."
    images, promised = number(calibration.get("images")), run.promised
    if run.threshold is None:
        return f"{first} It was not calibrated: it gives scores, but no decisions."
    if not run.is_promise:
        rate = (
            ""
            if promised is None
            else f", for about {percent(promised)} false alarms: an estimate, no promise"
        )
        if run.is_named:
            return f"{first} Its threshold was named by hand{rate}."
        return (
            f"{first} Its threshold was set on the same images, each judged by a detector that had not "
            f"learnt from it{rate}."
        )
    rate = (
        ""
        if promised is None
        else f" so that on average at most {percent(promised)} of good parts raise a false alarm"
    )
    parts, certified = number(calibration.get("parts")), number(calibration.get("certified_rate"))
    of = "" if parts in (None, images) else f" of {_many(parts, 'part')}"
    sure = (
        ""
        if certified is None
        else f" With 95\N{NO-BREAK SPACE}% confidence this threshold's rate is at most {percent(certified)}."
    )
    return f"{first} Its threshold was set on {_many(images, 'other good image')}{of}{rate}.{sure}"


def measured(run: Run) -> list[str]:
    """What the test showed: one sentence on good parts, one on flawed ones, each only where there are any."""
    counted = tally(run)
    if not counted.good + counted.flawed + counted.unlabelled:
        return ["The test holds no images."]
    if counted.false_alarms is None or counted.found is None:
        parts = [
            _many(counted.good, "good part"),
            _many(counted.flawed, "flawed part"),
            _many(counted.unlabelled, "unlabelled image"),
        ]
        held = [
            part
            for part, n in zip(parts, (counted.good, counted.flawed, counted.unlabelled), strict=True)
            if n
        ]
        return [f"The test holds {' and '.join(held)}."]
    sentences = []
    if counted.good:
        word = "promised: at most" if run.is_promise else "expected: about"
        promise = "" if run.promised is None else f"; {word} {percent(run.promised)}"
        rate = percent(counted.false_alarms / counted.good)
        sentences.append(
            f"Of {_many(counted.good, 'good part')}, {_were(counted.false_alarms)} called anomalous "
            f"({rate}{promise})."
        )
    if counted.flawed:
        sentences.append(
            f"Of {_many(counted.flawed, 'flawed part')}, {_were(counted.found)} found "
            f"({percent(counted.found / counted.flawed)})."
        )
    elif counted.good:
        sentences.append(
            "The test holds no flawed parts, so nothing can be said of how many flaws are found."
        )
    if counted.unlabelled:
        sentences.append(f"{_many(counted.unlabelled, 'image')} carried no label and cannot be judged.")
    return sentences


def sureness(run: Run) -> str:
    """Whether the promise held, and within which bounds the true rates lie. Empty without decisions."""
    counted, promised = tally(run), run.promised
    if counted.false_alarms is None or counted.found is None:
        return ""
    sentences = []
    if counted.good and promised is not None:
        sentences.append(_promise(counted.false_alarms, counted.good, promised, run.is_promise))
    bounds = []
    if counted.good:
        bounds.append(f"{_span(counted.false_alarms, counted.good)} for false alarms")
    if counted.flawed:
        bounds.append(f"{_span(counted.found, counted.flawed)} for flaws found")
    if bounds:
        sentences.append(
            f"Judged by this many images, the true rates lie (95\N{NO-BREAK SPACE}% intervals) at "
            f"{' and '.join(bounds)}."
        )
    return " ".join(sentences)


def _promise(alarms: int, good: int, promised: float, is_promise: bool) -> str:
    if alarms / good <= promised:
        return f"The {'promise' if is_promise else 'estimate'} held on these images."
    if wilson(alarms, good)[0] <= promised:
        word = "promised" if is_promise else "expected"
        return f"That is more than {word}, but with {_many(good, 'good part')} it can be chance."
    if not is_promise:
        return "The estimate was too low: give more good images, so that the rate can be promised."
    return "The promise did not hold: the good parts of the test differ from those the threshold was set on."


def _span(hits: int, n: int) -> str:
    low, high = wilson(hits, n)
    return f"{100 * low:.0f}\N{EN DASH}{100 * high:.0f}\N{NO-BREAK SPACE}%"


def _many(count: float | None, noun: str) -> str:
    if count is None:
        return f"an unknown number of {noun}s"
    return f"{int(count)} {noun}{'' if count == 1 else 's'}"


def _were(count: int) -> str:
    return f"{count or 'none'} {'was' if count == 1 else 'were'}"
